"""Noise on rewards: the four kinds, the closed form of what an advantage keeps, calibration, and the rates of error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.reward_noise import noise_rates, reward_statistics
from guerdon.objectives.advantages import group_advantages
from guerdon.objectives.reward_noise import calibrated, expected_reward, noisy_rewards

EARNED = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def advantages(rewards: np.ndarray) -> np.ndarray:
    ids = torch.zeros(len(rewards), dtype=torch.int64)
    return group_advantages(torch.from_numpy(rewards), ids, eps=1e-6, unbiased=True).numpy()


def test_a_flipped_group_has_the_exact_negative_of_its_advantages() -> None:
    clean = advantages(np.asarray(EARNED))
    np.testing.assert_allclose(clean[:2], [1.6202, -0.5401], atol=1e-4)
    turned = advantages(noisy_rewards(EARNED, [True] * 8))
    np.testing.assert_array_equal(turned, -clean)


@given(st.floats(0, 1), st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8))
def test_the_expected_advantage_shrinks_by_one_less_two_p(p: float, earned: list[float]) -> None:
    clean = advantages(np.asarray(earned))
    expected = (1 - p) * clean + p * advantages(noisy_rewards(earned, [True] * len(earned)))
    np.testing.assert_allclose(expected, (1 - 2 * p) * clean, atol=1e-5)
    means = expected_reward(earned, p)
    np.testing.assert_allclose(means, (1 - 2 * p) * np.asarray(earned) + p)


def test_kinds() -> None:
    struck = np.array([True, True, False, False])
    earned = [1.0, 0.0, 1.0, 0.0]
    assert noisy_rewards(earned, struck).tolist() == [0, 1, 1, 0]
    assert noisy_rewards(earned, struck, kind="fn").tolist() == [0, 0, 1, 0]
    assert noisy_rewards(earned, struck, kind="fp").tolist() == [1, 1, 1, 0]
    assert noisy_rewards(earned, [0.5, -0.5, 0, 0], kind="gaussian").tolist() == [1.5, -0.5, 1, 0]
    assert noisy_rewards([-1.0, 0.5], [True, True], bounds=(-1, 1)).tolist() == [1.0, -0.5]


@pytest.mark.parametrize(
    ("rewards", "draws", "options", "words"),
    [
        ([1.0], [True], {"kind": "flop"}, "kind must be one of"),
        ([1.0], [True, False], {}, r"must both be \[N\]"),
        ([2.0], [True], {}, "outside"),
        ([1.0], [1.0], {}, "must be bool"),
        ([1.0], [True], {"bounds": (1.0, 1.0)}, "low < high"),
    ],
)
def test_bad_input_is_named(rewards: list, draws: list, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        noisy_rewards(rewards, draws, **options)
    with pytest.raises(ValueError, match="probability"):
        expected_reward([1.0], 1.5)


def test_calibration_tops_up_low_scores_only() -> None:
    found = calibrated([0.3, 0.5, 0.49, 0.0], [0.4, 0.4, 1.0, 0.0])
    np.testing.assert_allclose(found, [0.34, 0.5, 0.59, 0.0])
    assert calibrated([0.4], [1.0], alpha=1.0).tolist() == [1.0]
    assert calibrated([0.4], [1.0], alpha=1.0, cap=None).tolist() == [1.4]
    with pytest.raises(ValueError, match="one shape"):
        calibrated([0.1, 0.2], [1.0])


def test_rates_are_exact() -> None:
    rates = noise_rates([1, 1, 0, 0, 0], [0, 1, 1, 0, 0])
    assert (rates.samples, rates.changed) == (5, 0.4)
    assert rates.false_negatives == 0.5 and rates.false_positives == pytest.approx(1 / 3)
    assert math.isnan(noise_rates([0.0], [0.0]).false_negatives)
    for wrong in ([0.0], [[0.0, 1.0]], [math.nan, 1.0]):
        with pytest.raises(GuerdonError):
            noise_rates([0.0, 1.0], wrong)


def test_statistics_of_a_reward_model() -> None:
    found = reward_statistics([0.9, 0.45, 0.1, 0.55], [1, 1, 0, 0])
    assert found.accuracy == 0.5 and found.near == 0.5
    assert found.variance == pytest.approx(np.var([0.9, 0.45, 0.1, 0.55]))
    assert (found.rates.false_negatives, found.rates.false_positives) == (0.5, 0.5)
    with pytest.raises(GuerdonError, match="negative"):
        reward_statistics([0.5], [1], margin=-1)
