"""Data: every bad row named together by file and row, before anything trains."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from guerdon.core.data import load_rows
from guerdon.core.errors import GuerdonError


def picture(seed=0, kind="PNG"):
    levels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format=kind)
    return buffer.getvalue()


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def folder(path, rows, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    if rows is not None:
        jsonl(path / "metadata.jsonl", rows)
    return path


def zipped(path, rows, files, top=""):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name if name.startswith(("/", "..")) else top + name, content)
        archive.writestr(top + "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [
    {"prompt": "a", "solution": 1, "tags": ["x"]},
    {"prompt": "b", "solution": None, "tags": []},
    {"prompt": "ç", "solution": 2.5},
]


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet"])
def test_formats_agree(tmp_path, form):
    path = jsonl(tmp_path / "rows.jsonl", ROWS)
    if form == "jsonl.gz":
        packed = tmp_path / "rows.jsonl.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    if form == "parquet":
        load_rows(path).to_parquet(tmp_path / "rows.parquet")
        path = tmp_path / "rows.parquet"
    data = load_rows(path, required=("prompt",))
    assert data["prompt"] == ["a", "b", "ç"] and data["solution"] == [1.0, None, 2.5] and len(data["tags"]) == 3
    assert len(load_rows(path, limit=2)) == 2


def test_csv_types_and_ragged_rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,label,p\n"two\nlines, one cell",1,0.5\nb,2,\nc,3\n', encoding="utf-8")
    with pytest.raises(GuerdonError, match=r"rows.csv:5: 2 cells for 3 columns"):
        load_rows(path)
    data = load_rows(path, skip_bad_rows=True)
    assert data.to_dict() == {"prompt": ["two\nlines, one cell", "b"], "label": [1, 2], "p": [0.5, None]}


def test_all_bad_rows_are_reported_together_and_set_aside(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [
        b'{"prompt": "good", "label": true}', b'{"prompt": "caf\xe9"}', b"{not json}", b"[1, 2]", b"",
        b'{"prompt": "  "}',
        b'{"label": false}', b'{"prompt": 7}', b'{"prompt": "fine", "label": "yes"}', b'\xef\xbb\xbf{"prompt": "bom"}',
        b'{"prompt": "also good", "label": false}', b'{"prompt": "last", "label": null}',
    ]  # fmt: skip
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(GuerdonError) as caught:
        load_rows(path, required=("prompt",))
    message = str(caught.value)
    for part in (
        "8 bad rows", f"{path}:2: not UTF-8 (byte 15 is 0xe9)", f"{path}:3: not JSON",
        f"{path}:4: a row is an object, not list",
        f"{path}:6: column 'prompt' is missing or empty", f"{path}:7: column 'prompt' is missing",
        f"{path}:8: column 'prompt' is a number, but text in most rows",
        f"{path}:9: column 'label' is text, but true/false in most rows", f"{path}:10: not JSON", "skip_bad_rows",
    ):  # fmt: skip
        assert part in message, part
    data = load_rows(path, required=("prompt",), skip_bad_rows=True, out=tmp_path / "run")
    assert data["prompt"] == ["good", "also good", "last"]
    aside = [json.loads(line) for line in (tmp_path / "run" / "bad_rows.jsonl").read_text().splitlines()]
    assert len(aside) == 8 and {row["where"] for row in aside} == {f"{path}:{n}" for n in (2, 3, 4, 6, 7, 8, 9, 10)}
    assert next(row for row in aside if row["where"].endswith(":8"))["row"] == {"prompt": 7}


def test_a_leading_bom_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n')
    assert load_rows(path)["prompt"] == ["a"]


def test_missing_column_names_the_nearest(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", [{"prompts": "a", "label": 1}])
    with pytest.raises(GuerdonError, match="no column 'prompt'; did you mean 'prompts'. columns: label, prompts"):
        load_rows(path, required=("prompt",), skip_bad_rows=True)
    load_rows(path).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(GuerdonError, match="no column 'prompt'; did you mean 'prompts'"):
        load_rows(tmp_path / "rows.parquet", required=("prompt",))


def test_paths_that_do_not_work(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(GuerdonError, match="there is no file or folder .*; did you mean .*rows.jsonl"):
        load_rows(tmp_path / "row.jsonl")
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(GuerdonError, match="unknown format; choices: .jsonl"):
        load_rows(tmp_path / "rows.txt")
    (tmp_path / "more.jsonl").write_text("{}")
    with pytest.raises(GuerdonError, match="is not a folder of images; did you mean .*.jsonl"):
        load_rows(tmp_path)
    for broken in ("broken.parquet", "broken.zip"):
        (tmp_path / broken).write_bytes(b"nothing")
        with pytest.raises(GuerdonError, match=f"{broken} is not a"):
            load_rows(tmp_path / broken)
    truncated = tmp_path / "cut.jsonl.gz"
    noise = [{"prompt": "".join(map(chr, np.random.default_rng(i).integers(97, 123, 200)))} for i in range(300)]
    truncated.write_bytes(gzip.compress(jsonl(tmp_path / "noise.jsonl", noise).read_bytes())[:20_000])
    with pytest.raises(GuerdonError, match="damaged from here on"):
        load_rows(truncated)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(GuerdonError, match="has no usable rows"):
        load_rows(tmp_path / "empty.jsonl")
    with pytest.raises(GuerdonError, match="limit must be at least 1"):
        load_rows(path, limit=0)


def test_hub_id_without_network_is_one_clear_error(monkeypatch):
    import datasets

    def offline(*args, **kwargs):
        assert "trust_remote_code" not in kwargs
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(GuerdonError, match="'some/set' is no file .*ConnectionError: no route") as caught:
        load_rows("some/set")
    assert "\n" not in str(caught.value)


def test_hub_rows_are_checked(monkeypatch):
    import datasets

    made = datasets.Dataset.from_dict({"prompt": ["a", " ", "c"], "label": [1, 2, 3]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: made)
    with pytest.raises(GuerdonError, match="some/set:test:1: column 'prompt' is missing or empty"):
        load_rows("some/set", required=("prompt",), split="test")
    data = load_rows("some/set", required=("prompt",), skip_bad_rows=True)
    assert data["label"] == [1, 3] and data.features == made.features


# Image folders


FILES = {"a.png": picture(1), "sub/b.jpg": picture(2, "JPEG"), "c.png": picture(3)}
METADATA = [
    {"file_name": "a.png", "text": "one"},
    {"file_name": "sub/b.jpg", "caption": "two"},
    {"file_name": "c.png", "prompt": "three"},
]


@pytest.mark.parametrize("form", ["folder", "zip", "nested zip"])
def test_image_folder_and_zip(tmp_path, form):
    if form == "folder":
        path = folder(tmp_path / "photos", METADATA, FILES)
    else:
        path = zipped(tmp_path / "photos.zip", METADATA, FILES, top="photos/" if form == "nested zip" else "")
    data = load_rows(path, required=("prompt", "image"))
    assert data["prompt"] == ["one", "two", "three"] and data["file_name"] == ["a.png", "sub/b.jpg", "c.png"]
    assert data[0]["image"].size == (8, 8)
    assert np.array_equal(np.asarray(data[2]["image"]), np.asarray(Image.open(io.BytesIO(FILES["c.png"]))))
    assert not list(tmp_path.glob("photos/**/bad*")) and len(load_rows(path, limit=1)) == 1


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_bad_pictures_are_named_and_set_aside(tmp_path, form):
    files = {**FILES, "corrupt.png": b"\x89PNG not really", "cut.png": picture(4)[:60], "extra.png": picture(5)}
    rows = [
        *METADATA,
        {"file_name": "corrupt.png", "text": "x"},
        {"file_name": "cut.png", "text": "x"},
        {"file_name": "a.jpg", "text": "x"},
        {"file_name": "a.png", "text": ""},
        {"text": "no file"},
        {"file_name": "../secret.png", "text": "x"},
        {"file_name": "/etc/passwd", "text": "x"},
    ]
    (tmp_path / "secret.png").write_bytes(picture(9))
    if form == "folder":
        path = folder(tmp_path / "photos", rows, files)
    else:
        path = zipped(tmp_path / "photos.zip", rows, files)
    with pytest.raises(GuerdonError) as caught:
        load_rows(path, required=("prompt",))
    where = f"{path}/metadata.jsonl"
    for part in (
        "8 bad rows", f"{where}:4: image 'corrupt.png' cannot be read", f"{where}:5: image 'cut.png' cannot be read",
        f"{where}:6: 'a.jpg' does not exist; the nearest is 'a.png'", f"{where}:7: 'a.png' has no caption",
        f"{where}:8: column 'file_name' is missing", f"{where}:9: '../secret.png' leads outside",
        f"{where}:10: '/etc/passwd' leads outside", f"{path}/extra.png: metadata.jsonl has no row for this image",
    ):  # fmt: skip
        assert part in str(caught.value), part
    data = load_rows(path, required=("prompt",), skip_bad_rows=True, out=tmp_path)
    assert data["prompt"] == ["one", "two", "three"]
    assert len((tmp_path / "bad_rows.jsonl").read_text().splitlines()) == 8


def test_zip_entries_that_lead_outside_are_reported_and_never_written(tmp_path):
    files = {**FILES, "../evil.png": picture(6), "/abs.png": picture(7)}
    (tmp_path / "in").mkdir()
    path = zipped(tmp_path / "in" / "photos.zip", METADATA, files)
    with pytest.raises(GuerdonError, match="evil.png: its name leads outside.*abs.png: its name leads outside"):
        load_rows(path)
    assert load_rows(path, skip_bad_rows=True)["prompt"] == ["one", "two", "three"]
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["photos.zip"]


def test_symlink_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(9))
    path = folder(tmp_path / "photos", [*METADATA, {"file_name": "link.png", "text": "x"}], FILES)
    (path / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(GuerdonError, match="image 'link.png' cannot be read: it lies outside the folder"):
        load_rows(path)


def test_caption_column_that_nobody_knows_is_named_once(tmp_path):
    path = folder(tmp_path / "photos", [{"file_name": "a.png", "captoin": "x"}], {"a.png": picture()})
    with pytest.raises(GuerdonError, match="has no column prompt, text, caption; did you mean 'captoin'"):
        load_rows(path, skip_bad_rows=True)


def test_folder_without_metadata(tmp_path):
    path = folder(tmp_path / "photos", None, FILES)
    data = load_rows(path)
    assert sorted(data.column_names) == ["file_name", "image"] and len(data) == 3
    with pytest.raises(GuerdonError, match="has no column 'prompt'"):
        load_rows(path, required=("prompt",))


def test_parquet_pictures_stay_pictures(tmp_path):
    load_rows(folder(tmp_path / "photos", METADATA, FILES)).to_parquet(tmp_path / "photos.parquet")
    data = load_rows(tmp_path / "photos.parquet", required=("prompt", "image"))
    assert data[1]["image"].size == (8, 8) and data["prompt"] == ["one", "two", "three"]


def test_a_folder_with_one_data_file_means_that_file(tmp_path):
    jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "README.md").write_text("about the rows")
    assert load_rows(tmp_path).to_list() == load_rows(tmp_path / "rows.jsonl").to_list()
