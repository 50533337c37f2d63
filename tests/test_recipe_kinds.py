"""Rows of two kinds for recipes that pay them by different rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.recipes._kinds import with_kinds
from guerdon.recipes._language import Problems

NEEDS = {"open": "reference", "verifiable": "solution"}


def problems(*rows: dict[str, Any]) -> Problems:
    return Problems([{"prompt": [{"role": "user", "content": "What is 1 + 1?"}], **row} for row in rows], [], [], [])


def kinds(given: Problems, share: float) -> list[str]:
    made = with_kinds(given, "task_type", NEEDS, share=share, otherwise="verifiable")
    return [row["task_type"] for row in made.train]


def test_a_share_of_the_rows_is_open_and_evenly_spread() -> None:
    given = problems(*[{"solution": "2", "worked": "1 + 1 = 2"}] * 8)
    assert kinds(given, 0.25) == ["verifiable", "verifiable", "verifiable", "open"] * 2
    assert kinds(given, 0.0) == ["verifiable"] * 8 and kinds(given, 1.0) == ["open"] * 8


def test_a_row_that_names_its_kind_keeps_it_and_all_have_the_same_columns() -> None:
    given = problems({"task_type": "open", "reference": "two"}, {"solution": "2", "worked": "1 + 1 = 2"})
    made = with_kinds(given, "task_type", NEEDS, share=0.0, otherwise="verifiable").train
    assert [row["task_type"] for row in made] == ["open", "verifiable"]
    assert [row["reference"] for row in made] == ["two", "1 + 1 = 2"] and made[0]["solution"] is None


def test_a_classifier_tells_the_rows_that_name_no_kind() -> None:
    given = problems({"task_type": "open", "reference": "two"}, {"solution": "2", "reference": "two"})
    asked: list[list[str]] = []

    def kind_of(queries: Sequence[str]) -> list[str]:
        asked.append(list(queries))
        return ["open"] * len(queries)

    made = with_kinds(given, "task_type", NEEDS, share=0.0, otherwise="verifiable", kind_of=kind_of).train
    assert [row["task_type"] for row in made] == ["open", "open"] and asked[0] == ["What is 1 + 1?"] * 2


def test_what_a_row_lacks_is_named() -> None:
    with pytest.raises(
        GuerdonError, match=r"'What is 1 \+ 1\?' is open and needs the column 'reference'; it has prompt"
    ):
        kinds(problems({"task_type": "open"}), 0.0)
    with pytest.raises(GuerdonError, match="is verifiable and needs the column 'solution'"):
        kinds(problems({"reference": "two"}), 0.0)
    with pytest.raises(GuerdonError, match="verifable"):
        kinds(problems({"task_type": "verifable", "solution": "2"}), 0.0)
