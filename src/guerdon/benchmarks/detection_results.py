"""The results files that detectors write, as arrays: COCO's form, which LVIS shares.

A file of millions of boxes is read column by column, without a Python object a row; what that cannot read is
read row by row, and every bad row is named.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from guerdon.benchmarks.detection_annotations import Annotations, Kind, load_json, odd_row, opened, told_rows
from guerdon.benchmarks.detection_masks import mask_boxes, to_rle
from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection_sets import Detections

__all__ = ["DetectionFile", "read_detections"]

# Bytes of a file at a time.
BLOCK = 1 << 24


@dataclass(frozen=True)
class DetectionFile:
    """What a detector found.

    dt:             every good row, in the order of the file; these fill the caps.
    valid:          [N] rows that are matched: LVIS leaves out boxes without area.
    segmentations:  masks (or None: the box is the mask) in the same order, for kind "segm".
    notes:          what was odd, in words -> how many rows.
    """

    name: str
    dt: Detections
    valid: NDArray[np.bool_]
    segmentations: list[Any] | None
    notes: Mapping[str, int]


def read_detections(
    source: Path | Sequence[Mapping[str, Any]],
    annotations: Annotations,
    *,
    kind: Kind = "bbox",
    mask_area: bool = False,
    skip_bad_rows: bool = False,
    out: Path | None = None,
    name: str | None = None,
) -> DetectionFile:
    """Read a results file (JSON list or JSON lines, also .gz), or its rows: image_id, category_id, score, bbox or mask.

    mask_area: a row with both has its mask's area (the AP-Fixed convention), not its box's (pycocotools, lvis).
    Rows of categories that the annotations do not name are counted and find nothing. Rows that cannot be used (no score
    or a nan, a box that is not four finite numbers, an unknown image) are named together in a GuerdonError, or with
    ``skip_bad_rows`` counted, and written to ``out``/bad_rows.jsonl.
    """
    label = name or (str(source) if isinstance(source, Path) else "detections")
    columns = _columns(source) if isinstance(source, Path) and kind == "bbox" else None
    bad: list[tuple[int, str]] = []
    rows: list[Any] | None = None
    segmentations: list[Any] | None = None
    if columns is None or not len(columns[2]):
        rows = _rows(source, label) if isinstance(source, Path) else list(source)
        boxed = not rows or isinstance(rows[0], Mapping) and bool(rows[0].get("bbox"))
        needs = ("image_id", "category_id", "score", "bbox" if boxed else "segmentation")
        reasons = [odd_row(row, needs) for row in rows]
        bad = [(place, reason) for place, reason in enumerate(reasons) if reason is not None]
        places = np.array([place for place, reason in enumerate(reasons) if reason is None], dtype=np.int64)
        good = [rows[place] for place in places]
        columns = _arrays(good, annotations, kind, boxed, mask_area)
        if kind == "segm":
            segmentations = [row.get("segmentation") or _corners(row["bbox"]) for row in good]
    else:
        places = np.arange(len(columns[2]))
    image_id, class_id, score, box, area = columns
    finite = np.isfinite(score) & np.isfinite(box).all(axis=1)
    image = np.searchsorted(annotations.image_ids, image_id).clip(max=len(annotations.image_ids) - 1)
    known_image = annotations.image_ids[image] == image_id
    for row in np.flatnonzero(~(finite & known_image)).tolist():
        what = f"image {image_id[row]} is not in the annotations"
        bad.append((int(places[row]), what if finite[row] else "a nan or infinite score or box"))
    if bad:
        bad.sort()
        if not skip_bad_rows:
            told = told_rows(label, bad, len(bad) + int((finite & known_image).sum()))
            raise GuerdonError(f"{told}; fix them, or set them aside with --skip-bad-rows")
        if out is not None:
            _set_aside(out, label, bad, rows)
        keep = finite & known_image
        image, class_id, score, box = image[keep], class_id[keep], score[keep], box[keep]
        area = None if area is None else area[keep]
        segmentations = None if segmentations is None else [one for one, yes in zip(segmentations, keep) if yes]
    number = np.searchsorted(annotations.class_ids, class_id).clip(max=len(annotations.class_ids) - 1)
    known = annotations.class_ids[number] == class_id
    if len(known) and not known.any():
        named = ", ".join(map(str, annotations.class_ids[:3]))
        raise GuerdonError(
            f"{label}: no detection is of a category in {annotations.name} (ids {named}, ...); "
            f"the first one says {class_id[0]}"
        )
    number[~known] = len(annotations.class_ids)
    dt = Detections.of(annotations.gt, image, number, score, box, area=area)
    valid = dt.area > 0 if annotations.lvis else np.ones(len(dt), dtype=bool)
    notes = {
        f"rows set aside{': see bad_rows.jsonl' if out is not None else ''}": len(bad),
        "detections of categories that the annotations do not name: they find nothing": int((~known).sum()),
        "detections without area: left out, as the lvis package does": int((~valid).sum()),
        "detections with no width or height, or a negative one: they find nothing": int((box[:, 2:] <= 0).any(1).sum()),
        **_outside(dt, annotations),
    }
    return DetectionFile(label, dt, valid, segmentations, {what: many for what, many in notes.items() if many})


def _outside(dt: Detections, annotations: Annotations) -> dict[str, int]:
    size = annotations.sizes[dt.image]
    known = (size > 0).all(axis=1)
    x, y, w, h = dt.box.T
    apart = known & ((x >= size[:, 1]) | (y >= size[:, 0]) | (x + w <= 0) | (y + h <= 0))
    over = known & ~apart & ((x + w > size[:, 1] + 1) | (y + h > size[:, 0] + 1) | (x < -1) | (y < -1))
    hint = " (are they x1, y1, x2, y2? they are to be x, y, width, height)" if over.sum() > 0.2 * len(dt) else ""
    return {
        "detections wholly outside their image": int(apart.sum()),
        f"detections that reach over their image's edge by more than a pixel{hint}": int(over.sum()),
    }


Columns = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None
]


class _Lines(io.RawIOBase):
    """A JSON list of objects as one object a line, block by block: what a columnar reader takes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._rest, self._begun, self._ended = file, b"", False, False
        self._between: bytes | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        text = b""
        while not text and not self._ended:
            block = self._file.read(BLOCK)
            text, self._rest = self._rest + block, b""
            if not self._begun:
                text = text.removeprefix(b"\xef\xbb\xbf").lstrip()
                self._begun = bool(text)
                text = text.removeprefix(b"[")
            if not block:
                self._ended = True
                return text.rstrip().removesuffix(b"]")
            # What follows the last closing brace waits for the next block.
            cut = text.rfind(b"}")
            text, self._rest = (text[:cut], text[cut:]) if cut >= 0 else (b"", text)
        # What stands between the first two rows does so everywhere, in a file that a program wrote. Elsewhere, or where
        # this splits inside a row, the pieces are no JSON, and the rows are read one by one instead.
        if self._between is None and (found := re.search(rb"\}\s*,\s*\{", text)):
            self._between = found.group()
        return text if self._between is None else text.replace(self._between, b"}\n{")


def _columns(path: Path) -> Columns | None:
    """The columns of a well-formed results file of boxes; None for anything else, to be read row by row."""
    import pyarrow as pa
    from pyarrow import json as reader

    try:
        with opened(path) as file:
            options = reader.ReadOptions(block_size=max(BLOCK, 1 << 16))
            table = reader.read_json(pa.PythonFile(_Lines(file), mode="r"), read_options=options)
        names = ("image_id", "category_id", "score", "bbox")
        if not set(names) <= set(table.column_names) or any(table[name].null_count for name in names):
            return None
        if not all(pa.types.is_integer(table[name].type) for name in names[:2]):
            return None
        box = table["bbox"].combine_chunks()
        flat = box.flatten()
        if not (np.diff(box.offsets.to_numpy()) == 4).all() or flat.null_count:
            return None
        numbers = [flat, *(table[name].combine_chunks() for name in ("score",))]
        if not all(pa.types.is_integer(one.type) or pa.types.is_floating(one.type) for one in numbers):
            return None
    except (pa.ArrowException, OSError, AttributeError, TypeError, ValueError):
        return None
    image, number = (table[name].to_numpy().astype(np.int64) for name in names[:2])
    score = table["score"].to_numpy().astype(np.float64)
    return image, number, score, flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, 4), None


def _arrays(rows: list[Any], annotations: Annotations, kind: Kind, boxed: bool, mask_area: bool) -> Columns:
    image = np.array([row["image_id"] for row in rows], dtype=np.int64)
    number = np.array([row["category_id"] for row in rows], dtype=np.int64)
    score = np.array([row["score"] for row in rows], dtype=np.float64)
    area = None
    if boxed:
        box = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    if not boxed or kind == "segm" and mask_area:
        place = np.searchsorted(annotations.image_ids, image).clip(max=len(annotations.image_ids) - 1)
        sizes = annotations.sizes[place].tolist()
        codes = [to_rle(row.get("segmentation") or _corners(row["bbox"]), *size) for row, size in zip(rows, sizes)]
        around, area = mask_boxes(codes)
        box = box if boxed else around
    return image, number, score, box, area


def _corners(box: Sequence[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x, y + h, x + w, y + h, x + w, y]]


def _rows(path: Path, label: str) -> list[Any]:
    if path.name.lower().removesuffix(".gz").endswith(".jsonl"):
        try:
            with opened(path) as file:
                return [json.loads(line) for line in file if line.strip()]
        except (OSError, ValueError, EOFError) as error:
            raise GuerdonError(f"{path} cannot be read as JSON lines: {error}") from None
    rows = load_json(path)
    if not isinstance(rows, list):
        hint = "; is it the annotation file?" if isinstance(rows, dict) and "annotations" in rows else ""
        raise GuerdonError(f"{label}: a results file is a list of detections, not {type(rows).__name__}{hint}")
    return rows


def _set_aside(out: Path, label: str, bad: list[tuple[int, str]], rows: list[Any] | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "bad_rows.jsonl").open("a", encoding="utf-8") as file:
        for place, reason in bad:
            line = {"source": label, "where": f"{label}[{place}]", "reason": reason}
            file.write(json.dumps(line if rows is None else {**line, "row": rows[place]}, default=str) + "\n")
