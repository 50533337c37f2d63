"""Average precision on a set shaped like LVIS: ours, the lvis package and faster-coco-eval, from files to figures.

The set is made: 1,203 classes by Zipf's law, objects of a few classes an image, some more classes known to be absent,
detections around objects, on labelled classes and on unlabelled ones, at most 300 an image (so that all three tools see
the same ones; faster-coco-eval has no cap over all classes). The lvis package visits every image, class and size range
in Python, so the sides meet on the first ``--compared`` images, each in a process of its own, taking turns; ours also
does the full set. What lvis would need for the full set is extrapolated by the number of images, and labelled so.

Last line: {"name", "ratio", "parity", ...}: ratio is lvis' seconds over ours, files to figures, at the compared size;
parity the largest difference of a figure to either peer.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES = 1203
PARITY = 1e-9
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR@300", "ARs@300", "ARm@300", "ARl@300")
FASTER = ("AP_all", "AP_50", "AP_75", "AP_small", "AP_medium", "AP_large", "APr", "APc", "APf", "AR_all", "AR_small",
          "AR_medium", "AR_large")  # fmt: skip


def write_set(folder: Path, images: int, detections: float, seed: int = 0) -> int:
    """Write gt.json and dt.json; how many detections."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CLASSES + 1)
    share = rng.permutation(share / share.sum())
    letters = np.select([share * 100_000 < 30, share * 100_000 < 150], ["r", "c"], "f")
    categories = [{"id": c + 1, "name": f"class {c + 1}", "frequency": str(letters[c])} for c in range(CLASSES)]
    pictures, objects, total = [], [], 0
    with (folder / "dt.json").open("w") as file:
        file.write("[")
        for image in range(1, images + 1):
            held = np.unique(rng.choice(CLASSES, rng.integers(1, 7), p=share))
            absent = np.setdiff1d(rng.choice(CLASSES, 10, p=share), held)
            partial = held[rng.random(len(held)) < 0.1]
            pictures.append({
                "id": image, "width": 640, "height": 480, "neg_category_ids": (absent + 1).tolist(),
                "not_exhaustive_category_ids": (partial + 1).tolist(),
            })  # fmt: skip
            own = np.repeat(held, rng.geometric(0.28, len(held)))
            size = np.exp(rng.normal(4.0, 1.0, (len(own), 2))).clip(4, 400)
            corner = rng.random((len(own), 2)) * (np.array([640, 480]) - size).clip(1)
            boxes = np.concatenate([corner, size], axis=1).round(2)
            for c, box in zip((own + 1).tolist(), boxes.tolist()):
                objects.append({
                    "id": len(objects) + 1, "image_id": image, "category_id": c, "bbox": box,
                    "area": box[2] * box[3] * 0.6,
                })  # fmt: skip
            many = int(min(300, max(4, rng.normal(detections, detections / 3))))
            near, labelled = rng.integers(len(own), size=many // 4), np.concatenate([held, absent])
            around = boxes[near] + rng.normal(0, 0.12, (len(near), 4)) * np.tile(boxes[near][:, 2:], 2)
            other = many - len(near)
            cls = np.concatenate([
                own[near], rng.choice(labelled, other // 3), rng.choice(CLASSES, other - other // 3, p=share)
            ])  # fmt: skip
            size = np.exp(rng.normal(4.0, 1.0, (other, 2))).clip(4, 400)
            corner = rng.random((other, 2)) * (np.array([640, 480]) - size).clip(1)
            found = np.concatenate([around, np.concatenate([corner, size], axis=1)])
            found[:, 2:] = found[:, 2:].clip(1)
            score = np.concatenate([rng.beta(2, 2, len(near)), rng.beta(1, 6, other)])
            order = np.argsort(-score)
            rows = zip((cls[order] + 1).tolist(), found[order].round(3).tolist(), score[order].tolist())
            text = ", ".join(
                f'{{"image_id": {image}, "category_id": {c}, "bbox": {box}, "score": {s:.7f}}}' for c, box, s in rows
            )
            file.write((", " if total else "") + text)
            total += many
        file.write("]")
    gt = {"images": pictures, "annotations": objects, "categories": categories}
    (folder / "gt.json").write_text(json.dumps(gt))
    return total


def ours(gt: Path, dt: Path) -> tuple[float, dict[str, float]]:
    from guerdon.benchmarks.detection_annotations import read_annotations
    from guerdon.benchmarks.detection_results import read_detections
    from guerdon.benchmarks.lvis import Caps, match, standard_figures

    annotations = read_annotations(gt)
    file = read_detections(dt, annotations)
    read = time.perf_counter()
    return read, standard_figures(annotations, file, match(annotations, file), Caps())


def lvis(gt: Path, dt: Path) -> tuple[float, dict[str, float]]:
    np.float = float  # type: ignore[attr-defined]  # the published wheel still says np.float
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS(str(gt))
    run = LVISEval(truth, LVISResults(truth, str(dt)), "bbox")
    read = time.perf_counter()
    run.run()
    return read, dict(run.get_results())


def faster(gt: Path, dt: Path) -> tuple[float, dict[str, float]]:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(str(gt))
    run = COCOeval_faster(truth, truth.loadRes(str(dt)), "bbox", lvis_style=True)
    run.params.maxDets = [300]
    read = time.perf_counter()
    run.run()
    return read, {name: run.stats_as_dict[theirs] for name, theirs in zip(FIGURES, FASTER, strict=True)}


SIDES = {"ours": ours, "lvis": lvis, "faster-coco-eval": faster}
# Imports are not the work that is timed.
IMPORTS = {
    "ours": ["guerdon.benchmarks.lvis", "pyarrow.json"], "lvis": ["lvis"], "faster-coco-eval": ["faster_coco_eval"],
}  # fmt: skip


def measured(side: str, folder: Path) -> dict[str, object]:
    """One side in a process of its own: seconds from files to figures, those after reading, and peak memory."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_side(side: str, folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        for name in IMPORTS[side]:
            __import__(name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, used = time.perf_counter(), time.process_time()
        read, figures = SIDES[side](folder / "gt.json", folder / "dt.json")
        ended, spent = time.perf_counter(), time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = {
        "seconds": ended - began, "after_reading": ended - read, "processor": spent, "peak_mib": peak / 1024,
        "imports_mib": before / 1024, "figures": {name: float(figures[name]) for name in FIGURES},
    }  # fmt: skip
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000, help="of the full set, which only ours does")
    parser.add_argument("--compared", type=int, default=500, help="images that every side does")
    parser.add_argument("--detections", type=float, default=160, help="an image, on average")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full-peer", action="store_true", help="faster-coco-eval on the full set too (tens of GiB)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.folder)
        return

    with tempfile.TemporaryDirectory() as made:
        small, full = Path(made) / "small", Path(made) / "full"
        small.mkdir(), full.mkdir()
        few = write_set(small, options.compared, options.detections)
        found: dict[str, list[dict]] = {side: [] for side in SIDES}
        names = list(SIDES)
        for turn in range(options.rounds):
            for side in names[turn % len(names) :] + names[: turn % len(names)]:
                found[side].append(measured(side, small))
        parity = max(
            abs(max(found["ours"][0]["figures"][name], -1) - found[side][0]["figures"][name])
            for side in names[1:]
            for name in FIGURES
        )
        print(f"{options.compared:,} images, {few:,} detections, {options.rounds} rounds in turns; medians")
        middle = {
            side: {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "figures"}
            for side, runs in found.items()
        }
        for side, one in middle.items():
            print(
                f"{side}: {one['seconds']:.2f} s from files to figures ({one['processor']:.2f} s of processor time), "
                f"{one['after_reading']:.3f} s of it after reading, peak {one['peak_mib']:,.0f} MiB "
                f"({one['imports_mib']:,.0f} of them imports)"
            )
        ratios = {
            key: {side: round(ratio(found[side], found["ours"], key), 2) for side in names[1:]}
            for key in ("seconds", "processor", "after_reading")
        }
        told = {
            "name": "detection_ap", "ratio": ratios["seconds"]["lvis"], "parity": parity,
            "ratio_faster_coco_eval": ratios["seconds"]["faster-coco-eval"], "ratios": ratios,
        }  # fmt: skip
        if options.images:
            many = write_set(full, options.images, options.detections)
            sides = ["ours", *(["faster-coco-eval"] if options.full_peer else [])]
            whole = {side: measured(side, full) for side in sides}
            print(f"{options.images:,} images, {many:,} detections, once")
            for side, one in whole.items():
                print(
                    f"{side}: {one['seconds']:.1f} s from files to figures ({one['processor']:.1f} s of processor "
                    f"time), {one['after_reading']:.2f} s of it after reading, peak {one['peak_mib']:,.0f} MiB; "
                    f"AP {one['figures']['AP']:.6f}"
                )
            guess = middle["lvis"]["seconds"] * options.images / options.compared
            print(f"lvis: about {guess / 60:.0f} minutes EXTRAPOLATED by images from {options.compared:,}; not run")
            told |= {
                "full_detections": many, "full_seconds": round(whole["ours"]["seconds"], 2),
                "full_processor": round(whole["ours"]["processor"], 2),
                "full_after_reading": round(whole["ours"]["after_reading"], 2),
                "full_peak_mib": round(whole["ours"]["peak_mib"]), "full_lvis_seconds_extrapolated": round(guess),
            }  # fmt: skip
            if options.full_peer:
                told["full_ratio_faster_coco_eval"] = round(
                    whole["faster-coco-eval"]["seconds"] / whole["ours"]["seconds"], 2
                )
    print(json.dumps(told), flush=True)
    sys.exit(0 if parity < PARITY else 1)


def ratio(slow: list[dict], fast: list[dict], key: str) -> float:
    """Median over the rounds."""
    return statistics.median(a[key] / b[key] for a, b in zip(slow, fast, strict=True))


if __name__ == "__main__":
    main()
