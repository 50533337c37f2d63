"""Thresholds at a false-positive rate, and the AUROC of many generators against the same human texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection import auroc, tpr_at_fpr
from guerdon.metrics.text_detection import ScoredTexts, mean_auroc, threshold_at_fpr

score = st.integers(-5, 5).map(float)


@settings(max_examples=80, deadline=None)
@given(st.lists(score, min_size=1, max_size=30), st.lists(score, min_size=1, max_size=30), st.floats(0, 1))
def test_the_threshold_keeps_its_rate_and_flags_as_many_as_any_may(
    human: list[float], generated: list[float], fpr: float
) -> None:
    threshold = threshold_at_fpr(human, fpr)
    assert (np.array(human) > threshold).mean() <= fpr + 1e-9
    assert (np.array(generated) > threshold).mean() == tpr_at_fpr(generated, human, fpr=fpr)


def test_thresholds_by_hand() -> None:
    human = np.arange(100.0)
    assert threshold_at_fpr(human, 0.01) == 98.0 and threshold_at_fpr(human, 0.07) == 92.0
    assert threshold_at_fpr(human[:50], 0.01) == 49.0 and threshold_at_fpr(human, 1.0) == -math.inf
    with pytest.raises(GuerdonError, match="nan"):
        threshold_at_fpr([1.0, math.nan])
    with pytest.raises(GuerdonError, match="fpr"):
        threshold_at_fpr([1.0], 2.0)


def scored(generated: list[float], human: list[float], groups: list[str]) -> ScoredTexts:
    return ScoredTexts(np.array(generated, dtype=float), np.array(human, dtype=float), np.array(groups))


def test_the_mean_over_generators() -> None:
    one = scored([2, 3], [1, 1], ["a", "b"])
    other = scored([0, 1], [1, 1], ["a", "b"])
    found = mean_auroc([one, other], resamples=50)
    assert found.value == pytest.approx((1.0 + 0.25) / 2) and found.low <= found.value <= found.high
    difference = mean_auroc([one], [other], resamples=50)
    assert difference.value == pytest.approx(0.75)


def test_a_text_without_a_score_is_left_out_alone() -> None:
    holed = scored([2, math.nan, 3], [math.nan, 1, 1], ["a", "b", "c"])
    assert holed.auroc() == auroc([2, 3], [1, 1])
    assert math.isnan(scored([math.nan], [1], ["a"]).auroc())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(score, score, st.integers(0, 3)), min_size=2, max_size=12), st.integers(0, 99))
def test_weights_stand_for_repeated_rows(rows: list[tuple[float, float, int]], seed: int) -> None:
    generated, human, groups = (np.array(column) for column in zip(*rows))
    generated[0] = np.nan
    names, places = np.unique(groups, return_inverse=True)
    weights = np.random.default_rng(seed).integers(0, 3, size=(5, len(names))).astype(float)
    found = scored(list(generated), list(human), [str(group) for group in groups]).resampled(weights, places)
    for row, weight in zip(found, weights):
        repeated = np.repeat(np.arange(len(rows)), weight[places].astype(int))
        positive = generated[repeated][~np.isnan(generated[repeated])]
        if positive.size and repeated.size:
            assert row == pytest.approx(auroc(positive, human[repeated]))
        else:
            assert math.isnan(row)


def test_shared_human_texts_do_not_narrow_the_interval() -> None:
    """Five copies of one generator say no more than one; taken for independent ones they would narrow the interval."""
    rng = np.random.default_rng(0)
    human, generated = rng.standard_normal(60), rng.standard_normal(60) + 0.7
    groups = [f"text {row:02d}" for row in range(60)]
    single = mean_auroc([scored(list(generated), list(human), groups)], resamples=300)
    five = mean_auroc([scored(list(generated), list(human), groups)] * 5, resamples=300)
    assert five.value == pytest.approx(single.value)
    assert five.high - five.low == pytest.approx(single.high - single.low, rel=0.05)
    apart = [scored(list(generated), list(human), [f"{n} {name}" for name in groups]) for n in range(5)]
    loose = mean_auroc(apart, resamples=300)
    assert loose.high - loose.low < 0.7 * (five.high - five.low)


def test_refusals() -> None:
    with pytest.raises(GuerdonError, match="one length"):
        scored([1], [1, 2], ["a", "b"])
    with pytest.raises(GuerdonError, match="sets of scores"):
        mean_auroc([])
