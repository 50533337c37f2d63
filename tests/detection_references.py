"""Made-up detection data with every oddity, and the packages whose figures ours must be."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Rows = list[dict[str, Any]]


def made(
    seed: int,
    *,
    images: int = 6,
    classes: int = 5,
    objects: int = 25,
    detections: int = 120,
    lvis: bool = False,
    grid: float = 4.0,
    side: int = 160,
) -> tuple[dict[str, Any], Rows]:
    """Annotations and results: boxes on a coarse grid (equal overlaps), tied scores, crowds or ignored objects, boxes
    of no size, classes without objects, images without anything, categories and classes that nobody labelled."""
    rng = np.random.default_rng(seed)
    image_ids = (rng.permutation(50)[:images] + 1).tolist()
    class_ids = (rng.permutation(40)[:classes] + 1).tolist()

    def box() -> list[float]:
        x, y = rng.integers(0, side // 2, 2)
        w, h = rng.choice([8, 12, 20, 33, 64, 100], 2)
        return [float(round(v / grid) * grid) for v in (x, y, w, h)]

    annotations = []
    for number in range(objects):
        place = box()
        if rng.random() < 0.03:
            place[2] = 0.0
        area = place[2] * place[3] * rng.choice([0.5, 1.0])
        # The last image and the last class hold nothing.
        row = {
            "id": number + 1, "image_id": int(rng.choice(image_ids[:-1])),
            "category_id": int(rng.choice(class_ids[:-1])), "bbox": place, "area": area,
        }  # fmt: skip
        if lvis:
            row |= {"ignore": int(rng.random() < 0.1), "iscrowd": int(rng.random() < 0.2)}
        else:
            row["iscrowd"] = int(rng.random() < 0.2)
        annotations.append(row)
    results = []
    for _ in range(detections):
        if annotations and rng.random() < 0.7:
            near = annotations[rng.integers(len(annotations))]
            image, number = near["image_id"], near["category_id"]
            place = [float(v) for v in np.array(near["bbox"]) + rng.choice([0, 0, 4, -4, 8], 4)]
            if rng.random() < 0.1:
                number = int(rng.choice(class_ids))
        else:
            image, number, place = int(rng.choice(image_ids)), int(rng.choice([*class_ids, 999])), box()
        if rng.random() < 0.03:
            place[int(rng.integers(2, 4))] = float(rng.choice([0, -5]))
        score = float(rng.choice([0.1, 0.5, 0.5, 0.9])) if rng.random() < 0.5 else float(rng.random())
        results.append({"image_id": image, "category_id": number, "bbox": place, "score": score})
    pictures = [{"id": one, "height": side, "width": side} for one in image_ids]
    if lvis:
        for picture in pictures:
            held = {row["category_id"] for row in annotations if row["image_id"] == picture["id"]}
            others = [one for one in class_ids if one not in held]
            picture["neg_category_ids"] = [one for one in others if rng.random() < 0.4]
            picture["not_exhaustive_category_ids"] = [one for one in class_ids if rng.random() < 0.2]
    letters = ["r", "c", "f"]
    categories = [
        {"id": one, "name": f"class {one}", "frequency": letters[place % 3]} for place, one in enumerate(class_ids)
    ]
    return {"images": pictures, "annotations": annotations, "categories": categories}, results


def with_masks(gt: dict[str, Any], dt: Rows, seed: int, *, keep_boxes: bool) -> tuple[dict[str, Any], Rows]:
    """The same with masks: polygons on objects (run-length codes on crowds), run-length codes on detections."""
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    gt, dt = copy.deepcopy(gt), copy.deepcopy(dt)

    def drawn(box: list[float]) -> np.ndarray:
        x, y, w, h = (int(max(v, 0)) for v in box)
        canvas = np.zeros((160, 160), dtype=np.uint8, order="F")
        canvas[y : y + h, x : x + w] = 1
        canvas[y : y + h // 3, x : x + w // 3] = rng.integers(2)
        return canvas

    for row in gt["annotations"]:
        x, y, w, h = row["bbox"]
        if row.get("iscrowd"):
            flat = drawn(row["bbox"]).ravel(order="F")
            runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat, prepend=0)), [flat.size]]))
            row["segmentation"] = {"size": [160, 160], "counts": runs.tolist()}
        else:
            row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]]
    for row in dt:
        code = mask.encode(drawn(row["bbox"]))
        row["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        if not keep_boxes:
            del row["bbox"]
    return gt, dt


def coco_figures(gt: dict[str, Any], dt: Rows, kind: str = "bbox") -> dict[str, float]:
    """pycocotools' twelve figures, -1 as nan."""
    COCO = pytest.importorskip("pycocotools.coco").COCO
    COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(copy.deepcopy(dt)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    names = "AP AP50 AP75 APs APm APl AR@1 AR@10 AR@100 ARs@100 ARm@100 ARl@100".split()
    return {name: float("nan") if value == -1 else float(value) for name, value in zip(names, run.stats)}


def lvis_run(gt: dict[str, Any], dt: Rows, folder: Path, kind: str = "bbox", cap: int = 300) -> Any:
    """The lvis package's LVISEval after evaluate() and accumulate()."""
    np.float = float  # type: ignore[attr-defined]  # the published wheel still says np.float
    lvis = pytest.importorskip("lvis")
    path = folder / "gt.json"
    path.write_text(json.dumps(gt))
    truth = lvis.LVIS(str(path))
    run = lvis.LVISEval(truth, lvis.LVISResults(truth, copy.deepcopy(dt), max_dets=cap), kind)
    run.params.max_dets = cap
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


def lvis_figures(gt: dict[str, Any], dt: Rows, folder: Path, kind: str = "bbox", cap: int = 300) -> dict[str, float]:
    """The lvis package's figures, -1 as nan."""
    results = lvis_run(gt, dt, folder, kind, cap).get_results()
    return {name: float("nan") if value == -1 else float(value) for name, value in results.items()}


def best_of_each_class(dt: Rows, cap: int) -> Rows:
    """The ``cap`` best rows of each category, in the order of the categories' first rows: AP-Fixed's input."""
    by_class: dict[int, Rows] = {}
    for row in dt:
        by_class.setdefault(row["category_id"], []).append(row)
    return [row for rows in by_class.values() for row in sorted(rows, key=lambda one: -one["score"])[:cap]]


def pooled_figure(run: Any, classes: list[int]) -> float:
    """AP of one ranking of several classes from the matches of an LVISEval, size range "all", the plain way."""
    images, areas = len(run.params.img_ids), len(run.params.area_rng)
    cells = [run.eval_imgs[c * areas * images + i] for i in range(images) for c in classes]
    cells = [cell for cell in cells if cell is not None]
    if not cells:
        return float("nan")
    order = np.argsort(-np.concatenate([cell["dt_scores"] for cell in cells]), kind="mergesort")
    match, ignore = (np.concatenate([cell[k] for cell in cells], axis=1)[:, order] for k in ("dt_matches", "dt_ignore"))
    n_gt = sum(int((cell["gt_ignore"] == 0).sum()) for cell in cells)
    if not n_gt:
        return float("nan")
    values = []
    for hit, skip in zip(match != 0, ignore.astype(bool)):
        tp, fp = np.cumsum(hit & ~skip), np.cumsum(~hit & ~skip)
        precision = tp / (tp + fp + np.spacing(1))
        for level in np.linspace(0, 1, 101):
            reached = tp / n_gt >= level
            values.append(precision[reached.argmax() :].max() if reached.any() else 0.0)
    return float(np.mean(values))
