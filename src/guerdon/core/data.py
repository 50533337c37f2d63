"""Rows for training and scoring, checked before anything trains: every bad row is reported by file and number."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.core.errors import GuerdonError, nearest
from guerdon.core.sources import SUFFIXES, BadRow, Source, open_source

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def load_rows(
    path_or_hub_id: str | Path,
    *,
    required: Iterable[str] = (),
    skip_bad_rows: bool = False,
    limit: int | None = None,
    out: str | Path | None = None,
    split: str = "train",
) -> Dataset:
    """A dataset with TRL's column names from a file, a folder of images, or the hub.

    path_or_hub_id:  .jsonl, .jsonl.gz, .parquet or .csv; a folder of images with ``metadata.jsonl`` (``file_name`` and
                     ``text``, ``caption`` or ``prompt``), or a zip of such a folder, read without extracting; a hub id.
                     Images come as the column ``image``, their caption as ``prompt``.
    required:        columns that every row must fill.
    skip_bad_rows:   leave bad rows out instead of raising; a warning names them, and ``out``/bad_rows.jsonl, if ``out``
                     is given, holds them.
    limit:           read no more than so many good rows.
    split:           the split to take from the hub.

    A row is bad if it cannot be read (not UTF-8, not JSON, a picture that does not decode, a file that is missing or
    outside the folder), lacks a required column or leaves it empty, or holds another type than the rest of its column.

    Raises GuerdonError naming all bad rows together (the first ten in words), a missing column with the nearest one,
    or a file that does not exist with the nearest one.
    """
    source = find_source(path_or_hub_id, split)
    return _dataset(source, read_rows(source, required=required, skip_bad_rows=skip_bad_rows, limit=limit, out=out))


Rows = list[tuple[str, dict[str, Any]]]
RowCheck = Callable[[dict[str, Any]], str | None]


def find_source(path_or_hub_id: str | Path, split: str = "train") -> Source:
    """The source of a file, a folder of images, or a data set on the hub. Raises GuerdonError where there is none."""
    path = Path(path_or_hub_id)
    return open_source(path) if path.exists() else _from_hub(str(path_or_hub_id), split)


def read_rows(
    source: Source,
    *,
    required: Iterable[str] = (),
    skip_bad_rows: bool = False,
    limit: int | None = None,
    out: str | Path | None = None,
    check: RowCheck | None = None,
    every_column: bool = False,
) -> Rows:
    """The good rows of a source as (``file:row``, values); bad ones are reported as `load_rows` says.

    check:         what else is wrong with a row, in words, or None.
    every_column:  hand over all columns of a source that would otherwise give only the required ones.
    """
    needed = tuple(required)
    if limit is not None and limit < 1:
        raise GuerdonError(f"limit must be at least 1, got {limit}")
    rows, bad = _read(source, needed, limit, check, source.columns if every_column else ())
    rows, odd = _one_type_a_column(rows)
    bad += odd
    if bad and not skip_bad_rows:
        raise GuerdonError(
            _report(source.name, bad) + "; fix them, or set them aside with skip_bad_rows (--skip-bad-rows)"
        )
    if not rows:
        raise GuerdonError(f"{source.name} has no usable rows" + (f": {_report(source.name, bad)}" if bad else ""))
    if bad:
        _set_aside(source.name, bad, out)
    return rows


def _read(
    source: Source, needed: tuple[str, ...], limit: int | None, check: RowCheck | None, more: tuple[str, ...]
) -> tuple[Rows, list[BadRow]]:
    rows: Rows = []
    bad: list[BadRow] = []
    lacking: list[tuple[str, str, dict[str, Any]]] = []
    columns: set[str] = set(source.columns)
    for row in source.rows((*needed, *more)):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        where, values = row
        columns.update(values)
        empty = next((column for column in needed if _is_empty(values.get(column))), None)
        if empty is not None:
            lacking.append((where, empty, values))
            continue
        reason = check(values) if check is not None else None
        if reason is not None:
            bad.append(BadRow(where, reason, values))
            continue
        rows.append(row)
        if limit is not None and len(rows) == limit:
            break
    for column in needed:
        if column not in columns and (columns or not bad):
            guess = nearest(column, columns)
            hint = f"; did you mean {guess!r}?" if guess else ";"
            listed = ", ".join(sorted(columns)) or "(none)"
            raise GuerdonError(f"{source.name} has no column {column!r}{hint} columns: {listed}")
    bad += [BadRow(where, f"column {column!r} is missing or empty", values) for where, column, values in lacking]
    return rows, bad


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or isinstance(value, list | dict) and not value


def _one_type_a_column(rows: Rows) -> tuple[Rows, list[BadRow]]:
    """Rows whose every value has the type that most of its column have; int and float count as one."""
    counts: dict[str, dict[str, int]] = {}
    for _, row in rows:
        for column, value in row.items():
            if value is not None:
                kinds = counts.setdefault(column, {})
                kinds[_kind(value)] = kinds.get(_kind(value), 0) + 1
    usual = {column: max(kinds, key=lambda kind: kinds[kind]) for column, kinds in counts.items()}
    good: Rows = []
    bad: list[BadRow] = []
    for where, row in rows:
        odd = next((c for c, value in row.items() if value is not None and _kind(value) != usual[c]), None)
        if odd is None:
            good.append((where, row))
        else:
            reason = f"column {odd!r} is {_kind(row[odd])}, but {usual[odd]} in most rows"
            bad.append(BadRow(where, reason, row))
    return good, bad


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, int | float):
        return "a number"
    known: dict[type, str] = {str: "text", list: "a list", dict: "a mapping"}
    return known.get(type(value), type(value).__name__)


def _report(name: str, bad: list[BadRow]) -> str:
    shown = "; ".join(f"{row.where}: {row.reason}" for row in bad[:10])
    more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
    return f"{name} has {len(bad)} bad row{'s' if len(bad) > 1 else ''}: {shown}{more}"


def _set_aside(name: str, bad: list[BadRow], out: str | Path | None) -> None:
    logger.warning("%s; set aside", _report(name, bad))
    if out is None:
        return
    path = Path(out) / "bad_rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in bad:
            line = {"source": name, "where": row.where, "reason": row.reason, "row": row.values}
            file.write(json.dumps(line, ensure_ascii=False, default=lambda item: f"<{type(item).__name__}>") + "\n")


def _dataset(source: Source, rows: Rows) -> Dataset:
    from datasets import Dataset, Image, Value
    from pyarrow import ArrowException

    if source.dataset is not None:
        return source.dataset.select([int(where.rpartition(":")[2]) for where, _ in rows])
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    data = {column: [row.get(column) for _, row in rows] for column in columns}
    for column, values in data.items():
        # A column of numbers may begin with whole ones; pyarrow wants them all alike.
        if any(isinstance(value, float) for value in values) and not any(isinstance(value, bool) for value in values):
            data[column] = [float(value) if isinstance(value, int) else value for value in values]
    try:
        dataset = Dataset.from_dict(data)
    except (ArrowException, TypeError, ValueError) as error:
        raise GuerdonError(f"{source.name}: its rows do not fit one table: {error}") from error
    for column in columns:
        if all(value is None for value in data[column]):
            dataset = dataset.cast_column(column, Value("string"))
    return dataset.cast_column("image", Image()) if source.images else dataset


def _from_hub(name: str, split: str) -> Source:
    path = Path(name)
    if not _HUB_ID.match(name) or path.name.lower().endswith(SUFFIXES) or name.startswith((".", "/")):
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        guess = nearest(path.name, beside)
        hint = f"; did you mean {str(path.parent / guess)!r}?" if guess else ""
        raise GuerdonError(f"there is no file or folder {name!r}{hint}")
    from datasets import load_dataset

    try:
        # Never with trust_remote_code: a data set is data.
        dataset = load_dataset(name, split=split)
    except Exception as error:
        raise GuerdonError(
            f"{name!r} is no file or folder here, and the hub gave no split {split!r} of a data set of that name "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'})"
        ) from error
    return Source.of_dataset(f"{name}:{split}", dataset)
