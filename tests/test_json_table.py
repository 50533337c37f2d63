"""JSON files that hold a whole table are read as rows; all else is left to the reader of lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.core.data import read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.json_table import find_table


def rows_of(tmp_path: Path, text: str, name: str = "data.json") -> list[Any]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [values for _, values in read_rows(find_table(path), required=("id",))]


def test_a_list_of_rows_however_it_is_laid_out(tmp_path: Path) -> None:
    rows = [{"id": "a", "x": 1}, {"id": "b", "x": 2}]
    assert rows_of(tmp_path, json.dumps(rows, indent=4)) == rows


def test_an_object_of_columns_with_values_that_all_rows_share(tmp_path: Path) -> None:
    table = {"id": ["a", "b"], "scores": [[1, 2], [3]], "model": "m"}
    assert rows_of(tmp_path, json.dumps(table, indent=4)) == [
        {"id": "a", "scores": [1, 2], "model": "m"}, {"id": "b", "scores": [3], "model": "m"},
    ]  # fmt: skip


def test_lines_are_still_lines_also_a_single_one_that_holds_lists(tmp_path: Path) -> None:
    assert rows_of(tmp_path, '{"id": "a"}\n{"id": "b"}\n') == [{"id": "a"}, {"id": "b"}]
    assert rows_of(tmp_path, '{"id": "a", "chosen": ["x", "y"]}\n') == [{"id": "a", "chosen": ["x", "y"]}]
    assert rows_of(tmp_path, '{"id": "a"}\n', "data.jsonl") == [{"id": "a"}]


def test_what_is_wrong_is_said_by_file_and_row(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match=r"data.json:2: a row is an object, not int"):
        rows_of(tmp_path, '[{"id": "a"}, 3]')
    with pytest.raises(GuerdonError, match="differ in length: id 2, x 1"):
        rows_of(tmp_path, '{"id": ["a", "b"], "x": [1]}')
    with pytest.raises(GuerdonError, match="no file or folder"):
        find_table(tmp_path / "none.json")
