"""COCO and LVIS annotation files as arrays: what is to be found, in which images, under which labels."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.detection_sets import GroundTruth

__all__ = ["Annotations", "Convention", "Kind", "load_json", "odd_row", "opened", "read_annotations", "told_rows"]

Kind = Literal["bbox", "segm"]
Convention = Literal["auto", "coco", "lvis"]
FREQUENCIES = ("r", "c", "f")
SHOWN = 10
_NUMBERS = {int, float}


@dataclass(frozen=True)
class Annotations:
    """What is to be found, in whose words, and by which convention.

    gt:             its classes are numbered as ``class_ids``; one number more stands for categories not named there.
    sizes:          [images, 2] height and width; 0 where the file does not say.
    frequency:      of each class, "r", "c", "f" (training images: below 10, below 100, more) or "".
    lvis:           federated labels: only classes labelled in an image count there.
    segmentations:  the masks as the file holds them, for kind "segm".
    notes:          what was odd, in words -> how many.
    """

    name: str
    gt: GroundTruth
    image_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    frequency: tuple[str, ...]
    sizes: NDArray[np.int64]
    lvis: bool
    segmentations: list[Any] | None
    notes: Mapping[str, int]

    def of_frequency(self, letter: str) -> NDArray[np.int64]:
        """Numbers of the classes of a frequency."""
        return np.flatnonzero(np.array(self.frequency) == letter)


def read_annotations(
    source: Path | Mapping[str, Any], *, kind: Kind = "bbox", convention: Convention = "auto", name: str | None = None
) -> Annotations:
    """Read an annotation file (JSON, also .gz), or what it holds. "auto": LVIS if its images name ``neg_category_ids``.

    COCO: crowds are ignored regions, and nothing else is ignored; all classes are labelled everywhere. LVIS: ``ignore``
    is read, ``iscrowd`` is not, and objects without area are left out, all as the lvis package does.
    Raises GuerdonError naming missing parts and, together, annotations that cannot be used.
    """
    if convention not in ("auto", "coco", "lvis"):
        raise unknown("convention", convention, ("auto", "coco", "lvis"))
    label = name or (str(source) if isinstance(source, Path) else "annotations")
    data = load_json(source) if isinstance(source, Path) else source
    if not isinstance(data, Mapping):
        raise GuerdonError(f"{label}: an object with images, annotations and categories is needed; is it --dt?")
    for part in ("images", "annotations", "categories"):
        if not isinstance(data.get(part), list):
            raise GuerdonError(f"{label} has no list of {part}; it has {', '.join(map(str, data)) or 'nothing'}")
    lvis = convention == "lvis" or convention == "auto" and any("neg_category_ids" in one for one in data["images"])
    images, classes = _by_id(label, "images", data), _by_id(label, "categories", data)
    image_ids, class_ids = (np.array(sorted(part), dtype=np.int64) for part in (images, classes))
    rows, notes = _objects(label, data["annotations"], images, classes, kind, lvis)

    def pairs(key: str) -> NDArray[np.int64]:
        named = [(i, c) for i, one in enumerate(map(images.__getitem__, image_ids.tolist())) for c in one.get(key, ())]
        known = np.array([pair for pair in named if pair[1] in classes], dtype=np.int64).reshape(-1, 2)
        known[:, 1] = np.searchsorted(class_ids, known[:, 1])
        return known

    gt = GroundTruth.of(
        np.searchsorted(image_ids, np.array([row["image_id"] for row in rows], dtype=np.int64)),
        np.searchsorted(class_ids, np.array([row["category_id"] for row in rows], dtype=np.int64)),
        np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4),
        images=len(image_ids), classes=len(class_ids) + 1,
        area=np.array([_area(row) for row in rows], dtype=np.float64),
        ignore=np.array([bool(row.get("ignore", 0)) if lvis else False for row in rows], dtype=bool),
        crowd=np.array([bool(row.get("iscrowd", 0)) and not lvis for row in rows], dtype=bool),
        absent=pairs("neg_category_ids") if lvis else None,
        partial=pairs("not_exhaustive_category_ids") if lvis else None,
    )  # fmt: skip
    ordered = [classes[number] for number in class_ids.tolist()]
    sizes = [[images[i].get(side) or 0 for side in ("height", "width")] for i in image_ids.tolist()]
    return Annotations(
        label, gt, image_ids, class_ids, tuple(str(one.get("name", one["id"])) for one in ordered),
        tuple(map(_frequency, ordered)), np.array(sizes, dtype=np.int64).reshape(-1, 2), lvis,
        [row["segmentation"] for row in rows] if kind == "segm" else None, notes,
    )  # fmt: skip


def _by_id(label: str, part: str, data: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for place, one in enumerate(data[part]):
        number = one.get("id") if isinstance(one, dict) else None
        if number is None or not _whole(number):
            raise GuerdonError(f"{label}: {part}[{place}] has no whole number as id")
        if number in found:
            raise GuerdonError(f"{label}: {part}[{place}] repeats the id {number}")
        found[number] = one
    if not found:
        raise GuerdonError(f"{label} names no {part}")
    return found


def _objects(
    label: str, rows: list[Any], images: Mapping[int, Any], classes: Mapping[int, Any], kind: Kind, lvis: bool
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    bad: list[tuple[int, str]] = []
    kept: list[dict[str, Any]] = []
    notes: dict[str, int] = {}
    for place, row in enumerate(rows):
        reason = odd_row(row, ("image_id", "category_id", "bbox", *(("segmentation",) if kind == "segm" else ())))
        if reason is None and row["image_id"] not in images:
            reason = f"image {row['image_id']} is not among the images"
        if reason is None and row["category_id"] not in classes:
            reason = f"category {row['category_id']} is not among the categories"
        if reason is not None:
            bad.append((place, reason))
            continue
        width, height = row["bbox"][2:]
        if width <= 0 or height <= 0:
            _count(notes, "objects whose box has no width or height: no box can find them")
        if row.get("id") == 0:
            _count(notes, "annotation with id 0: pycocotools and lvis take finding it for a miss, here it is found")
        if lvis and not _area(row) > 0:
            _count(notes, "objects without area: left out, as the lvis package does")
            continue
        kept.append(row)
    if bad:
        raise GuerdonError(told_rows(f"{label}: annotations", bad, len(rows)))
    return kept, notes


def _area(row: Mapping[str, Any]) -> float:
    given = row.get("area")
    return float(given) if type(given) in _NUMBERS or _number(given) else float(row["bbox"][2] * row["bbox"][3])  # type: ignore[arg-type]


def odd_row(row: Any, needs: Sequence[str]) -> str | None:
    """What is wrong with a row that needs some keys, in words; None for nothing."""
    if not isinstance(row, Mapping):
        return f"a row is an object, not {type(row).__name__}"
    if _plainly_good(row, needs):
        return None
    missing = next((key for key in needs if row.get(key) is None), None)
    if missing is not None:
        return f"it has no {missing}"
    for key in ("image_id", "category_id"):
        if not _whole(row[key]):
            return f"{key} {row[key]!r} is not a whole number"
    if "score" in needs and not _number(row["score"]):
        return f"score {row['score']!r} is not a number"
    if "bbox" in needs:
        box = row["bbox"]
        if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_number, box)):
            return f"bbox {box!r} is not x, y, width, height"
        if "score" not in needs and not np.isfinite(box).all():
            return f"bbox {box!r} is not finite"
    return None


def _plainly_good(row: Mapping[str, Any], needs: Sequence[str]) -> bool:
    """Most rows are; the checks that can name what is wrong take ten times as long."""
    box, score = row.get("bbox"), row.get("score", 0.0)
    return (
        type(row.get("image_id")) is int
        and type(row.get("category_id")) is int
        and type(box) is list
        and len(box) == 4
        and {*map(type, box)} <= _NUMBERS
        and type(score) in _NUMBERS
        and math.isfinite(sum(box))
        and ("score" not in needs or "score" in row)
        and ("segmentation" not in needs or row.get("segmentation") is not None)
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and abs(int(value)) < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _frequency(category: Mapping[str, Any]) -> str:
    given, images = category.get("frequency"), category.get("image_count")
    if given in FREQUENCIES:
        return str(given)
    return "" if not _number(images) else "r" if images < 10 else "c" if images < 100 else "f"  # type: ignore[operator]


def _count(notes: dict[str, int], what: str) -> None:
    notes[what] = notes.get(what, 0) + 1


def opened(path: Path) -> IO[bytes]:
    """A file to read, unpacked if its name ends in .gz."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def load_json(path: Path) -> Any:
    """What a JSON file holds. Raises GuerdonError if it cannot be read."""
    try:
        with opened(path) as file:
            return json.load(file)
    except OSError as error:
        raise GuerdonError(f"{path} cannot be read: {error}") from None
    except (ValueError, EOFError) as error:
        raise GuerdonError(f"{path} is not JSON: {error}") from None


def told_rows(label: str, bad: list[tuple[int, str]], total: int) -> str:
    """One sentence about bad rows, the first ones named."""
    shown = "; ".join(f"[{place}]: {reason}" for place, reason in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return f"{label} has {len(bad)} bad row{'s' if len(bad) > 1 else ''} of {total}: {shown}{more}"
