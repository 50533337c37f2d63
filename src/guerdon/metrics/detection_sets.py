"""Labelled objects and scored detections as arrays, and the caps on how many detections count.

Sources: Lin et al. (2014), COCO; Gupta et al. (2019), LVIS (federated labels); Dave et al. (2021), arXiv 2102.01066
(a cap per class instead of per image).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError

__all__ = [
    "Detections", "GroundTruth", "run_starts", "stable_order", "top_per_class", "top_per_image",
    "top_per_image_and_class",
]  # fmt: skip

Ints: TypeAlias = NDArray[np.integer]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class GroundTruth:
    """Labelled objects, by number of image and class. Make it with `GroundTruth.of`, which checks.

    image, cls: [G]. box: [G, 4] as x, y, width, height. area: [G], which size range an object is in.
    ignore:   [G] neither to be found nor wrong to find. crowd: [G] ignored, and any number of detections may lie in it.
    absent:   [M, 2] of (image, class) known to hold none; None: every image is labelled for every class.
    partial:  [K, 2] of (image, class) whose objects are not all labelled.
    """

    image: Ints
    cls: Ints
    box: Floats
    area: Floats
    ignore: Bools
    crowd: Bools
    images: int
    classes: int
    absent: Ints | None
    partial: Ints

    @classmethod
    def of(
        cls,
        image: ArrayLike,
        category: ArrayLike,
        box: ArrayLike,
        *,
        images: int,
        classes: int,
        area: ArrayLike | None = None,
        ignore: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
        absent: ArrayLike | None = None,
        partial: ArrayLike | None = None,
    ) -> GroundTruth:
        """Objects from arrays; no area is the box's. Raises GuerdonError for shapes, numbers out of range, or a nan."""
        place, number, boxes = _placed("object", image, category, box, images, classes)
        crowds = _flags(crowd, len(place))
        pairs = [_pairs(name, value, images, classes) for name, value in (("absent", absent), ("partial", partial))]
        return cls(
            place, number, boxes, _areas(area, boxes), _flags(ignore, len(place)) | crowds, crowds, images, classes,
            None if absent is None else pairs[0], pairs[1],
        )  # fmt: skip


@dataclass(frozen=True)
class Detections:
    """Scored boxes [N, 4] as x, y, width, height, by number of image and class [N]. Make it with `Detections.of`."""

    image: Ints
    cls: Ints
    score: Floats
    box: Floats
    area: Floats

    @classmethod
    def of(
        cls, gt: GroundTruth, image: ArrayLike, category: ArrayLike, score: ArrayLike, box: ArrayLike,
        *, area: ArrayLike | None = None,
    ) -> Detections:  # fmt: skip
        """Detections in the images of ``gt``. Raises GuerdonError as `GroundTruth.of`."""
        place, number, boxes = _placed("detection", image, category, box, gt.images, gt.classes)
        scores = np.asarray(score, dtype=np.float64)
        if scores.shape != place.shape:
            raise GuerdonError(f"{len(place)} detections need as many scores; got shape {list(scores.shape)}")
        _finite("detection", "score", scores)
        return cls(place, number, scores, boxes, _areas(area, boxes))

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: Ints | Bools) -> Detections:
        """Some of them, by place or by mask."""
        return Detections(self.image[rows], self.cls[rows], self.score[rows], self.box[rows], self.area[rows])

    def rescored(self, score: ArrayLike) -> Detections:
        """The same boxes with other scores [N]."""
        scores = np.asarray(score, dtype=np.float64)
        if scores.shape != self.score.shape:
            raise GuerdonError(f"{len(self)} detections need as many scores; got shape {list(scores.shape)}")
        _finite("detection", "score", scores)
        return replace(self, score=scores)


def top_per_image(dt: Detections, cap: int) -> Bools:
    """[N] which detections are among the ``cap`` best of their image, all classes (LVIS: 300); ties as handed in."""
    return _top(dt.image, dt.score, cap)


def top_per_class(dt: Detections, cap: int) -> Bools:
    """[N] which are among the ``cap`` best of their class over all images (AP-Fixed: 10,000); ties as handed in."""
    return _top(dt.cls, dt.score, cap)


def top_per_image_and_class(dt: Detections, cap: int) -> Bools:
    """[N] which are among the ``cap`` best of their class in their image (COCO: 1, 10, 100); ties as handed in."""
    wide = np.int64(dt.cls.max(initial=0)) + 1
    return _top(dt.image.astype(np.int64) * wide + dt.cls, dt.score, cap)


def stable_order(code: Ints) -> Ints:
    """Order [N] that sorts whole numbers >= 0, equals as they come: numpy's radix sort, 16 bits at a time."""
    order = np.argsort((code & 0xFFFF).astype(np.uint16), kind="stable")
    high = int(code.max(initial=0)) >> 16
    shift = 16
    while high:
        order = order[np.argsort(((code >> shift) & 0xFFFF).astype(np.uint16)[order], kind="stable")]
        high, shift = high >> 16, shift + 16
    return order


def run_starts(ordered: Ints) -> Ints:
    """Where each run of equal values begins, in [N] values with equals side by side."""
    return np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1)) if len(ordered) else np.zeros(0, dtype=np.int64)


def _top(code: Ints, score: Floats, cap: int) -> Bools:
    if cap < 0:
        raise GuerdonError(f"a cap on detections is at least 0; got {cap}")
    keep = np.ones(len(code), dtype=bool)
    order = stable_order(code)
    start = run_starts(code[order])
    length = np.diff(start, append=len(code))
    if not (length > cap).any():
        return keep
    rows = order[np.repeat(length > cap, length)]
    rows = rows[np.argsort(-score[rows], kind="stable")]
    rows = rows[stable_order(code[rows])]
    start = run_starts(code[rows])
    rank = np.arange(len(rows)) - np.repeat(start, np.diff(start, append=len(rows)))
    keep[rows[rank >= cap]] = False
    return keep


def _placed(
    what: str, image: ArrayLike, number: ArrayLike, box: ArrayLike, images: int, classes: int
) -> tuple[Ints, Ints, Floats]:
    columns: list[Ints] = []
    for name, values, below in (("image", image, images), ("class", number, classes)):
        column = np.asarray(values)
        if column.ndim != 1 or column.size and column.dtype.kind not in "iu":
            raise GuerdonError(f"a {what}'s {name} is a whole number; got an array {column.dtype} {list(column.shape)}")
        wrong = (column < 0) | (column >= below)
        if wrong.any():
            place = int(wrong.argmax())
            raise GuerdonError(f"{what} {place}: {name} {column[place]} is not among the {below} known ones")
        columns.append(column.astype(np.int32))
    boxes = np.asarray(box, dtype=np.float64)
    if not boxes.size:
        boxes = boxes.reshape(-1, 4)
    if columns[0].shape != columns[1].shape or boxes.shape != (len(columns[0]), 4):
        shapes = [list(column.shape) for column in (*columns, boxes)]
        raise GuerdonError(f"{what}s need image [N], class [N] and box [N, 4]; got shapes {shapes}")
    _finite(what, "box", boxes)
    return columns[0], columns[1], boxes


def _finite(what: str, name: str, values: Floats) -> None:
    wrong = ~np.isfinite(values) if values.ndim == 1 else ~np.isfinite(values).all(axis=1)
    if wrong.any():
        place = int(wrong.argmax())
        raise GuerdonError(f"{what} {place}: its {name} is {values[place].tolist()}, not finite")


def _areas(area: ArrayLike | None, boxes: Floats) -> Floats:
    if area is None:
        return boxes[:, 2] * boxes[:, 3]
    values = np.asarray(area, dtype=np.float64)
    if values.shape != (len(boxes),):
        raise GuerdonError(f"{len(boxes)} boxes need as many areas; got shape {list(values.shape)}")
    return values


def _flags(flags: ArrayLike | None, rows: int) -> Bools:
    values = np.zeros(rows, dtype=bool) if flags is None else np.asarray(flags, dtype=bool)
    if values.shape != (rows,):
        raise GuerdonError(f"{rows} objects need as many flags; got shape {list(values.shape)}")
    return values


def _pairs(name: str, pairs: ArrayLike | None, images: int, classes: int) -> Ints:
    values = np.asarray([] if pairs is None else pairs, dtype=np.int64).reshape(-1, 2)
    if ((values < 0) | (values >= [images, classes])).any():
        raise GuerdonError(f"{name}: a pair of image and class is not among {images} images and {classes} classes")
    return values
