"""Answers compared as mathematics, in a worker that can be killed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon.core.catalogue import load_reward
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.scorer import Scorer
from guerdon.rewards.text.symbolic import SymbolicVerifier
from test_verifiers_fuzz import BOMBS, TEXTS

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def verifier() -> Iterator[SymbolicVerifier]:
    made = SymbolicVerifier(deadline=20.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("said", "wanted", "worth"),
    [
        ("So the answer is \\boxed{1+2x}.", "2x+1", 1.0),
        ("\\boxed{2x}", "2x+1", 0.0),
        ("\\boxed{\\{2,1\\}}", "\\{1,2\\}", 1.0),
        ("\\boxed{(0,1]}", "(0,1]", 1.0),
        ("\\boxed{(0,1)}", "(0,1]", 0.0),
        ("The answer is 3\\sqrt{13}.", "$3\\sqrt{13}$", 1.0),
        ("#### \\sqrt{2}/2", "\\frac{1}{\\sqrt{2}}", 1.0),
        ("\\boxed{x=5}", "5", 1.0),
        ("\\boxed{18.00}", "18", 1.0),
        ("it may be 2x+1, I think", "2x+1", 0.0),
        ("", "2x+1", 0.0),
    ],
)
def test_what_is_equal_as_mathematics_is_right(
    verifier: SymbolicVerifier, said: str, wanted: str, worth: float
) -> None:
    assert verifier(None, [said], solution=[wanted]) == [worth]


def test_a_solution_that_is_no_expression_fails_and_a_missing_one_is_none(verifier: SymbolicVerifier) -> None:
    unread, none = verifier(None, ["\\boxed{y}", "\\boxed{y}"], solution=["@@@@", None])
    assert isinstance(unread, Failed) and unread.kind == "unparseable" and none is None


@pytest.mark.parametrize("bomb", ["9^{9^{9^9}}", "9^9^9", "x^{100000}", "10!!!", "99999!", "2**2**99", "(x+1)^(10000)"])
def test_a_bomb_is_an_outcome_of_its_own_and_reaches_no_worker(bomb: str) -> None:
    verifier = SymbolicVerifier()
    (found,) = verifier(None, [f"\\boxed{{{bomb}}}"], solution=["2x+1"])
    assert isinstance(found, Failed) and found.kind == "too_large" and verifier._worker is None


def test_what_hangs_is_killed_and_the_next_row_is_scored() -> None:
    verifier = SymbolicVerifier(extraction="math_verify", deadline=2.0)
    try:
        rows = ["\\boxed{9^{9^{9^{9^9}}}}", "\\boxed{1+2x}", "\\boxed{10!!!!!!}", "\\boxed{3x}"]
        first, second, third, last = verifier(None, rows, solution=["2x+1"] * 4)
    finally:
        verifier.close()
    assert isinstance(first, Failed) and first.kind in ("deadline", "memory", "crash")
    assert isinstance(third, Failed) and third.kind in ("deadline", "memory", "crash")
    assert (second, last) == (1.0, 0.0)


def test_extraction_as_trainers_do_it_takes_what_is_only_mentioned() -> None:
    loose = SymbolicVerifier(extraction="math_verify", deadline=20.0)
    try:
        assert loose(None, ["it may be $2x+1$, I think"], solution=["2x+1"]) == [1.0]
    finally:
        loose.close()


def test_numbers_need_no_worker() -> None:
    plain = SymbolicVerifier()
    assert plain(None, ["The answer is 18", "#### 17"], solution=["18", "18"]) == [1.0, 0.0]
    assert plain._worker is None


def test_it_scores_by_name_travels_and_tells_its_settings(verifier: SymbolicVerifier) -> None:
    scores = Scorer(load_reward("symbolic_verifier")).score(["p"], ["#### 4"], solution=["4"])
    assert scores.values.tolist() == [1.0]
    again = pickle.loads(pickle.dumps(verifier))  # noqa: S301 - our own object, in this process
    assert again.identity() == verifier.identity() != SymbolicVerifier(rules_first=False).identity()


def test_wrong_settings_and_missing_columns_are_named(verifier: SymbolicVerifier) -> None:
    with pytest.raises(GuerdonError, match="'state'"):
        SymbolicVerifier(extraction="state")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="needs the column 'solution'"):
        verifier(None, ["4"])


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerdon.rewards.text.symbolic.find_spec", lambda name: None)
    with pytest.raises(GuerdonError, match=r"pip install 'guerdon\[math\]'"):
        SymbolicVerifier()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS, st.sampled_from(["2x+1", "\\{1, 2\\}", "x^2", "(0, 1]"]))
def test_any_text_has_a_typed_outcome(verifier: SymbolicVerifier, text: str, solution: str) -> None:
    (found,) = verifier(None, [f"#### {text}"], solution=[solution])
    assert isinstance(found, Failed) or found in (0.0, 1.0)


def test_no_bomb_stops_the_batch_or_counts_as_right() -> None:
    verifier = SymbolicVerifier(deadline=10.0)
    try:
        found = verifier(None, [*BOMBS.values(), "\\boxed{1+2x}"], solution=["2x+1"] * (len(BOMBS) + 1))
    finally:
        verifier.close()
    for name, outcome in zip(BOMBS, found):
        assert isinstance(outcome, Failed) or outcome == 0.0, name
    assert found[-1] == 1.0
