"""Which detection finds which object: greedy matching by score inside an image and a class, at every threshold at once.

A cap on detections (per image, per class, per image and class) only ever cuts the lowest scores of an image's class,
so one table of matches serves every cap: `guerdon.metrics.average_precision` counts the rows that a cap keeps.

Sources: Lin et al. (2014), COCO; Gupta et al. (2019), LVIS (federated labels); Dave et al. (2021), arXiv 2102.01066.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.detection_sets import Bools, Detections, Floats, GroundTruth, Ints, run_starts, stable_order

__all__ = ["AREAS", "THRESHOLDS", "MatchTable", "Overlap", "box_iou", "match_detections"]

# (detections of an image's class, its objects), places in what was handed in -> their overlaps [D, G].
Overlap = Callable[[Ints, Ints], Floats]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS: Mapping[str, tuple[float, float]] = {
    "all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10),
}  # fmt: skip
# Pairs of boxes compared at a time: their columns stay in the processor's cache.
CHUNK = 1 << 16
# Even a threshold of 1 is met by a perfect box whose overlap was rounded down.
NEARLY_ONE = 1 - 1e-10


@dataclass(frozen=True)
class MatchTable:
    """Every detection that counts, ranked inside its class, and what it found at T thresholds and A size ranges.

    Rows [N] lie class by class, then by falling score; ties by image, then as they were handed in.

    row:      [N] place among the detections handed in; those of unlabelled classes are gone.
    counted:  [A, N] a false positive if it finds nothing; else it is ignored then.
    near:     [M] rows that overlap some object by the lowest threshold; only they can find anything.
    hit:      [A, T, M] 0 found nothing, 1 found an object, 2 found an ignored one.
    gt_image, gt_cls: [G] and gt_counted: [A, G], the objects to be found.
    """

    row: Ints
    image: Ints
    cls: Ints
    score: Floats
    counted: Bools
    near: Ints
    hit: NDArray[np.int8]
    gt_image: Ints
    gt_cls: Ints
    gt_counted: Bools
    images: int
    classes: int
    thresholds: Floats
    areas: tuple[str, ...]

    def area(self, name: str) -> int:
        """The number of a size range. Raises GuerdonError naming the nearest."""
        if name not in self.areas:
            raise unknown("size range", name, self.areas)
        return self.areas.index(name)

    def tp(self, area: str = "all") -> Bools:
        """[T, N] true positives."""
        flags = np.zeros((len(self.thresholds), len(self.row)), dtype=bool)
        flags[:, self.near] = self.hit[self.area(area)] == 1
        return flags

    def ignored(self, area: str = "all") -> Bools:
        """[T, N] detections that are neither right nor wrong."""
        number = self.area(area)
        flags = np.repeat(~self.counted[number][None], len(self.thresholds), axis=0)
        hit = self.hit[number]
        flags[:, self.near] = np.where(hit == 0, flags[:, self.near], hit == 2)
        return flags

    def n_gt(self, area: str = "all") -> Ints:
        """[C] objects to be found of each class."""
        return np.bincount(self.gt_cls[self.gt_counted[self.area(area)]], minlength=self.classes)


def match_detections(
    gt: GroundTruth,
    dt: Detections,
    *,
    thresholds: ArrayLike = THRESHOLDS,
    areas: Mapping[str, tuple[float, float]] = AREAS,
    overlap: Overlap | None = None,
) -> MatchTable:
    """Match detections to objects: in each image and class, by falling score, each takes the best one still free.

    Objects that count come before ignored ones; of equal overlaps the last object wins. With ``gt.absent``, detections
    of classes not labelled in their image are dropped; with ``gt.partial``, unmatched ones of these are ignored, and so
    are unmatched ones outside a size range (both ends belong to it). overlap: masks instead of boxes, as `Overlap`.

    Sources: pycocotools' COCOeval.evaluateImg; lvis' LVISEval.evaluate_img (no crowds). DEVIATION: an object is found
    whatever its id; both tools take a match with an annotation of id 0 for a miss.
    Raises GuerdonError for thresholds outside (0, 1].
    """
    levels = np.asarray(thresholds, dtype=np.float64).reshape(-1)
    if not levels.size or not ((levels > 0) & (levels <= 1)).all():
        raise GuerdonError(f"thresholds must lie in (0, 1]; got {levels.tolist()}")
    labels = _Labels.of(gt)
    # File order inside an image, images in order: what ties are broken by.
    rows = stable_order(dt.image)
    group = labels.find(_key(dt.image[rows], dt.cls[rows], gt))
    if gt.absent is not None:
        labelled = labels.labelled[group] & (group >= 0)
        rows, group = rows[labelled], group[labelled]
    ranked = np.argsort(-dt.score[rows], kind="stable")
    ranked = ranked[stable_order(dt.cls[rows[ranked]])]
    rows, group = rows[ranked], group[ranked]
    del ranked

    with_objects = np.flatnonzero((group >= 0) & (labels.count[group] > 0))
    floor = min(float(levels.min()), NEARLY_ONE)
    if overlap is None:
        pair_row, pair_gt, iou = _box_pairs(dt, gt, labels, rows, group, with_objects, floor)
    else:
        pair_row, pair_gt, iou = _mask_pairs(overlap, labels, rows, group, with_objects, floor)
    bounds = np.array(list(areas.values())).reshape(-1, 2)
    skipped = np.stack([gt.ignore | (gt.area < low) | (gt.area > high) for low, high in bounds])
    near, det = np.unique(pair_row, return_inverse=True)
    hit = _hits(det, pair_gt, iou, skipped, gt.crowd, levels, len(near))
    size = dt.area[rows]
    partial = labels.partial[group] & (group >= 0)
    counted = np.stack([~((size < low) | (size > high) | partial) for low, high in bounds])
    return MatchTable(
        rows, dt.image[rows], dt.cls[rows], dt.score[rows], counted, near, hit, gt.image, gt.cls, ~skipped, gt.images,
        gt.classes, levels, tuple(areas),
    )  # fmt: skip


def box_iou(first: ArrayLike, second: ArrayLike, crowd: ArrayLike = False) -> Floats:
    """Intersection over union of boxes [..., 4] as x, y, width, height, one by one, in [0, 1]; crowd: over the first.

    Source: pycocotools' bbIou, operation by operation.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    columns = [(box[..., 0], box[..., 1], box[..., 2] + box[..., 0], box[..., 3] + box[..., 1]) for box in (a, b)]
    return _iou(columns[0], columns[1], a[..., 2] * a[..., 3], b[..., 2] * b[..., 3], np.asarray(crowd))


@dataclass(frozen=True)
class _Labels:
    """What is labelled: one entry a known (image, class), and a last one that stands for all others (place -1)."""

    key: Ints
    start: Ints
    count: Ints
    labelled: Bools
    partial: Bools
    object: Ints  # objects by key, each key's as they were handed in

    @classmethod
    def of(cls, gt: GroundTruth) -> _Labels:
        own = _key(gt.image, gt.cls, gt)
        order = np.argsort(own, kind="stable")
        absent = np.zeros(0, dtype=np.int64) if gt.absent is None else _key(gt.absent[:, 0], gt.absent[:, 1], gt)
        partial = _key(gt.partial[:, 0], gt.partial[:, 1], gt)
        key = np.unique(np.concatenate([own, absent, partial]))
        start = np.searchsorted(own[order], key, side="left")
        count = np.append(np.searchsorted(own[order], key, side="right") - start, 0)
        labelled = count > 0
        labelled[np.searchsorted(key, absent)] = True
        gaps = np.zeros(len(key) + 1, dtype=bool)
        gaps[np.searchsorted(key, partial)] = True
        return cls(key, np.append(start, 0), count, labelled, gaps, order)

    def find(self, key: Ints) -> Ints:
        """Places [N] of keys, -1 for unknown ones; fastest for keys that rise."""
        if not len(self.key):
            return np.full(len(key), -1)
        place = np.searchsorted(self.key, key)
        place[place == len(self.key)] = 0
        return np.where(self.key[place] == key, place, -1)


def _key(image: Ints, number: Ints, gt: GroundTruth) -> Ints:
    return image.astype(np.int64) * gt.classes + number


def _iou(a: Sequence[Floats], b: Sequence[Floats], a_area: Floats, b_area: Floats, crowd: Bools) -> Floats:
    """Overlap of boxes given as x1, y1, x2, y2."""
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    whole = np.where(crowd, a_area, (a_area + b_area) - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def _box_pairs(
    dt: Detections, gt: GroundTruth, labels: _Labels, rows: Ints, group: Ints, active: Ints, floor: float
) -> tuple[Ints, Ints, Floats]:
    """(row, object, overlap) of all pairs in an image's class that overlap by ``floor``, rows rising."""
    objects = labels.object
    x, y, w, h = (np.ascontiguousarray(column) for column in gt.box[objects].T)
    theirs, their_area, crowd = (x, y, w + x, h + y), w * h, gt.crowd[objects]
    any_crowd, none = bool(crowd.any()), np.zeros(1, dtype=bool)
    found: list[tuple[Ints, Ints, Floats]] = []
    count = labels.count[group[active]]
    ends = np.cumsum(count)
    begin = 0
    while begin < len(active):
        stop = max(begin + 1, int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + CHUNK, side="right")))
        part, many = active[begin:stop], count[begin:stop]
        x, y, w, h = dt.box[rows[part]].T
        mine = np.repeat(np.arange(len(part)), many)
        first = np.cumsum(many) - many
        theirs_at = np.arange(len(mine)) + (labels.start[group[part]] - first)[mine]
        boxes = [column[mine] for column in (x, y, w + x, h + y)]
        iou = _iou(
            boxes, [column[theirs_at] for column in theirs], (w * h)[mine], their_area[theirs_at],
            crowd[theirs_at] if any_crowd else none,
        )  # fmt: skip
        good = np.flatnonzero(iou >= floor)
        found.append((part[mine[good]], objects[theirs_at[good]], iou[good]))
        begin = stop
    return _joined(found)


def _mask_pairs(
    overlap: Overlap, labels: _Labels, rows: Ints, group: Ints, active: Ints, floor: float
) -> tuple[Ints, Ints, Floats]:
    """As `_box_pairs`, by asking ``overlap`` for one image and class at a time."""
    found: list[tuple[Ints, Ints, Floats]] = []
    active = active[stable_order(group[active])]
    for part in np.split(active, run_starts(group[active])[1:]) if len(active) else []:
        place = group[part[0]]
        objects = labels.object[labels.start[place] : labels.start[place] + labels.count[place]]
        iou = np.asarray(overlap(rows[part], objects), dtype=np.float64).reshape(len(part), len(objects))
        mine, theirs = np.nonzero(iou >= floor)
        found.append((part[mine], objects[theirs], iou[mine, theirs]))
    row, gt, iou = _joined(found)
    order = np.argsort(row, kind="stable")
    return row[order], gt[order], iou[order]


def _joined(found: list[tuple[Ints, Ints, Floats]]) -> tuple[Ints, Ints, Floats]:
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    row, gt, iou = (np.concatenate(columns) for columns in zip(*found))
    return row, gt, iou


def _hits(
    det: Ints, gt: Ints, iou: Floats, skipped: Bools, crowd: Bools, levels: Floats, dets: int
) -> NDArray[np.int8]:
    """[A, T, dets] what each detection found, from pairs whose detections are numbered in the order they choose in."""
    hit = np.zeros((len(skipped), len(levels), dets), dtype=np.int8)
    if not len(det):
        return hit
    # Most detections see one object, and it is seen by no detection with a choice: the first one to reach a threshold
    # takes it, in every size range alike. Only the others need to be served one after another.
    choosing = np.bincount(det, minlength=dets)[det] > 1
    contested = np.zeros(len(crowd), dtype=bool)
    contested[gt[choosing]] = True
    hard = contested[gt]
    easy = np.flatnonzero(~hard)
    first = np.empty(len(crowd), dtype=np.int64)
    for number, level in enumerate(levels):
        pairs = easy[iou[easy] >= min(level, NEARLY_ONE)]
        first[gt[pairs[::-1]]] = pairs[::-1]  # of several the last assignment stands: the first pair
        won = pairs[(first[gt[pairs]] == pairs) | crowd[gt[pairs]]]
        hit[:, number, det[won]] = 1 + skipped[:, gt[won]]
    if hard.any():
        _serve(hit, det[hard], gt[hard], iou[hard], skipped, crowd, levels)
    return hit


def _serve(
    hit: NDArray[np.int8], det: Ints, gt: Ints, iou: Floats, skipped: Bools, crowd: Bools, levels: Floats
) -> None:
    """Write into ``hit`` [A, T, M] what detections with a choice find, lower numbers choosing first."""
    # Orders depend on a size range only through which objects count: ranges that skip alike share the work.
    seen = {bytes(np.packbits(skips[gt])): number for number, skips in reversed(list(enumerate(skipped)))}
    for number, skips in enumerate(skipped):
        source = seen[bytes(np.packbits(skips[gt]))]
        if source != number:
            hit[number][:, det] = hit[source][:, det]
            continue
        order = np.lexsort((-gt, -iou, skips[gt], det))
        for place, level in enumerate(levels):
            chosen = order[iou[order] >= min(level, NEARLY_ONE)]
            taken = chosen[_first_come(det[chosen], gt[chosen], crowd)]
            hit[number, place, det[taken]] = 1 + skips[gt[taken]]


def _first_come(det: Ints, gt: Ints, crowd: Bools) -> Ints:
    """Pairs taken when each detection, in order of number, takes its first free object; pairs lie in order of choice.

    All propose at once, an object holds the lowest number that asked, and who is turned away asks the next one: since
    every object prefers lower numbers, this ends where serving one after another does (Gale and Shapley 1962).
    """
    start = run_starts(det)
    stop = np.append(start[1:], len(det))
    asking = start.copy()
    holder = np.full(len(crowd), len(start))
    active = np.arange(len(start))
    while len(active):
        wanted = gt[asking[active]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, np.where(crowd[wanted], len(start), active))
        away = (holder[wanted] != active) & ~crowd[wanted]
        displaced = before[(before < len(start)) & (before != holder[wanted])]
        active = np.unique(np.concatenate([active[away], displaced]))
        asking[active] += 1
        active = active[asking[active] < stop[active]]
    return asking[asking < stop]
