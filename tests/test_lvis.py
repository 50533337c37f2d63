"""Detection figures: those of pycocotools and lvis on every oddity, on real annotations, and what is shown of them."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection_references import (
    Rows,
    best_of_each_class,
    coco_figures,
    lvis_figures,
    lvis_run,
    made,
    pooled_figure,
    with_masks,
)
from guerdon.benchmarks.lvis import Caps, Graded, LvisResult, Rescored, lvis
from guerdon.core.errors import GuerdonError
from guerdon.core.sheet import Lines, Table

REAL = Path(__file__).parents[2] / "shared" / "data" / "lvis" / "lvis_val_100.json.gz"
EXACT = 1e-9


def graded(gt: dict[str, Any], dt: Rows, **options: Any) -> Graded:
    return lvis(gt, [dt], resamples=0, **options).graded[0]


def same(ours: Any, theirs: dict[str, float], rename: str = "AP") -> None:
    for name, value in theirs.items():
        assert ours[name.replace("AP", rename)] == pytest.approx(value, abs=EXACT, nan_ok=True), name


@pytest.mark.parametrize("seed", range(12))
def test_coco_boxes(seed: int) -> None:
    gt, dt = made(seed, images=2 + seed % 5, classes=2 + seed % 4, objects=5 + 3 * seed, detections=20 + 25 * seed)
    same(graded(gt, dt).figures["AP"], coco_figures(gt, dt))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cap", [300, 7])
def test_lvis_boxes(seed: int, cap: int, tmp_path: Path) -> None:
    gt, dt = made(
        seed, lvis=True, images=2 + seed % 5, classes=3 + seed % 4, objects=10 + 4 * seed, detections=30 + 40 * seed
    )
    same(graded(gt, dt, caps=Caps(per_image=cap)).figures["AP"], lvis_figures(gt, dt, tmp_path, cap=cap))


@pytest.mark.parametrize("seed", range(6))
def test_ap_fixed_and_ap_pool(seed: int, tmp_path: Path) -> None:
    gt, dt = made(seed, lvis=True, objects=30, detections=200)
    ours = graded(gt, dt, caps=Caps(per_class=9)).figures
    run = lvis_run(gt, best_of_each_class(dt, 9), tmp_path, cap=-1)
    theirs = {key: float("nan") if v == -1 else v for key, v in run.get_results().items() if key.startswith("AP")}
    same(ours["AP-Fixed"], theirs, "AP-Fixed")
    pools = {"AP": [*range(len(run.params.cat_ids))], **{f"AP{f}": run.freq_groups[k] for k, f in enumerate("rcf")}}
    same(ours["AP-Pool"], {name: pooled_figure(run, classes) for name, classes in pools.items()}, "AP-Pool")


@pytest.mark.parametrize("keep_boxes", [True, False])
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_masks(kind: str, keep_boxes: bool, tmp_path: Path) -> None:
    for seed in (3, 4):
        gt, dt = with_masks(*made(seed, detections=80), seed, keep_boxes=keep_boxes)
        same(graded(gt, dt, kind=kind).figures["AP"], coco_figures(gt, dt, kind))
        gt, dt = made(seed, lvis=True, detections=80)
        gt, dt = with_masks(gt, dt, seed, keep_boxes=keep_boxes)
        same(graded(gt, dt, kind=kind).figures["AP"], lvis_figures(gt, dt, tmp_path, kind))


def test_boxes_stand_for_masks_that_are_not_there(tmp_path: Path) -> None:
    gt, dt = made(5, detections=60)
    dt = [row for row in dt if min(row["bbox"][2:]) > 0]
    gt, _ = with_masks(gt, [], 5, keep_boxes=True)
    same(graded(gt, dt, kind="segm").figures["AP"], coco_figures(gt, dt, "segm"))


def test_mask_area_by_choice() -> None:
    """With both a box and a mask, size ranges go by the box as in pycocotools, or by the mask as AP-Fixed's script."""
    gt, dt = with_masks(*made(3, detections=150), 3, keep_boxes=True)
    bare = [{key: value for key, value in row.items() if key != "bbox"} for row in dt]
    ours = graded(gt, dt, kind="segm", mask_area=True).figures["AP"]
    same(ours, coco_figures(gt, bare, "segm"))
    assert ours != graded(gt, dt, kind="segm").figures["AP"]


def test_one_class_or_none_found() -> None:
    gt, dt = made(0)
    for few in ([], dt[:1]):
        result = lvis(gt, [few], resamples=5)
        assert result.graded[0].figures["AP"]["AP"] >= 0 and result.to_dict()["files"]
    same(graded(gt, dt[:1]).figures["AP"], coco_figures(gt, dt[:1]))
    empty = {**gt, "annotations": []}
    figures = graded(empty, dt).figures
    assert all(np.isnan(value) for part in figures.values() for value in part.values())
    assert lvis(empty, [dt], resamples=3).sheet().lead.endswith("AP-Pool -")


def test_an_object_of_id_zero_is_found() -> None:
    """pycocotools takes the id of what was found for whether something was."""
    gt, dt = made(1)
    zero = copy.deepcopy(gt)
    for row in zero["annotations"]:
        row["id"] -= 1
    assert graded(zero, dt).figures == graded(gt, dt).figures
    assert any("id 0" in what for what in lvis(zero, [dt], resamples=0).annotations.notes)


# Real annotations, made detections


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not here")
    with gzip.open(REAL) as file:
        return json.load(file)


def jittered(gt: dict[str, Any], seed: int, wrong: int) -> Rows:
    """Boxes around the objects, ``wrong`` others an image, of labelled classes and of any."""
    rng = np.random.default_rng(seed)
    ids = [one["id"] for one in gt["categories"]]
    rows: Rows = []
    for picture in gt["images"]:
        held = [one for one in gt["annotations"] if one["image_id"] == picture["id"]]
        known = [*{one["category_id"] for one in held}, *picture["neg_category_ids"]]
        for one in held:
            for _ in range(rng.integers(0, 4)):
                box = np.array(one["bbox"]) * (1 + rng.normal(0, 0.04, 4))
                rows.append({"category_id": one["category_id"], "bbox": box.round(2).tolist(), "score": rng.beta(3, 2)})
                rows[-1]["image_id"] = picture["id"]
        for _ in range(wrong):
            size = rng.uniform(10, 200, 2)
            corner = rng.uniform(0, 400, 2)
            number = int(rng.choice(known if known and rng.random() < 0.4 else ids))
            rows.append({"image_id": picture["id"], "category_id": number, "score": rng.beta(1, 3)})
            rows[-1]["bbox"] = [*corner.round(2).tolist(), *size.round(2).tolist()]
    for row in rows:
        row["score"] = round(float(row["score"]), 3)
    return rows


def test_real_annotations_against_lvis(real: dict[str, Any], tmp_path: Path) -> None:
    """Real images and labels, more than 300 boxes in some."""
    few = {**real, "images": real["images"][:12]}
    kept = {one["id"] for one in few["images"]}
    few["annotations"] = [one for one in real["annotations"] if one["image_id"] in kept]
    dt = jittered(few, 0, 300)
    result = lvis(few, [dt], resamples=0)
    assert result.annotations.lvis and len(result.annotations.class_ids) == 1230
    assert result.graded[0].counts["detections cut by the cap of AP"] > 0
    same(result.graded[0].figures["AP"], lvis_figures(few, dt, tmp_path))


def test_two_files_on_real_annotations(real: dict[str, Any], tmp_path: Path) -> None:
    good, bad = jittered(real, 1, 20), jittered(real, 2, 20)
    for place, row in enumerate(bad):
        row["score"] = (place * 7919 % 1000) / 1000  # says nothing
    result = lvis(real, [good, bad], resamples=8)
    over = result.differences()["detections 2"]
    assert all(drawn.high < 0 for drawn in over.values())
    first = result.graded[0]
    assert all(drawn.low < drawn.value < drawn.high for drawn in first.intervals.values())
    assert first.counts["objects"] == 977 and first.counts["classes with objects"] == 190
    letters = [row["frequency"] for row in first.per_class]
    assert (letters.count("f"), letters.count("c"), letters.count("r")) == (159, 30, 1)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["files"]["detections 1"]["figures"]["AP"]["AP"] == first.figures["AP"]["AP"]
    titles = [part.title for part in result.sheet().parts]
    assert {"Headlines", "Over detections 1", "By overlap, size and frequency", "Average recall", "Counts"} <= set(
        titles
    )


# Calibration


def shifted_classes(seed: int, images: int = 60, classes: int = 8) -> tuple[dict[str, Any], Rows]:
    """Every class's scores have an offset of their own; being right follows the true odds."""
    rng = np.random.default_rng(seed)
    offset = np.random.default_rng(99).normal(0, 2, classes)
    annotations, rows = [], []
    for image in range(1, images + 1):
        for place in range(30):
            c, box = int(rng.integers(classes)), [float(20 * place), 0.0, 16.0, 16.0]
            odds = rng.normal(-0.5, 1.5)
            if rng.random() < 1 / (1 + np.exp(-odds)):
                annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": c + 1, "bbox": box})
                annotations[-1] |= {"area": 256.0, "iscrowd": 0}
            score = float(1 / (1 + np.exp(-odds - offset[c])))
            rows.append({"image_id": image, "category_id": c + 1, "bbox": box, "score": score})
    pictures = [{"id": image, "width": 600, "height": 16} for image in range(1, images + 1)]
    categories = [{"id": c + 1, "name": str(c), "frequency": "rcf"[c % 3]} for c in range(classes)]
    return {"images": pictures, "annotations": annotations, "categories": categories}, rows


def test_calibration_fitted_on_other_images_raises_ap_pool_and_leaves_ap_fixed() -> None:
    (fit_gt, fit_dt), (gt, dt) = shifted_classes(0), shifted_classes(1)
    result = lvis(gt, [dt], calibrators=["isotonic", "platt"], fit_on=(fit_gt, fit_dt), resamples=0)
    one = result.graded[0]
    assert one.calibration is not None and len(one.calibrated) == 2
    for made_by in one.calibrated:
        assert made_by.figures["AP-Fixed"] == one.figures["AP-Fixed"]["AP-Fixed"]
        assert made_by.figures["AP-Pool"] > one.figures["AP-Pool"]["AP-Pool"] + 0.05
        assert made_by.figures["ECE"] < 0.5 * one.calibration.figures["ECE"]
    parts = result.sheet().parts
    assert any(isinstance(part, Lines) and part.diagonal and len(part.lines) == 3 for part in parts)
    table = next(part for part in parts if isinstance(part, Table) and part.title.endswith(": calibration"))
    raw = dict(zip(table.columns, table.rows[0]))
    assert raw["AP-Pool"] == pytest.approx(one.figures["AP-Pool"]["AP-Pool"])
    assert raw["AP-Poolr"] == pytest.approx(one.figures["AP-Pool"]["AP-Poolr"])


def test_calibration_by_folds_and_by_oracle() -> None:
    gt, dt = shifted_classes(2)
    folds = lvis(gt, [dt], calibrators=["isotonic"], folds=5, resamples=0)
    oracle = lvis(gt, [dt], calibrators=["isotonic"], folds=1, resamples=0)
    raw = folds.graded[0].figures["AP-Pool"]["AP-Pool"]
    honest, seen = (one.graded[0].calibrated[0].figures for one in (folds, oracle))
    assert raw < honest["AP-Pool"] < seen["AP-Pool"] and seen["ECE"] < honest["ECE"]
    assert "oracle" in oracle.fitted_on and "folds" in folds.fitted_on


def test_scores_that_are_no_probabilities_are_graded_but_not_calibrated() -> None:
    gt, dt = shifted_classes(3, images=10)
    wide = [{**row, "score": 10 * row["score"]} for row in dt]
    assert graded(gt, wide).calibration is None
    for name, part in graded(gt, wide).figures.items():
        assert part == pytest.approx(graded(gt, dt).figures[name], abs=1e-15, nan_ok=True)
    with pytest.raises(GuerdonError, match=r"must lie in \[0, 1\] to be calibrated"):
        lvis(gt, [wide], calibrators=["platt"], resamples=0)


def test_rescored_is_grading_the_rescored_file(tmp_path: Path) -> None:
    gt, dt = made(2, lvis=True, detections=200)
    caps = Caps(per_image=9, per_class=12)
    one = lvis(gt, [dt], caps=caps, resamples=0)
    graded_once = one.graded[0]
    rescored = Rescored(one.annotations, graded_once.file, graded_once.table, caps)
    lift = {row["category_id"]: 2.0 * (row["category_id"] % 3) for row in dt}
    lifted = [{**row, "score": row["score"] + lift[row["category_id"]]} for row in dt]
    again = graded(gt, lifted, caps=caps)
    score = np.array([row["score"] for row in lifted])
    for name, metric in rescored.metrics().items():
        assert metric(score) == pytest.approx(again.figures[name][name], abs=1e-12)
        assert metric(graded_once.file.dt.score) == pytest.approx(graded_once.figures[name][name], abs=1e-12)


def test_errors(tmp_path: Path) -> None:
    gt, dt = made(0)
    with pytest.raises(GuerdonError, match="no results file"):
        lvis(gt, [])
    with pytest.raises(GuerdonError, match="caps are at least 1"):
        Caps(per_image=0)
    with pytest.raises(GuerdonError, match="folds must lie in 1 to 6"):
        lvis(gt, [dt], calibrators=["platt"], folds=7, resamples=0)
    other = copy.deepcopy(gt)
    other["categories"].append({"id": 77, "name": "more"})
    with pytest.raises(GuerdonError, match="other categories"):
        lvis(gt, [dt], calibrators=["platt"], fit_on=(other, dt), resamples=0)
    path = tmp_path / "dt.json"
    path.write_text(json.dumps(dt))
    with pytest.raises(GuerdonError, match="named twice"):
        lvis(gt, [path, path], resamples=0)
    result = lvis(gt, [dt], resamples=0)
    assert isinstance(result, LvisResult) and result.graded[0].intervals == {}
