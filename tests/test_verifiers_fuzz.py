"""Verifiers of final answers on what no person would write: always an outcome, always in time, never a wrong 1.

Time is checked by running the worst cases in a worker that is killed at its deadline: what hangs shows as a failure of
that kind, and no clock is read here.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon.core.outcome import Failed
from guerdon.core.scorer import Scorer
from guerdon.rewards.text.agreement import MajorityVoteReward
from guerdon.rewards.text.final_answer import regex_verifier, rule_verifier, same_answer, stated_answer, verify_answer

LONG = 100_000
PIECES = st.sampled_from(
    ["\\boxed{", "\\frac{", "\\sqrt{", "}", "{", "<answer>", "</answer>", "#### ", "the answer is ", "Answer: ", "^",
     "**",
     "1e", "9" * 40, "-", "/", ".", ",", "$", "\\$", "%", "=", "(", ")", "\n", " ", "x", "0", "18", "٣", "½",
     "\u202e", "\0",
     "\\text{", "nan", "inf", "1/0", "not ", "or "]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join), st.text(alphabet=string.printable, max_size=200)
)
BOMBS = {
    "empty": "",
    "white space": " \n\t" * (LONG // 3),
    "one digit": "9" * LONG,
    "open boxes": "\\boxed{" * (LONG // 7),
    "nested boxes": "\\boxed{" * 10_000 + "18" + "}" * 10_000,
    "nested fractions": "\\boxed{" + "\\frac{1}{" * 10_000 + "2" + "}" * 10_001,
    "nested roots": "#### " + "\\sqrt{" * 10_000 + "4" + "}" * 10_000,
    "brackets": "#### " + "(" * 50_000 + "18" + ")" * 49_990,
    "signs": "#### " + "-" * (LONG - 10) + "18",
    "open tags": "<answer>" * (LONG // 8),
    "many statements": "the answer is 18. " * (LONG // 18),
    "many marks": "#### 18 " * (LONG // 8),
    "equations": "1 = " * (LONG // 4),
    "closings": "it is " * (LONG // 6) + "18",
    "fences": "*" * LONG,
    "dollars": "$" * LONG,
    "words": "answer " * (LONG // 7),
    "looping": "So 3 + 4 = 7. " * (LONG // 14),
    "power tower": "\\boxed{9^9^9^9^9^9^9}",
    "power of powers": "#### 9^{9^{9^{9^{9}}}}",
    "huge power": "#### 10**1000000000",
    "huge exponent": "#### 1e999999999",
    "small exponent": "#### 1e-999999999",
    "no denominator": "\\boxed{1/0}",
    "fraction chain": "#### " + "1/" * 40_000 + "1",
    "commas": "#### " + "1," * 50_000,
    "unicode digits": "#### " + "٣" * LONG,
    "one for eighteen": "\ufdfa" * LONG,
    "invisible": "#### 1" + "\u200b\u202e" * (LONG // 2),
    "combining": "#### 1" + "\u0301" * LONG,
    "truncated": "First, 9 + 9 is \\boxed{1",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_have_a_verdict(name: str) -> None:
    text = BOMBS[name]
    found = verify_answer(text, "17")
    assert not found.correct and found.reason in ("differs", "none stated", "unreadable", "ambiguous")
    assert rule_verifier([""], [text], solution=["17"]) == [0.0]
    stated = stated_answer(text)
    assert stated is None or isinstance(stated.text, str)
    assert regex_verifier([""], [text], solution=["17"]) == [0.0]


def test_bombs_as_solutions_fail_or_are_compared() -> None:
    found = rule_verifier([""] * len(BOMBS), ["#### 17"] * len(BOMBS), solution=list(BOMBS.values()))
    for name, outcome in zip(BOMBS, found, strict=True):
        assert isinstance(outcome, Failed) and outcome.kind == "unparseable" or outcome == 0.0, name


@pytest.mark.parametrize("verifier", [rule_verifier, regex_verifier])
def test_bombs_keep_the_deadline(verifier) -> None:  # noqa: ANN001
    """In a killable worker, 2 s a sample: not one of them is killed."""
    scorer = Scorer(verifier, deadline=2.0)
    try:
        scores = scorer.score([""] * len(BOMBS), list(BOMBS.values()), solution=["17"] * len(BOMBS))
    finally:
        scorer.close()
    assert scores.failures == {} and scores.values.tolist() == [0.0] * len(BOMBS)


def test_votes_over_bombs() -> None:
    texts = list(BOMBS.values())
    found = MajorityVoteReward()(["q"] * len(texts), texts)
    assert all(one in (0.0, 1.0) for one in found)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, TEXTS)
def test_any_text_has_a_typed_outcome(text: str, solution: str) -> None:
    for verifier in (rule_verifier, regex_verifier):
        (found,) = verifier([""], [text], solution=[solution])
        assert isinstance(found, Failed) or found in (0.0, 1.0)
    assert same_answer(text, solution) == same_answer(solution, text)
    assert same_answer(text, text)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_right_statement_counts_whatever_stands_above(noise: str) -> None:
    (found,) = rule_verifier([""], [noise.replace("####", "") + "\n\n#### 18"], solution=["18"])
    # A box, tag or phrase that is left open above does not reach over the line.
    assert found == 1.0


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_a_solution_that_does_not_occur_is_never_found(text: str) -> None:
    """No arithmetic of the pieces gives 271828, so nothing but a misreading could."""
    assert rule_verifier([""], [text], solution=["271828"]) == [0.0]


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(0, 30))
def test_a_score_belongs_to_the_sample(text: str, place: int) -> None:
    others = ["#### 18"] * 3
    alone = rule_verifier([""], [text], solution=["18"])
    batch = [*others[: place % 4], text, *others[place % 4 :]]
    assert rule_verifier([""] * 4, batch, solution=["18"] * 4)[place % 4] == alone[0]
