"""Rows of two kinds, open and closed, for recipes that pay them by different rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from guerdon.core.errors import GuerdonError, unknown
from guerdon.models.query_type import query_of
from guerdon.recipes._language import Problems

__all__ = ["with_kinds"]

Row = dict[str, Any]


def with_kinds(
    problems: Problems, column: str, needs: Mapping[str, str | None], *, share: float, otherwise: str,
    kind_of: Callable[[Sequence[str]], list[str]] | None = None,
) -> Problems:  # fmt: skip
    """``problems`` whose rows all have ``column``, "reference" and "solution" (None where there is none).

    needs:      kind -> the column that rows of this kind must fill, or None; the first kind is the open one.
    share:      of the rows that name no kind are open, evenly spread; the others are of the kind ``otherwise``.
    kind_of:    says the kinds of such rows by their queries, in place of share and otherwise.

    A worked solution is the reference of a row that has no other. Raises GuerdonError naming the first row of an
    unknown kind, or without what its kind needs.
    """
    first = next(iter(needs))

    def typed(rows: list[Row]) -> list[Row]:
        made = []
        told = kind_of([query_of(row["prompt"]) for row in rows]) if kind_of is not None else None
        for place, row in enumerate(rows):
            opened = int((place + 1) * share) > int(place * share)
            kind = row.get(column) or (told[place] if told else first if opened else otherwise)
            if kind not in needs:
                raise unknown(f"{column} of the problem {_shown(row)}", str(kind), needs)
            whole = {"solution": None, **row, column: kind, "reference": row.get("reference") or row.get("worked")}
            wanted = needs[kind]
            if wanted is not None and whole[wanted] in (None, "", []):
                raise GuerdonError(
                    f"the problem {_shown(row)} is {kind} and needs the column {wanted!r}; it has {', '.join(row)}"
                )
            made.append(whole)
        return made

    parts = {name: typed(getattr(problems, name)) for name in ("train", "watched", "tested", "other")}
    return replace(problems, **parts)


def _shown(row: Row) -> str:
    prompt = row["prompt"]
    return repr((prompt if isinstance(prompt, str) else str(prompt[-1]["content"]))[:60])
