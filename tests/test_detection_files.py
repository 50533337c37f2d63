"""Annotation and results files: what is read, what is counted, what is refused and how."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection_references import made
from guerdon.benchmarks import detection_results
from guerdon.benchmarks.detection_annotations import read_annotations
from guerdon.benchmarks.detection_masks import to_rle
from guerdon.benchmarks.detection_results import read_detections
from guerdon.core.errors import GuerdonError

GT: dict[str, Any] = {
    "images": [{"id": 7, "width": 100, "height": 50}, {"id": 3, "width": 100, "height": 50}],
    "categories": [{"id": 20, "name": "owl", "image_count": 9}, {"id": 10, "name": "cat", "frequency": "f"}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 20, "bbox": [0, 0, 10, 10], "area": 60, "iscrowd": 1}],
}
ROW: dict[str, Any] = {"image_id": 3, "category_id": 10, "bbox": [1, 2, 3, 4], "score": 0.5}


def test_ids_become_numbers_in_their_order() -> None:
    read = read_annotations(GT)
    assert read.image_ids.tolist() == [3, 7] and read.class_ids.tolist() == [10, 20]
    assert read.class_names == ("cat", "owl") and read.frequency == ("f", "r") and not read.lvis
    assert read.gt.image.tolist() == [1] and read.gt.cls.tolist() == [1] and read.gt.area.tolist() == [60]
    assert read.gt.crowd.tolist() == [True] and read.gt.classes == 3 and read.of_frequency("r").tolist() == [1]
    found = read_detections([ROW], read)
    assert found.dt.image.tolist() == [0] and found.dt.cls.tolist() == [0] and found.dt.area.tolist() == [12]


def test_lvis_is_told_by_its_negatives() -> None:
    gt = copy.deepcopy(GT)
    gt["images"][0] |= {"neg_category_ids": [10, 999], "not_exhaustive_category_ids": [20]}
    read = read_annotations(gt)
    assert read.lvis and read.gt.absent is not None
    assert read.gt.absent.tolist() == [[1, 0]] and read.gt.partial.tolist() == [[1, 1]]
    assert not read.gt.crowd.any() and not read.gt.ignore.any()
    assert read_annotations(gt, convention="coco").gt.absent is None


def test_without_an_area_the_box_has_one() -> None:
    gt = copy.deepcopy(GT)
    del gt["annotations"][0]["area"]
    assert read_annotations(gt).gt.area.tolist() == [100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "no list of images; it has images, categories, annotations"),
        ({"images": []}, "names no images"),
        ({"images": [{"id": 1}, {"id": 1}]}, r"images\[1\] repeats the id 1"),
        ({"categories": [{"name": "owl"}]}, r"categories\[0\] has no whole number as id"),
        ({"annotations": [{"image_id": 1, "category_id": 20, "bbox": [0, 0, 1, 1]}]}, "image 1 is not among"),
        ({"annotations": [{"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}]}, "category 5 is not among"),
        ({"annotations": [{"image_id": 7, "category_id": 20, "bbox": [0, 0, 1]}]}, "is not x, y, width, height"),
        (
            {"annotations": [{"image_id": 7, "category_id": 20}, "x"]},
            r"2 bad rows of 2: \[0\]: it has no bbox; \[1\]: a row",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 20, "bbox": [0, 0, 1, float("nan")]}]},
            "is not finite",
        ),
    ],
)
def test_annotations_that_cannot_be_used(change: dict, message: str) -> None:
    with pytest.raises(GuerdonError, match=message):
        read_annotations({**GT, **change}, name="gt.json")


def test_what_is_odd_about_annotations_is_counted() -> None:
    gt = copy.deepcopy(GT)
    gt["images"][0]["neg_category_ids"] = []
    gt["annotations"].append({"id": 0, "image_id": 7, "category_id": 20, "bbox": [0, 0, 0, 5], "area": 0})
    read = read_annotations(gt)
    assert len(read.gt.image) == 1 and sorted(read.notes.values()) == [1, 1, 1]
    assert len(read_annotations(gt, convention="coco").gt.image) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": float("nan")}, "nan or infinite score or box"),
        ({"score": None}, "it has no score"),
        ({"score": "high"}, "score 'high' is not a number"),
        ({"score": True}, "score True is not a number"),
        ({"bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\] is not x, y, width, height"),
        ({"bbox": [1, 2, 3, float("inf")]}, "nan or infinite score or box"),
        ({"bbox": "1 2 3 4"}, "is not x, y, width, height"),
        ({"image_id": 4}, "image 4 is not in the annotations"),
        ({"image_id": "a"}, "image_id 'a' is not a whole number"),
        ({"category_id": 1.5}, "category_id 1.5 is not a whole number"),
    ],
)
@pytest.mark.parametrize("form", ["rows", "file"])
def test_bad_detections_are_named_or_set_aside(change: dict, reason: str, form: str, tmp_path: Path) -> None:
    rows = [ROW, {**ROW, **change}, ROW]
    source: Any = rows
    if form == "file":
        source = tmp_path / "dt.json"
        source.write_text(json.dumps(rows))
    read = read_annotations(GT)
    with pytest.raises(GuerdonError, match=r"1 bad row of 3: \[1\]: .*" + reason + ".*--skip-bad-rows"):
        read_detections(source, read)
    found = read_detections(source, read, skip_bad_rows=True, out=tmp_path / "out")
    assert len(found.dt) == 2 and any("set aside" in what for what in found.notes)
    aside = [json.loads(line) for line in (tmp_path / "out" / "bad_rows.jsonl").read_text().splitlines()]
    assert len(aside) == 1 and aside[0]["where"].endswith("[1]")


def test_odd_detections_are_counted_and_kept() -> None:
    rows = [
        ROW, {**ROW, "category_id": 11}, {**ROW, "bbox": [5, 5, -3, 4]}, {**ROW, "bbox": [200, 0, 5, 5]},
        {**ROW, "bbox": [90, 0, 20, 5]},
    ]  # fmt: skip
    found = read_detections(rows, read_annotations(GT))
    assert len(found.dt) == 5 and found.valid.all() and found.dt.cls.tolist() == [0, 2, 0, 0, 0]
    told = " ".join(found.notes)
    for part in ("do not name", "negative one", "wholly outside", "over their image's edge"):
        assert part in told
    assert set(found.notes.values()) == {1} and "x1, y1" not in told
    corners = read_detections([{**ROW, "bbox": [60, 20, 90, 40]}] * 3, read_annotations(GT))
    assert "are they x1, y1, x2, y2" in " ".join(corners.notes)


def test_a_file_of_no_known_category() -> None:
    with pytest.raises(GuerdonError, match=r"no detection is of a category .*ids 10, 20.*the first one says 0"):
        read_detections([{**ROW, "category_id": 0}], read_annotations(GT))


def columns_of(found: Any) -> list:
    dt = found.dt
    return [dt.image.tolist(), dt.cls.tolist(), dt.score.tolist(), dt.box.tolist(), dt.area.tolist()]


@pytest.mark.parametrize("form", ["json", "json.gz", "jsonl", "indented", "tight", "reordered", "masks too"])
def test_every_form_of_a_file_reads_alike(form: str, tmp_path: Path) -> None:
    gt, rows = made(3, detections=500)
    read = read_annotations(gt)
    path = tmp_path / ("dt.json.gz" if form == "json.gz" else "dt.jsonl" if form == "jsonl" else "dt.json")
    if form == "reordered":
        written = json.dumps([dict(sorted(row.items())) for row in rows])
    elif form == "masks too":
        written = json.dumps([{**row, "segmentation": {"size": [9, 9], "counts": "abc}, {"}} for row in rows])
    elif form == "jsonl":
        written = "\n".join(json.dumps(row) for row in rows)
    else:
        shape: dict = {"indented": {"indent": 1}, "tight": {"separators": (",", ":")}}.get(form, {})
        written = json.dumps(rows, **shape)
    path.write_bytes(gzip.compress(written.encode()) if form == "json.gz" else written.encode())
    assert columns_of(read_detections(path, read)) == columns_of(read_detections(rows, read))


def test_well_formed_files_are_read_by_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without looking at a row; over the borders of blocks too."""
    gt, rows = made(4, detections=2000)
    path = tmp_path / "dt.json"
    path.write_text(json.dumps(rows))
    read = read_annotations(gt)
    wanted = columns_of(read_detections(rows, read))
    monkeypatch.setattr(detection_results, "_rows", lambda *_: pytest.fail("read row by row"))
    for block in (1 << 24, 997):
        monkeypatch.setattr(detection_results, "BLOCK", block)
        assert columns_of(read_detections(path, read)) == wanted


def test_whole_numbers_among_the_scores(tmp_path: Path) -> None:
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([{**ROW, "score": 1}, {**ROW, "score": 0.25}, {**ROW, "bbox": [1.5, 2, 3, 4]}]))
    assert read_detections(path, read_annotations(GT)).dt.score.tolist() == [1, 0.25, 0.5]


def test_an_empty_file_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dt.json"
    path.write_text("[]")
    assert len(read_detections(path, read_annotations(GT)).dt) == 0


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    read, path = read_annotations(GT), tmp_path / "dt.json"
    with pytest.raises(GuerdonError, match="cannot be read"):
        read_detections(path, read)
    path.write_text("[{")
    with pytest.raises(GuerdonError, match="is not JSON"):
        read_detections(path, read)
    path.write_text(json.dumps(GT))
    with pytest.raises(GuerdonError, match="is it the annotation file"):
        read_detections(path, read)
    path.write_text(json.dumps([ROW]))
    with pytest.raises(GuerdonError, match="is it --dt"):
        read_annotations(path)
    jsonl = tmp_path / "dt.jsonl"
    jsonl.write_text("{nothing")
    with pytest.raises(GuerdonError, match="JSON lines"):
        read_detections(jsonl, read)
    with pytest.raises(GuerdonError, match="did you mean 'lvis'"):
        read_annotations(GT, convention="lvs")  # type: ignore[arg-type]


def test_masks_in_every_form() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    square = [[2.0, 1, 6, 1, 6, 4, 2, 4]]
    code = to_rle(square, 10, 10)
    assert mask.area(code) == 12 and mask.toBbox(code).tolist() == [2, 1, 4, 3]
    flat = mask.decode(code).ravel(order="F")
    runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat, prepend=0)), [flat.size]])).tolist()
    for other in ({"size": [10, 10], "counts": runs}, {"size": [10, 10], "counts": code["counts"].decode()}):
        assert (mask.decode(to_rle(other, 10, 10)) == mask.decode(code)).all()
    for wrong in ("a mask", {"size": [3, 3]}, 5):
        with pytest.raises(GuerdonError, match="is no polygon and no run-length code"):
            to_rle(wrong, 10, 10)


def test_masks_of_detections_without_boxes() -> None:
    pytest.importorskip("pycocotools")
    code = to_rle([[2.0, 1, 6, 1, 6, 4, 2, 4]], 50, 100)
    row = {"image_id": 3, "category_id": 10, "score": 0.5}
    row["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
    read = read_annotations(GT)
    found = read_detections([row], read)
    assert found.dt.box.tolist() == [[2, 1, 4, 3]] and found.dt.area.tolist() == [12]
    with pytest.raises(GuerdonError, match="it has no segmentation"):
        read_annotations(GT, kind="segm")
