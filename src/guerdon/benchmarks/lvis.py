"""Average precision of detectors: COCO's and LVIS's, AP-Fixed, AP-Pool, and what calibrating the scores would bring.

One table of matches serves them all (`guerdon.metrics.detection_matching`). AP with a cap an image can be raised by
re-scoring whole classes, without a better detector; AP-Fixed caps each class instead, and AP-Pool asks that a score
mean the same in every class. Sources: Dave et al. (2021), arXiv 2102.01066; the pycocotools and lvis packages, whose
figures these are, to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.benchmarks.detection_annotations import Annotations, Convention, Kind, read_annotations
from guerdon.benchmarks.detection_calibration import CalibratedScores, calibrate, calibration_of
from guerdon.benchmarks.detection_masks import MaskOverlap
from guerdon.benchmarks.detection_results import DetectionFile, read_detections
from guerdon.core.errors import GuerdonError
from guerdon.core.progress import progress
from guerdon.core.sheet import Sheet
from guerdon.metrics.average_precision import Curves, class_curves, pooled_curves
from guerdon.metrics.detection_matching import MatchTable, match_detections
from guerdon.metrics.detection_sets import Bools, Detections, top_per_class, top_per_image, top_per_image_and_class
from guerdon.metrics.intervals import Interval, percentile_interval

__all__ = ["Caps", "Graded", "LvisResult", "Rescored", "grade", "lvis", "match", "standard_figures"]

HEADLINES = ("AP", "AP-Fixed", "AP-Pool")
SIZES = {"s": "small", "m": "medium", "l": "large"}
FREQUENCY_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
COCO_CAPS = (1, 10, 100)


@dataclass(frozen=True)
class Caps:
    """How many detections count. per_image: LVIS, over all classes, None for all. per_class: AP-Fixed's K.

    COCO's own caps are 1, 10 and 100 of a class in an image.
    """

    per_image: int | None = 300
    per_class: int = 10_000

    def __post_init__(self) -> None:
        if self.per_class < 1 or self.per_image is not None and self.per_image < 1:
            raise GuerdonError(f"caps are at least 1; got {self.per_image} per image, {self.per_class} per class")


@dataclass(frozen=True)
class Graded:
    """One results file, its matches and its figures; nan where nothing is labelled.

    figures:    "AP", "AP-Fixed", "AP-Pool" -> their parts by name, each in [0, 1].
    draws:      the same headlines [resamples] with images drawn anew; ``intervals`` come from them.
    per_class:  one row a class with objects: id, name, frequency, objects, detections, AP, AP-Fixed.
    calibration: error and reliability of the raw scores, where they are probabilities; ``calibrated`` by method.
    """

    file: DetectionFile
    table: MatchTable
    counts: Mapping[str, int]
    figures: Mapping[str, Mapping[str, float]]
    draws: Mapping[str, NDArray[np.float64]]
    per_class: Sequence[Mapping[str, Any]]
    calibration: CalibratedScores | None
    calibrated: Sequence[CalibratedScores]

    @property
    def name(self) -> str:
        return self.file.name

    def scores(self) -> list[CalibratedScores]:
        """Of the raw scores and each calibrator."""
        return [*([self.calibration] if self.calibration else []), *self.calibrated]

    @property
    def intervals(self) -> dict[str, Interval]:
        return {name: percentile_interval(self.figures[name][name], draws) for name, draws in self.draws.items()}


@dataclass(frozen=True)
class LvisResult:
    """Everything that was found out about one or more results files on the same annotations."""

    annotations: Annotations
    kind: Kind
    caps: Caps
    graded: Sequence[Graded]
    seconds: float
    fitted_on: str = ""

    def differences(self) -> dict[str, dict[str, Interval]]:
        """Of each later file over the first, paired by resampled images: file -> headline -> interval."""
        first = self.graded[0]
        return {
            other.name: {
                name: percentile_interval(
                    other.figures[name][name] - first.figures[name][name], other.draws[name] - first.draws[name]
                )
                for name in first.draws
            }
            for other in self.graded[1:]
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; nan becomes None."""
        files = {
            one.name: {
                "figures": one.figures, "counts": one.counts, "notes": one.file.notes, "per_class": one.per_class,
                "intervals": {name: [drawn.low, drawn.high] for name, drawn in one.intervals.items()},
                "calibration": [{"method": scores.method, **scores.figures} for scores in one.scores()],
            }
            for one in self.graded
        }  # fmt: skip
        over = {
            other: {name: [drawn.value, drawn.low, drawn.high] for name, drawn in found.items()}
            for other, found in self.differences().items()
        }
        found = {
            "benchmark": "lvis", "annotations": self.annotations.name, "annotation_notes": self.annotations.notes,
            "convention": "lvis" if self.annotations.lvis else "coco", "kind": self.kind,
            "caps": {"per_image": self.caps.per_image, "per_class": self.caps.per_class}, "files": files,
            "over_first": over, "calibrated_by": self.fitted_on, "seconds": self.seconds,
        }  # fmt: skip
        return _plain(found)

    def sheet(self) -> Sheet:
        """Tables and figures for a terminal and a page."""
        from guerdon.benchmarks.lvis_sheet import sheet

        return sheet(self)


def lvis(
    gt: Path | Mapping[str, Any],
    dt: Sequence[Path | Sequence[Mapping[str, Any]]],
    *,
    kind: Kind = "bbox",
    convention: Convention = "auto",
    caps: Caps | None = None,
    mask_area: bool = False,
    calibrators: Sequence[str] = (),
    fallback: str = "zero",
    folds: int = 5,
    fit_on: tuple[Path | Mapping[str, Any], Path | Sequence[Mapping[str, Any]]] | None = None,
    resamples: int = 100,
    seed: int = 0,
    skip_bad_rows: bool = False,
    out: Path | None = None,
) -> LvisResult:
    """Grade results files (or their rows) against annotations.

    kind:         "bbox", or "segm" for masks (pycocotools does their overlap).
    calibrators:  names of `guerdon.metrics.score_calibration.CALIBRATORS` to fit per class on the annotations and
                  results ``fit_on`` (the paper's protocol: training images), else by ``folds`` of the images, each
                  calibrated by the others; folds = 1 is the oracle, fitted on what it is judged on.
    resamples:    of the images, for 95% intervals and the differences between files; 0 for none.

    Raises GuerdonError for what `read_annotations` and `read_detections` refuse.
    """
    began = time.perf_counter()
    if not dt:
        raise GuerdonError("there is no results file to grade")
    limits = caps or Caps()
    if out is not None:
        (out / "bad_rows.jsonl").unlink(missing_ok=True)
    annotations = read_annotations(gt, kind=kind, convention=convention)
    fitted = None
    if fit_on is not None and calibrators:
        name = _name(fit_on[0], "annotations to fit on")
        own = read_annotations(fit_on[0], kind=kind, convention=convention, name=name)
        if not np.array_equal(own.class_ids, annotations.class_ids):
            raise GuerdonError(f"{own.name} has other categories than {annotations.name}; calibrators go by category")
        found = read_detections(fit_on[1], own, kind=kind, mask_area=mask_area, skip_bad_rows=skip_bad_rows, out=out)
        fitted = (match(own, found, kind), top_per_class(found.dt, limits.per_class))
    graded: list[Graded] = []
    for source, name in zip(dt, _names(dt), strict=True):
        file = read_detections(
            source, annotations, kind=kind, mask_area=mask_area, skip_bad_rows=skip_bad_rows, out=out, name=name
        )
        table = match(annotations, file, kind)
        one = grade(annotations, file, table, limits, resamples=resamples, seed=seed)
        made = [
            calibrate(
                annotations, file, table, method, caps_per_class=limits.per_class, fallback=fallback, folds=folds,
                fitted=fitted, seed=seed, rematch=partial(_rematched, annotations, file, kind),
            )
            for method in calibrators
        ]  # fmt: skip
        graded.append(replace(one, calibrated=made))
    told = "" if not calibrators else str(_name(fit_on[0], "other images")) if fit_on else _folds_in_words(folds)
    return LvisResult(annotations, kind, limits, graded, time.perf_counter() - began, told)


def match(annotations: Annotations, file: DetectionFile, kind: Kind = "bbox") -> MatchTable:
    """The table of matches of a results file; its ``row`` counts the file's good rows."""
    valid = np.flatnonzero(file.valid)
    dt = file.dt if len(valid) == len(file.dt) else file.dt.take(valid)
    table = match_detections(annotations.gt, dt, overlap=_overlap(annotations, file, kind, valid))
    return replace(table, row=valid[table.row]) if dt is not file.dt else table


def _overlap(annotations: Annotations, file: DetectionFile, kind: Kind, rows: NDArray[np.int64]) -> MaskOverlap | None:
    if kind == "bbox":
        return None
    assert file.segmentations is not None and annotations.segmentations is not None
    codes = [file.segmentations[row] for row in rows]
    sizes, gt = annotations.sizes, annotations.gt
    return MaskOverlap(codes, sizes[file.dt.image[rows]], annotations.segmentations, sizes[gt.image], gt.crowd)


def _rematched(annotations: Annotations, file: DetectionFile, kind: Kind, dt: Detections) -> MatchTable:
    return match(annotations, replace(file, dt=dt), kind)


def grade(
    annotations: Annotations,
    file: DetectionFile,
    table: MatchTable,
    caps: Caps | None = None,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> Graded:
    """Every figure of one results file from its table of matches."""
    limits = caps or Caps()
    dt = file.dt
    kept = _standard_cap(annotations, file, limits)
    fixed = top_per_class(dt, limits.per_class)
    standard, capped = _by_size(table, kept), _by_size(table, fixed)
    figures = {
        "AP": _standard(annotations, file, table, standard, limits),
        "AP-Fixed": _parts("AP-Fixed", annotations, table, capped),
        "AP-Pool": _pools(annotations, table, fixed),
    }
    each, each_fixed, n_gt = standard["all"].each(), capped["all"].each(), table.n_gt()
    found = np.bincount(table.cls, minlength=table.classes)
    emitted = np.bincount(dt.cls, minlength=table.classes)[:-1]
    per_class = [
        {
            "id": int(annotations.class_ids[c]), "name": annotations.class_names[c],
            "frequency": annotations.frequency[c], "objects": int(n_gt[c]), "detections": int(found[c]),
            "AP": float(each[c]), "AP-Fixed": float(each_fixed[c]),
        }
        for c in np.flatnonzero(n_gt[:-1])
    ]  # fmt: skip
    counts = {
        "images": table.images, "classes": len(annotations.class_ids), "classes with objects": len(per_class),
        "objects": len(annotations.gt.image), "detections": len(dt), "detections that count": len(table.row),
        "detections cut by the cap of AP": int((~kept[table.row]).sum()),
        "detections cut by the cap of AP-Fixed": int((~fixed[table.row]).sum()),
        "classes with fewer detections than AP-Fixed takes": int((emitted < limits.per_class).sum()),
        "most detections in an image": int(np.bincount(dt.image, minlength=1).max()),
    }  # fmt: skip
    draws = _draws(table, kept, fixed, resamples, seed)
    raw = calibration_of(annotations, table, fixed)
    return Graded(file, table, counts, figures, draws, per_class, raw, ())


def _standard_cap(annotations: Annotations, file: DetectionFile, caps: Caps) -> Bools:
    if not annotations.lvis:
        return top_per_image_and_class(file.dt, COCO_CAPS[-1])
    return np.ones(len(file.dt), dtype=bool) if caps.per_image is None else top_per_image(file.dt, caps.per_image)


def standard_figures(annotations: Annotations, file: DetectionFile, table: MatchTable, caps: Caps) -> dict[str, float]:
    """The figures that pycocotools (12) or lvis (13) print, under the latter's names; nan where they say -1."""
    kept = _standard_cap(annotations, file, caps)
    return _standard(annotations, file, table, _by_size(table, kept), caps)


def _standard(
    annotations: Annotations, file: DetectionFile, table: MatchTable, curves: Mapping[str, Curves], caps: Caps
) -> dict[str, float]:
    made = _parts("AP", annotations, table, curves)
    last = f"@{caps.per_image or 'all'}" if annotations.lvis else f"@{COCO_CAPS[-1]}"
    if not annotations.lvis:
        for cap in COCO_CAPS[:-1]:
            made[f"AR@{cap}"] = class_curves(table, keep=top_per_image_and_class(file.dt, cap)).ar()
    made[f"AR{last}"] = curves["all"].ar()
    for letter, size in SIZES.items():
        made[f"AR{letter}{last}"] = curves[size].ar()
    return made


def _by_size(table: MatchTable, keep: Bools) -> dict[str, Curves]:
    return {size: class_curves(table, area=size, keep=keep) for size in ("all", *SIZES.values())}


def _parts(name: str, annotations: Annotations, table: MatchTable, curves: Mapping[str, Curves]) -> dict[str, float]:
    made = {name: curves["all"].ap()}
    for level in (50, 75):
        made[f"{name}{level}"] = curves["all"].ap(threshold=_threshold(table, level))
    for letter, size in SIZES.items():
        made[f"{name}{letter}"] = curves[size].ap()
    if any(annotations.frequency):
        for letter in FREQUENCY_NAMES:
            made[f"{name}{letter}"] = curves["all"].ap(annotations.of_frequency(letter))
    return made


def _pools(annotations: Annotations, table: MatchTable, keep: Bools) -> dict[str, float]:
    named = np.arange(len(annotations.class_ids))
    every = pooled_curves(table, classes=named, keep=keep)
    made = {"AP-Pool": every.ap()}
    for level in (50, 75):
        made[f"AP-Pool{level}"] = every.ap(threshold=_threshold(table, level))
    if any(annotations.frequency):
        for letter in FREQUENCY_NAMES:
            made[f"AP-Pool{letter}"] = pooled_curves(table, classes=annotations.of_frequency(letter), keep=keep).ap()
    return made


def _threshold(table: MatchTable, percent: int) -> int:
    return int(np.abs(table.thresholds - percent / 100).argmin())


def _draws(table: MatchTable, kept: Bools, fixed: Bools, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    if resamples < 1:
        return {}
    rng = np.random.default_rng(seed)
    named = np.arange(table.classes - 1)
    rows = []
    for _ in progress(resamples, "resampling images"):
        times = np.bincount(rng.integers(table.images, size=table.images), minlength=table.images)
        pool = pooled_curves(table, classes=named, keep=fixed, weights=times)
        rows.append([class_curves(table, keep=keep, weights=times).ap() for keep in (kept, fixed)] + [pool.ap()])
    return dict(zip(HEADLINES, np.array(rows).T))


@dataclass(frozen=True)
class Rescored:
    """The headlines of a results file whose scores were mapped, each class by a rising map of its own.

    Such maps leave every class's ranking and matches as they are; only what a cap cuts, and a pool's order, change.
    Each method takes scores [N] of the file's good rows; their order inside a class must be the old one, ties included.
    """

    annotations: Annotations
    file: DetectionFile
    table: MatchTable
    caps: Caps

    def ap(self, score: NDArray[np.float64]) -> float:
        """AP under the usual cap."""
        file = replace(self.file, dt=self.file.dt.rescored(score))
        return class_curves(self.table, keep=_standard_cap(self.annotations, file, self.caps)).ap()

    def ap_fixed(self, score: NDArray[np.float64]) -> float:
        return class_curves(self.table, keep=top_per_class(self.file.dt.rescored(score), self.caps.per_class)).ap()

    def ap_pool(self, score: NDArray[np.float64]) -> float:
        table = replace(self.table, score=np.asarray(score, dtype=np.float64)[self.table.row])
        keep = top_per_class(self.file.dt.rescored(score), self.caps.per_class)
        return pooled_curves(table, classes=np.arange(self.table.classes - 1), keep=keep).ap()

    def metrics(self) -> dict[str, Any]:
        return dict(zip(HEADLINES, (self.ap, self.ap_fixed, self.ap_pool), strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _folds_in_words(folds: int) -> str:
    return "the images judged themselves (an oracle)" if folds == 1 else f"{folds} folds of the images, by the others"


def _names(sources: Sequence[Any]) -> list[str]:
    """Of results files: without their folders, where that tells them apart."""
    full = [_name(source, f"detections {place + 1}") for place, source in enumerate(sources)]
    repeated = next((name for place, name in enumerate(full) if name in full[:place]), None)
    if repeated is not None:
        raise GuerdonError(f"{repeated} is named twice")
    short = [source.name if isinstance(source, Path) else full[place] for place, source in enumerate(sources)]
    return short if len(set(short)) == len(short) else full


def _name(source: Any, otherwise: str) -> str:
    return str(source) if isinstance(source, Path) else otherwise
