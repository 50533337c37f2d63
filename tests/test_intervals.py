from __future__ import annotations

import math

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap, bootstrap_mean, bootstrap_two_sample, paired_difference


def test_width_matches_the_binomial_of_realbench() -> None:
    # The card: 1,041 prompts at 50% give a half-width of 1.96 sqrt(.25 / 1041) = 3.0 points.
    values = np.arange(1041) % 2
    found = bootstrap_mean(values, resamples=3000)
    assert found.value == pytest.approx(520 / 1041)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 1041), rel=0.07)


def test_whole_prompts_are_resampled() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 20)
    prompts = np.repeat(np.arange(50), 20)
    rows, clusters = bootstrap_mean(values), bootstrap_mean(values, groups=prompts)
    # Twenty copies of a number are one observation: the honest interval is sqrt(20) wider.
    assert (clusters.high - clusters.low) / (rows.high - rows.low) == pytest.approx(math.sqrt(20), rel=0.15)


def test_general_statistic_agrees_with_the_mean_and_is_deterministic() -> None:
    values = np.random.default_rng(1).normal(size=80)
    groups = np.array([f"prompt {i % 20}" for i in range(80)])
    general = bootstrap(lambda rows: float(values[rows].mean()), 80, groups=groups, resamples=2000)
    special = bootstrap_mean(values, groups=groups, resamples=2000)
    assert (general.low, general.high) == pytest.approx((special.low, special.high), abs=1e-9)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_unequal_groups_weigh_by_their_rows() -> None:
    found = bootstrap_mean([1.0, 1.0, 1.0, 0.0], groups=[0, 0, 0, 1])
    assert (found.value, found.low, found.high) == (0.75, 0.0, 1.0)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [bootstrap_mean(rng.exponential(size=60), resamples=300, level=0.9, seed=s) for s in range(150)]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in found])
    assert 0.8 < covered < 0.97


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(size=200)
    first, second = easy + 0.1 + 0.05 * rng.normal(size=200), easy
    found = paired_difference(first, second)
    assert found.low > 0.05 and found.high < 0.15
    assert bootstrap_mean(first).high - bootstrap_mean(first).low > 5 * (found.high - found.low)


def test_two_unpaired_samples_add_their_variances() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 1, 400), np.repeat(rng.normal(0, 1, 100), 4)
    found = bootstrap_two_sample(
        lambda i, j: float(a[i].mean() - b[j].mean()), (400, 400), groups=(None, np.arange(400) // 4), resamples=800
    )
    assert found.value == pytest.approx(a.mean() - b.mean())
    expected = 1.96 * math.sqrt(a.var() / 400 + b.var() / 100)  # b holds 100 observations, not 400
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)


def test_text_and_errors() -> None:
    assert str(Interval(0.5, 0.4, 0.61)) == "0.500 [0.400, 0.610]"
    with pytest.raises(GuerdonError, match="without nan"):
        bootstrap_mean([0.1, float("nan")])
    with pytest.raises(GuerdonError, match="non-empty"):
        bootstrap_mean([])
    with pytest.raises(GuerdonError, match="each of the 2 rows"):
        bootstrap_mean([0.1, 0.2], groups=[1])
    with pytest.raises(GuerdonError, match="differ in shape"):
        paired_difference([0.1], [0.1, 0.2])
    with pytest.raises(GuerdonError, match=r"level must lie in \(0, 1\)"):
        bootstrap_mean([0.1], level=95)
