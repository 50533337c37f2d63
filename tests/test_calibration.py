"""Calibration: a table that says whether stated probabilities come true, and its two summaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from guerdon.core.errors import GuerdonError
from guerdon.metrics.calibration import brier, expected_calibration_error, pair_probabilities, reliability
from guerdon.metrics.pair_accuracy import pair_accuracy


def judged(scale: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """(chosen, rejected) scores of a judge whose gaps are ``scale`` times the log-odds that labelled the pairs."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 1.5, rows)
    first = rng.random(rows) < 1 / (1 + np.exp(-odds))
    gap = scale * np.where(first, odds, -odds)
    return gap, np.zeros(rows)


def test_by_hand() -> None:
    prob, outcome = [0.1, 0.15, 0.9, 0.95], [0, 1, 1, 1]
    assert expected_calibration_error(prob, outcome) == pytest.approx((0.1 + 0.85 + 0.1 + 0.05) / 4)
    # Two bins: means 0.125 against 0.5, 0.925 against 1.
    assert expected_calibration_error(prob, outcome, bins=2) == pytest.approx((0.375 + 0.075) / 2)
    assert brier(prob, outcome) == pytest.approx((0.01 + 0.7225 + 0.01 + 0.0025) / 4)


def test_borders_belong_to_the_bin_below() -> None:
    table = reliability([0.0, 0.1, 0.2, 0.2001, 0.5, 1.0], [0, 0, 1, 1, 0, 1], resamples=10)
    assert [(row.low, row.high, row.count) for row in table] == [(0, 0.1, 2), (0.1, 0.2, 1), (0.2, 0.3, 1)] + [
        (0.4, 0.5, 1),
        (0.9, 1.0, 1),
    ]
    assert [row.outcome.value for row in table] == [0, 1, 1, 0, 1]


def test_the_right_judge_is_calibrated_and_a_bold_one_is_not() -> None:
    honest, bold, timid = (pair_probabilities(*judged(scale)) for scale in (1, 3, 0.3))
    assert expected_calibration_error(*honest) < 0.015
    assert expected_calibration_error(*bold) > 0.1 and expected_calibration_error(*timid) > 0.1
    assert brier(*honest) < min(brier(*bold), brier(*timid)) < 0.25
    # All three rank alike.
    assert pair_accuracy(*judged(1)) == pair_accuracy(*judged(3)) == pair_accuracy(*judged(0.3))
    rows = reliability(*honest, resamples=200)
    assert sum(row.count for row in rows) == 20_000 and rows[0].low == 0.5
    inside = [row.outcome.low <= row.prob <= row.outcome.high for row in rows]
    assert sum(inside) >= len(inside) - 1
    assert all(row.outcome.high < row.prob for row in reliability(*bold, resamples=200) if row.prob > 0.6)


def test_the_order_of_stored_pairs_is_not_evidence() -> None:
    """Taking every stored pair as an event that came true would call the right judge badly calibrated."""
    chosen, rejected = judged(1)
    naive = expected_calibration_error(1 / (1 + np.exp(rejected - chosen)), np.ones(20_000))
    assert naive > 0.2 > expected_calibration_error(*pair_probabilities(chosen, rejected))
    # The Brier score is the same either way.
    assert brier(*pair_probabilities(chosen, rejected)) == pytest.approx(
        brier(1 / (1 + np.exp(rejected - chosen)), np.ones(20_000))
    )


def test_ties_say_one_half() -> None:
    prob, outcome = pair_probabilities([1.0, 2.0, 0.0], [1.0, 0.0, 2.0])
    assert prob == pytest.approx([0.5, 0.880797, 0.880797]) and outcome.tolist() == [0.5, 1, 0]
    assert brier([0.5], [0.5]) == 0.25 and expected_calibration_error([0.5], [0.5]) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=2, max_size=30))
def test_properties(rows: list) -> None:
    prob, outcome = np.array(rows).T
    assert brier(prob, outcome) == pytest.approx(brier_score_loss(outcome, prob, pos_label=1))
    assert brier(1 - prob, 1 - outcome) == pytest.approx(brier(prob, outcome))
    error = expected_calibration_error(prob, outcome)
    # Never less than the error of the overall mean: bins only refine it.
    assert abs(prob.mean() - outcome.mean()) - 1e-9 <= error <= 1
    assert expected_calibration_error(prob, outcome, bins=1) == pytest.approx(abs(prob.mean() - outcome.mean()))
    table = reliability(prob, outcome, resamples=1)
    assert error == pytest.approx(sum(row.count * abs(row.prob - row.outcome.value) for row in table) / len(prob))


def test_errors() -> None:
    with pytest.raises(GuerdonError, match=r"prob must lie in \[0, 1\]; got 1.2 at index 1"):
        brier([0.5, 1.2], [1, 1])
    with pytest.raises(GuerdonError, match="outcome must lie"):
        brier([0.5], [float("nan")])
    with pytest.raises(GuerdonError, match="same non-empty"):
        expected_calibration_error([0.5], [1, 0])
    with pytest.raises(GuerdonError, match="bins"):
        reliability([0.5], [1], bins=0)
    with pytest.raises(GuerdonError, match="chosen scores"):
        pair_probabilities([1, 2], [1])
