"""Votes: both orders, places undone, abstention, failures, tallies."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair
from guerdon.curation.committee import Case, JudgeCommittee, tallies

PROMPT = [{"role": "user", "content": "?"}]
OTHER = {"a": "b", "b": "a", None: None}


def first_place(prompt: Any, a: Any, b: Any, **given: Any) -> str:
    return "a"


def longer(prompt: Any, a: Any, b: Any, **given: Any) -> str | None:
    return "a" if len(str(a)) > len(str(b)) else "b" if len(str(b)) > len(str(a)) else None


def shorter(prompt: Any, a: Any, b: Any, **given: Any) -> str | None:
    return OTHER[longer(prompt, a, b)]


def coin(prompt: Any, a: Any, b: Any, *, rng: np.random.Generator, **given: Any) -> str:
    return "a" if rng.random() < 0.5 else "b"


def leaning(prompt: Any, a: Any, b: Any, *, rng: np.random.Generator, **given: Any) -> str | None:
    """Mostly the first place, some preference for what is longer, sometimes none."""
    drawn = rng.random()
    return "a" if drawn < 0.5 else None if drawn < 0.6 else longer(prompt, a, b)


def failing(prompt: Any, a: Any, b: Any, **given: Any) -> Failed:
    return Failed("down", kind="unavailable")


@pytest.mark.parametrize("n_samples", [2, 3, 5, 8])
@settings(max_examples=40, deadline=None)
@given(st.text(max_size=6), st.text(max_size=6), st.integers(0, 1000))
def test_a_judge_of_places_always_abstains(n_samples: int, x: str, y: str, seed: int) -> None:
    vote = JudgeCommittee([first_place], n_samples, seed).vote(PROMPT, x, y)
    assert vote.winner is None and vote.failure is None
    if x != y:
        ballot = vote.ballots[0]
        assert ballot.winner is None and ballot.first == n_samples == ballot.a + ballot.b
        assert abs(ballot.a - ballot.b) <= n_samples % 2


def test_a_judge_of_places_abstains_also_where_one_order_fails_more_often() -> None:
    class Unlucky:
        def __init__(self) -> None:
            self.failed = 0

        def __call__(self, prompt: Any, a: Any, b: Any, **given: Any) -> str | Failed:
            if a == "x" and self.failed < 3:
                self.failed += 1
                return Failed("cut off", kind="unparseable")
            return "a"

    ballot = JudgeCommittee([Unlucky()], 8).vote(PROMPT, "x", "y").ballots[0]
    assert (ballot.a, ballot.b, ballot.failed) == (1, 4, 3) and ballot.winner is None and ballot.cause is None


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=8), st.text(max_size=8), st.integers(0, 100), st.integers(2, 7))
def test_the_vote_does_not_depend_on_the_presentation(x: str, y: str, seed: int, n_samples: int) -> None:
    committee = JudgeCommittee([longer, coin, leaning], n_samples, seed)
    one, other = committee.vote(PROMPT, x, y), committee.vote(PROMPT, y, x)
    assert other.winner == OTHER[one.winner]
    for ballot, mirrored in zip(one.ballots, other.ballots, strict=True):
        assert (ballot.a, ballot.b, ballot.tie, ballot.first) == (mirrored.b, mirrored.a, mirrored.tie, mirrored.first)
        assert mirrored.winner == OTHER[ballot.winner]


def test_orders_are_shown_equally_often_and_shuffled() -> None:
    shown: list[str] = []

    def judge(prompt: Any, a: str, b: str, **given: Any) -> None:
        shown.append(a)

    firsts = set()
    for number in range(30):
        shown.clear()
        JudgeCommittee([judge], 8).vote(PROMPT, f"x{number}", f"y{number}")
        assert sum(text.startswith("x") for text in shown) == 4
        firsts.add(shown[0][0])
    assert firsts == {"x", "y"}


def test_a_deterministic_judge_is_asked_once_in_each_order() -> None:
    calls: list[tuple[str, str]] = []

    class Judge:
        deterministic = True

        def __call__(self, prompt: Any, a: str, b: str, **given: Any) -> str:
            calls.append((a, b))
            return "a" if a == "x" else "b"

    assert JudgeCommittee([Judge()], 8).vote(PROMPT, "x", "y").winner == "a"
    assert sorted(calls) == [("x", "y"), ("y", "x")]


def test_the_committee_votes_by_majority_and_abstains_on_ties() -> None:
    def winner(*judges: Any, majority: float = 0.5) -> str | None:
        return JudgeCommittee(judges, 4, majority=majority).vote(PROMPT, "long", "s").winner

    assert winner(longer) == "a" and winner(shorter) == "b"
    assert winner(longer, shorter) is None
    assert winner(longer, longer, shorter) == "a" and winner(longer, longer, shorter, majority=0.7) is None
    assert winner(longer, first_place, failing) == "a"  # who abstains or fails has no vote
    assert winner(first_place, first_place) is None
    whole = JudgeCommittee([longer, longer, shorter, first_place, failing], 4).vote(PROMPT, "long", "s")
    assert whole.tally == {"a": 2, "b": 1, "abstained": 1, "failed": 1} and whole.winner == "a"
    told = whole.to_json()
    assert told["winner"] == "a" and told["ballots"][4]["cause"] == "unavailable: down"
    assert told["ballots"][0] == {
        "judge": "longer", "a": 4, "b": 0, "tie": 0, "failed": 0, "first": 2, "winner": "a", "cause": None,
    }  # fmt: skip


def test_no_judgement_is_a_failure_and_no_abstention() -> None:
    vote = JudgeCommittee([failing, failing], 4).vote(PROMPT, "x", "y")
    assert vote.winner is None and isinstance(vote.failure, Failed) and "down" in vote.failure.cause
    assert vote.tally["failed"] == 2
    assert JudgeCommittee([failing]).vote(PROMPT, "x", "x").failure is None  # equal answers are shown to nobody


def test_votes_do_not_depend_on_what_was_judged_before_nor_on_threads() -> None:
    pairs = [Pair(PROMPT, *[[{"role": "assistant", "content": f"{n}{s}"}] for s in "xy"]) for n in range(12)]
    committee = JudgeCommittee([coin, leaning], 5, seed=3)
    cases = [Case(pair, "be exact") for pair in pairs]
    listed = list(committee.votes(cases))
    assert list(committee.votes(cases[5:])) == listed[5:]
    assert list(committee.votes(cases, workers=4)) == listed
    assert list(JudgeCommittee([coin, leaning], 5, seed=4).votes(cases)) != listed


def test_cases_reach_the_judges() -> None:
    seen = []

    def judge(prompt: Any, a: Any, b: Any, *, guideline: Any, examples: Any, rng: Any) -> None:
        seen.append((prompt, guideline, examples, threading.current_thread().name))

    pair = Pair(PROMPT, [{"role": "assistant", "content": "x"}], [{"role": "assistant", "content": "y"}])
    list(JudgeCommittee([judge], 2).votes([Case(pair, "g", [pair])]))
    assert [entry[:3] for entry in seen] == [(PROMPT, "g", [pair])] * 2


def test_tallies_show_who_has_a_favourite_place() -> None:
    committee = JudgeCommittee([longer, shorter, longer, first_place, failing], 4)
    rows = tallies(committee.vote(PROMPT, "x" * n, "y") for n in (2, 3, 4, 1))
    by_judge = {row["judge"]: row for row in rows}
    # Two judges share a name, and a row.
    assert by_judge["longer"] == {
        "judge": "longer",
        "voted": 6,
        "abstained": 2,
        "failed": 0,
        "agrees": 1.0,
        "first": 0.5,
    }
    assert by_judge["shorter"]["agrees"] == 0.0
    assert by_judge["first_place"]["first"] == 1.0 and by_judge["first_place"]["agrees"] is None
    assert by_judge["failing"]["failed"] == 4 and by_judge["failing"]["first"] is None
    assert rows[-1]["judge"] == "committee" and (rows[-1]["voted"], rows[-1]["abstained"]) == (3, 1)


def test_errors() -> None:
    for bad, says in (
        ({"judges": []}, "at least one"),
        ({"n_samples": 1}, "at least 2"),
        ({"majority": 1.0}, "majority"),
    ):
        with pytest.raises(GuerdonError, match=says):
            JudgeCommittee(**{"judges": [longer], **bad})
    with pytest.raises(GuerdonError, match="'wordy' must say 'a', 'b' or None, not 'first'"):

        def wordy(*given: Any, **more: Any) -> str:
            return "first"

        JudgeCommittee([wordy]).vote(PROMPT, "x", "y")
