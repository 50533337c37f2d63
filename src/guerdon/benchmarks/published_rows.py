"""Rows of a published benchmark: from the hub, or from a local copy in the same columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from guerdon.core.data import read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.json_table import find_table
from guerdon.core.preferences import Message, as_messages

__all__ = ["prompt_messages", "published_rows", "sampled"]

T = TypeVar("T")


def published_rows(
    benchmark: str,
    data: str | Path | None,
    *,
    hub: str,
    split: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    check: Callable[[dict[str, Any]], str | None],
    skip_bad_rows: bool = False,
    out: Path | None = None,
) -> list[tuple[str, dict[str, Any]]]:
    """(``file:row``, values) of every row; only the ``required`` and ``optional`` columns are looked at.

    data: a hub id, or a .jsonl, .json, .parquet or .csv file; None: ``hub``, which may be out of reach.
    Raises GuerdonError naming together all rows of which ``check`` or a missing column says what is wrong; and, where
    the hub gives nothing, what ``data`` may be.
    """
    try:
        source = find_table(hub if data is None else data, split)
    except GuerdonError as error:
        if data is not None:
            raise
        listed = ", ".join([*required, *(f"[{name}]" for name in optional)])
        raise GuerdonError(
            f"{benchmark} could not be had from the hub as {hub!r}; give --data, a hub id or a local jsonl, json or "
            f"parquet file with the columns {listed} ({error})"
        ) from error
    wanted = {*required, *optional}

    def narrowed(row: dict[str, Any]) -> str | None:
        # An odd value in a column that nobody reads is nobody's concern.
        for name in [name for name in row if name not in wanted]:
            del row[name]
        return check(row)

    return read_rows(
        source, required=required, skip_bad_rows=skip_bad_rows, out=out, check=narrowed, every_column=True
    )  # fmt: skip


def prompt_messages(prompt: Any) -> list[Message]:
    """A prompt column as messages. A text is one turn of the user, whatever it says: never read for turns.

    Raises ValueError saying what is wrong.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return as_messages(prompt, "user")


def sampled(items: Sequence[T], limit: int | None, unit: Callable[[T], str], *, seed: int = 0) -> list[T]:
    """At most ``limit`` of the items, drawn by whole units (rows that belong together), in their own order.

    A larger limit with the same seed holds the smaller sample. Raises GuerdonError for a limit below 1.
    """
    if limit is None:
        return list(items)
    if limit < 1:
        raise GuerdonError(f"limit must be at least 1, got {limit}")
    members: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        members.setdefault(unit(item), []).append(place)
    names = list(members)
    kept: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(names)):
        own = members[names[number]]
        if kept and len(kept) + len(own) > limit:
            break
        kept += own
    return [items[place] for place in sorted(kept)]
