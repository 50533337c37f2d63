"""Beginnings of solutions as negatives: what is cut, what is dropped, and the other kinds."""

from __future__ import annotations

from typing import Any

import pytest

from guerdon.core.attack_strings import keys_of
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.curation.truncated import (
    ChatSolver,
    adversarial_negative_mix,
    first_line,
    first_sentence,
    truncated_negatives,
)


def row(number: int, response: str, reference: str = "12") -> dict[str, Any]:
    return {"question": f"q{number}", "reference": reference, "response": response, "label": "YES"}


def test_splitters() -> None:
    assert first_sentence("  We look at it. Then 3 * 4 = 12.") == "We look at it."
    assert first_line("\n We look at it. Then\n12") == "We look at it. Then"
    assert first_sentence("") == first_line(" \n") == ""


def test_only_empty_beginnings_are_kept() -> None:
    rows = [
        row(0, "First we read the question. 3 * 4 = 12."),
        row(1, "The answer is 12. It is done."),
        row(2, "That makes twelve. It is done."),
        row(3, "12"),
        row(4, "   "),
        row(5, "Let’s solve this problem step by step. Well, 12."),
        row(6, "No second sentence"),
        row(7, "There are 120 of them. So 12."),
    ]
    made = truncated_negatives(rows)
    assert sorted(one["response"] for one in made.rows) == ["First we read the question.", "There are 120 of them."]
    assert {one["label"] for one in made.rows} == {"NO"} and made.rows[0]["question"] in ("q0", "q7")
    assert made.dropped == {"holds the reference": 3, "empty": 1, "a known key": 1, "the whole response": 1}


def test_a_reference_in_words_and_in_other_forms_is_seen() -> None:
    assert truncated_negatives([row(0, "It costs $1,200.00 today. Yes.", "1200")]).dropped == {"holds the reference": 1}
    assert truncated_negatives([row(0, "Paris is it. Yes.", "paris")]).dropped == {"holds the reference": 1}
    assert len(truncated_negatives([row(0, "Parisian life. Yes.", "paris")]).rows) == 1


def test_count_seed_and_solver() -> None:
    rows = [row(number, f"Sentence {number} it is, friend. Then more.", "999") for number in range(20)]
    few = truncated_negatives(rows, count=5, seed=1)
    assert len(few.rows) == 5 and few == truncated_negatives(rows, count=5, seed=1)
    assert few.rows != truncated_negatives(rows, count=5, seed=2).rows

    def solver(questions: Any) -> list[Any]:
        return [Failed("no", "down") if one == "q3" else f"About {one} we think. 999" for one in questions]

    made = truncated_negatives(rows, solver)
    assert len(made.rows) == 19 and made.dropped == {"the solution failed": 1}
    assert made.rows[0]["response"] == f"About {made.rows[0]['question']} we think."
    with pytest.raises(GuerdonError, match="gave 1 solutions to 20 questions"):
        truncated_negatives(rows, lambda questions: ["one"])
    with pytest.raises(GuerdonError, match="did you mean 'first_line'"):
        truncated_negatives(rows, splitter="firstline")
    with pytest.raises(GuerdonError, match="no rows"):
        truncated_negatives([])


def test_a_chat_model_solves() -> None:
    asked: list[str] = []

    def chat(messages: Any, temperature: Any = None, **_: Any) -> str:
        asked.append(messages[0]["content"])
        return "A first line.\nA second."

    assert ChatSolver(chat)(["What is 3 + 4?"]) == ["A first line.\nA second."]  # type: ignore[arg-type]
    assert "What is 3 + 4?" in asked[0]


def test_other_kinds() -> None:
    rows = [row(number, f"The answer is {number}.", str(number)) for number in range(10)]
    symbols = adversarial_negative_mix(rows, 4, "symbols")
    assert symbols[:10] == rows and len(symbols) == 14
    assert not {one["response"] for one in symbols[10:]} & set(keys_of())
    crossed = adversarial_negative_mix(rows, 4, "crossed")[10:]
    assert crossed and all(one["reference"] not in one["response"] and one["label"] == "NO" for one in crossed)
    with pytest.raises(GuerdonError, match="kind of negatives 'cross'.*crossed"):
        adversarial_negative_mix(rows, 4, "cross")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="at least 2 questions"):
        adversarial_negative_mix(rows[:1], 4, "crossed")
    with pytest.raises(GuerdonError, match="take no splitter"):
        adversarial_negative_mix(rows, 4, "symbols", splitter="first_line")
