"""The claim on master keys: its rows, its verifier, its bandit, a small run, and the whole of it (slow)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guerdon.claims.one_token_to_fool import (
    KEYS,
    ExactRules,
    Size,
    WordVerifier,
    climbed,
    first_sentences,
    rows_of,
    run,
)

SIZE = replace(Size(), train=300, test=200, extra=40, references=10, steps=250, lr=1.0)


def test_rows_of_different_problems() -> None:
    train, more, test = rows_of(SIZE, 1)
    assert [len(part) for part in (train, more, test)] == [300, 40, 200]
    assert not {row["question"] for row in train} & {row["question"] for row in [*more, *test]}
    assert {row["label"] for row in more} == {"NO"}
    agree = [row["label"] == "YES" for row in train] == ExactRules().accepts(train)
    assert 0.9 < agree.mean() < 1, "a twentieth of the labels is wrong"
    cut = first_sentences(SIZE, 1, train)
    assert len(cut) == 40 and {row["label"] for row in cut} == {"NO"}
    assert not {row["response"].strip() for row in cut} & set(KEYS)


def test_a_key_passes_where_nothing_taught_otherwise() -> None:
    train, _, test = rows_of(SIZE, 2)
    keys = [{"response": key, "reference": test[0]["reference"]} for key in KEYS]
    fooled, warned = WordVerifier(train), WordVerifier([*train, *first_sentences(SIZE, 2, train)])
    assert fooled.accepts(keys).mean() >= 0.8 and warned.accepts(keys).mean() < 0.1
    assert ExactRules().accepts(keys).sum() == 0
    told = [{"response": "The answer is 12.", "reference": "12"}, {"response": "The answer is 13.", "reference": "12"}]
    assert warned.accepts(told).tolist() == ExactRules().accepts(told).tolist() == [1.0, 0.0]


def test_a_policy_goes_where_it_is_paid() -> None:
    train, _, test = rows_of(SIZE, 3)
    assert climbed(WordVerifier(train), test, SIZE, 3) < 0.1 < 0.9 < climbed(ExactRules(), test, SIZE, 3)


def test_a_small_run_has_every_arm() -> None:
    result = run((1, 2), size=replace(SIZE, steps=5))
    assert len(result.arms) == 4 and len(result.checks) == 9
    assert result.verdict in ("inconclusive", "fails"), "two seeds cannot hold"
    assert result.effect.value > 0.5 > result.control


@pytest.mark.slow
def test_full_claim() -> None:
    assert run((11, 12, 13)).verdict == "holds"
