"""The claim on Co-Reward: votes, advantages, a small run, and the whole of it (slow)."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.claims.co_reward import INDEPENDENT, Size, advantages, first_mode, quick, run, train
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


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 9 and len(result.checks) == 5
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")


@pytest.mark.slow
def test_full_claim() -> None:
    assert run((11, 12, 13)).verdict == "holds"
