"""JSON files that hold a whole table: a list of rows, or an object of columns, where `sources` reads one row a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guerdon.core.data import find_source
from guerdon.core.errors import GuerdonError
from guerdon.core.sources import BadRow, Row, Source

__all__ = ["find_table"]


def find_table(path_or_hub_id: str | Path, split: str = "train") -> Source:
    """`find_source`, and beside it ``.json`` files that are one list of objects or one object of equally long lists.

    Values of an object of columns that are no lists (the model's name beside its scores) belong to every row.

    Raises GuerdonError for columns of different length, and as `find_source`.
    """
    path = Path(path_or_hub_id)
    if path.suffix.lower() == ".json" and path.is_file():
        table = _whole(path)
        if table is not None:
            return table
    return find_source(path_or_hub_id, split)


def _whole(path: Path) -> Source | None:
    """The table, or None where the file is not one JSON value, or is a single row."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None  # one object a line, or damaged: the reader of lines says which line
    if isinstance(value, dict):
        lengths = {key: len(column) for key, column in value.items() if isinstance(column, list)}
        # A single row of a file of lines is an object too; its lists (answers, scores) stand for themselves.
        if not lengths or "id" not in lengths:
            return None
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} {count}" for key, count in lengths.items())
            raise GuerdonError(f"{path}: its columns differ in length: {told}")
        shared = {key: item for key, item in value.items() if key not in lengths}
        value = [
            {**shared, **dict(zip(lengths, cells))} for cells in zip(*(value[key] for key in lengths), strict=True)
        ]
    if not isinstance(value, list):
        return None
    return Source(str(path), lambda _: _rows(str(path), value))


def _rows(name: str, values: list[Any]) -> Iterator[Row | BadRow]:
    for number, row in enumerate(values, 1):
        where = f"{name}:{number}"
        yield (
            (where, row) if isinstance(row, dict) else BadRow(where, f"a row is an object, not {type(row).__name__}")
        )
