"""The claim on Co-Reward: votes, advantages, a small run, and the whole of it (slow)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guerdon.claims.co_reward import (
    INDEPENDENT,
    FormSize,
    Size,
    advantages,
    climbed,
    first_mode,
    forms,
    learnt,
    quick,
    run,
    train,
)
from guerdon.metrics.majority_vote import majority_vote


def test_votes_are_those_of_majority_vote() -> None:
    answers = np.random.default_rng(0).integers(4, size=(50, 8))
    expected = [int(majority_vote([str(one) for one in row]).label) for row in answers]
    assert first_mode(answers, 4).tolist() == expected
    assert first_mode(np.array([[2, 1, 1, 2]]), 4).tolist() == [2]


def test_advantages_of_a_group() -> None:
    np.testing.assert_allclose(advantages(np.array([0.0, 0, 1, 0])), [-0.5, -0.5, 1.5, -0.5], atol=1e-5)
    assert (advantages(np.zeros((2, 4))) == 0).all() and (advantages(np.ones((2, 4))) == 0).all()


def test_the_truth_is_learnt() -> None:
    found = train(INDEPENDENT, "truth", Size(questions=60, updates=60), 1)
    assert found["after"] > 0.9 > found["before"] and found["labels"] == 1.0


def test_two_forms_of_a_sum_err_apart_or_together() -> None:
    size = FormSize(modulus=5)
    for shared in (False, True):
        made = forms(size, 1, shared=shared)
        np.testing.assert_allclose(made.taught.sum(-1), 1.0, rtol=1e-6)
        first, second = made.asked[0], made.asked[1]
        assert (first[:, 0] == second[:, 2]).all() and (first[:, 2] == second[:, 1]).all()
        assert ((first[:, 0] + first[:, 2]) % 5 == made.right).all()
        given = made.taught.gather(-1, made.right.expand(2, -1)[..., None])[..., 0]
        assert ((made.taught > 0).sum(-1) == 2).all() and ((given > 0.5) == (given >= made.taught.amax(-1))).all()
        assert bool((made.taught[0] == made.taught[1]).all()) == shared


def test_a_transformer_learns_what_it_is_taught_and_climbs_the_truth() -> None:
    size = replace(FormSize(), modulus=5, hidden=32, steps=200, updates=60, climbing_rate=1e-3)
    made = forms(size, 1)
    model = learnt(made, size, 1)
    found = climbed(model, made, "truth", size, 1)
    taught = float(made.taught.gather(-1, made.right.expand(2, -1)[..., None]).mean())
    assert found["before"] == pytest.approx(taught, abs=0.05) and found["after"] > 0.95 and found["labels"] == 1.0


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 15 and len(result.checks) == 8
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")


@pytest.mark.slow
def test_full_claim() -> None:
    assert run((11, 12, 13)).verdict == "holds"
