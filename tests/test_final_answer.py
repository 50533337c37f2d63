"""The verifiers of stated answers: what they read, what they accept, what they refuse, and what is no verdict."""

from __future__ import annotations

from typing import Any

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.rewards.text.final_answer import (
    NumericVerifier,
    regex_verifier,
    rule_verifier,
    same_answer,
    stated_answer,
    verify_answer,
)


@pytest.mark.parametrize(
    ("response", "solution"),
    [
        ("3 * 4 = 12.\nThe answer is 12.", "12"),
        ("so we get\n#### 1,200", "1200"),
        ("Hence \\boxed{\\frac{1}{2}}.", "0.5"),
        ("<answer>42</answer>", "42"),
        ("The answer is $18.00.", "18"),
        ("The answer is 50%.", "50%"),
        ("The answer is twelve.", "12"),
        ("A: 7", "7"),
        ("12", "12"),
        ("The answer is -3.", "-3"),
    ],
)
def test_right_answers_in_many_forms(response: str, solution: str) -> None:
    assert verify_answer(response, solution).correct, verify_answer(response, solution)


@pytest.mark.parametrize(
    ("response", "solution", "reason"),
    [
        ("The answer is 13.", "12", "differs"),
        ("The answer is not 12.", "12", None),
        ("12 is what I thought first. The answer is 13.", "12", "differs"),
        ("I have no idea.", "12", "none stated"),
        ("", "12", "none stated"),
        ("Thought process:", "12", "none stated"),
        ("\\boxed{12", "12", None),
    ],
)
def test_wrong_ones(response: str, solution: str, reason: str | None) -> None:
    found = verify_answer(response, solution)
    assert not found.correct and (reason is None or found.reason == reason), found


def test_the_last_statement_counts() -> None:
    said = stated_answer("#### 4\nWait. The answer is 5.")
    assert said is not None and said.text == "5." and said.kind == "said" and said.value == 5
    assert stated_answer("nothing here") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("1/2", "0.5", True), ("1,000", "1000", True), ("12", "13", False), ("red", "Red", True)],
)
def test_same_answers(one: str, other: str, same: bool) -> None:
    assert same_answer(one, other) is same and same_answer(other, one) is same


def test_the_naive_verifier_takes_the_last_number() -> None:
    said: Any = regex_verifier(None, ["The answer is not 12", "12, some would say 13", "none"], solution=["12"] * 3)
    assert said[0] == 1.0 and said[1] == 0.0, "its known holes"
    rules: Any = rule_verifier(None, ["The answer is not 12", "The answer is 12"], solution=["12"] * 2)
    assert rules[0] == 0.0 and rules[1] == 1.0


def test_rows_and_columns() -> None:
    messages = [[{"role": "assistant", "content": "The answer is 12."}]] * 3
    found: Any = rule_verifier(None, messages, solution=["12", None, "x^2 + y (mod 7)"])
    assert found[0] == 1.0 and found[1] is None and isinstance(found[2], Failed)
    with pytest.raises(GuerdonError, match="needs the column 'solution'"):
        rule_verifier(None, messages)
    with pytest.raises(GuerdonError, match="one entry for each completion"):
        rule_verifier(None, messages, solution=["12"])


def test_a_number_may_be_right_within_a_tolerance() -> None:
    close = NumericVerifier(relative=0.01)
    said = ["The answer is 3.14.", "The answer is 3.2.", "Answer: about three", "#### 22/7"]
    assert close(None, said, solution=["3.1416"] * 4) == [1.0, 0.0, 0.0, 1.0]
    assert NumericVerifier(0.0, 0.5)(None, ["#### 10.5", "#### 10.51"], solution=["10", "10"]) == [1.0, 0.0]
    assert NumericVerifier(0.0)(None, ["#### 18.0", "#### 18.1"], solution=["18", "18"]) == [1.0, 0.0]
    assert close(None, ["Answer: Paris", "#### 4"], solution=["Paris", None]) == [1.0, None]
    assert close.identity() != NumericVerifier(0.02).identity()
    with pytest.raises(GuerdonError, match="at least 0, got -1"):
        NumericVerifier(-1)
