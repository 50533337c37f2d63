"""``guerdon bench lvis``: average precision of a detector's results file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.audits.rerank import RerankAttack, RerankResult
from guerdon.benchmarks.lvis import Caps, Graded, LvisResult, Rescored, lvis
from guerdon.cli.sheets import finish
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.sheet import Cell, Sheet, Table
from guerdon.metrics.score_calibration import CALIBRATORS

KINDS = ("bbox", "segm")


def bench_lvis(
    gt: Path,
    dt: Sequence[Path],
    kind: str = "bbox",
    convention: str = "auto",
    per_image: int = 300,
    per_class: int = 10_000,
    mask_area: bool = False,
    calibrate: str | None = None,
    calibrate_gt: Path | None = None,
    calibrate_dt: Path | None = None,
    folds: int = 5,
    fallback: str = "zero",
    gaming: int = 0,
    resamples: int = 100,
    skip_bad_rows: bool = False,
    out: Path | None = None,
    seed: int = 0,
    *,
    as_json: bool = False,
) -> None:
    """Grade results files, print their tables, write ``result.json`` and ``report.html`` into ``out``.

    gt, dt:        annotations and one or more results files in COCO's or LVIS's JSON, also .gz.
    kind:          ``--type``: bbox, or segm for masks (needs the extra ``bench``: pycocotools).
    convention:    coco, lvis, or auto: lvis where images name neg_category_ids.
    per_image:     detections an image that count for LVIS's AP; 0 for all. per_class: for AP-Fixed and AP-Pool.
    mask_area:     size ranges go by the mask's area where a row has a box too (AP-Fixed's convention).
    calibrate:     calibrators to fit class by class, separated by commas, or "all"; on ``calibrate_gt`` and
                   ``calibrate_dt`` (results on training images), else by ``folds`` of the images (1: an oracle).
    fallback:      classes of which nothing was right: zero, keep, or borrow from classes as frequent.
    gaming:        how many re-scorings of whole classes to search through for a higher AP, AP-Fixed, AP-Pool; 0: none.
    resamples:     of the images, for intervals and for differences between files; 0 for none.
    """
    if kind not in KINDS:
        raise unknown("type", kind, KINDS)
    if (calibrate_gt is None) != (calibrate_dt is None):
        raise GuerdonError("--calibrate-gt and --calibrate-dt go together: annotations and results on the same images")
    if gaming < 0 or resamples < 0:
        raise GuerdonError(f"--gaming and --resamples are at least 0; got {gaming} and {resamples}")
    names = (
        list(CALIBRATORS)
        if calibrate == "all"
        else [one.strip() for one in (calibrate or "").split(",") if one.strip()]
    )
    for name in names:
        if name not in CALIBRATORS:
            raise unknown("calibrator", name, CALIBRATORS)
    if calibrate_gt is not None and not names:
        raise GuerdonError("--calibrate-gt says where to fit; say what to fit with --calibrate")
    caps = Caps(per_image or None, per_class)
    result = lvis(
        gt, dt, kind=kind, convention=convention, caps=caps, mask_area=mask_area, calibrators=names,  # type: ignore[arg-type]
        fallback=fallback, folds=folds, resamples=resamples, seed=seed, skip_bad_rows=skip_bad_rows, out=out,
        fit_on=None if calibrate_gt is None or calibrate_dt is None else (calibrate_gt, calibrate_dt),
    )  # fmt: skip
    sheet, told = result.sheet(), result.to_dict()
    if gaming:
        games = {one.name: gamed(result, one, gaming, seed) for one in result.graded}
        sheet = with_games(sheet, games)
        told["gaming"] = {path: {one.name: one.to_dict() for one in found} for path, found in games.items()}
    finish(sheet, told, out, as_json=as_json)


def gamed(result: LvisResult, graded: Graded, budget: int, seed: int) -> list[RerankResult]:
    """Attack AP, AP-Fixed and AP-Pool of a results file by re-scoring whole classes."""
    annotations = result.annotations
    rescored = Rescored(annotations, graded.file, graded.table, result.caps)
    # What is known without looking at a single match: how often a class occurs.
    seen = np.bincount(annotations.gt.cls, minlength=annotations.gt.classes)
    by_objects = np.argsort(np.argsort(-seen, kind="stable"))
    policies: dict[str, Any] = {"classes of fewer objects first": by_objects, "of more objects first": -by_objects}
    if any(annotations.frequency):
        rarity = {"r": 2, "c": 1, "f": 0, "": 0}
        tiers = np.array([*(rarity[letter] for letter in annotations.frequency), 0])
        policies = {"rare, then common, then frequent": tiers, **policies}
    attack = RerankAttack(graded.file.dt.score, graded.file.dt.cls, policies, budget, seed)
    return [attack.run(metric, name) for name, metric in rescored.metrics().items()]


def with_games(sheet: Sheet, games: dict[str, list[RerankResult]]) -> Sheet:
    """The sheet with a table of what re-scoring whole classes did to each figure."""
    policies = list(next(iter(games.values()))[0].policies)
    columns = ["file", "figure", "as given", *policies, "best found", "gain"]
    rows: list[list[Cell]] = [
        [path, one.name, one.before, *(one.policies[name] for name in policies), one.after, one.gain]
        for path, found in games.items()
        for one in found
    ]
    note = (
        "Whole classes were lifted or sunk; no class's own ranking changed. AP-Fixed cannot move. A search sees the "
        "labels, so it may raise AP-Pool by making scores comparable."
    )
    return replace(sheet, parts=[*sheet.parts, Table("Gaming by re-scoring classes", columns, rows, note)])
