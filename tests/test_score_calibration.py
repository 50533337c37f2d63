"""Calibrators of one vocabulary, ranks that survive ties, and the pooled view of a reward."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from guerdon.core.errors import GuerdonError
from guerdon.metrics.average_precision import average_precision
from guerdon.metrics.calibration import expected_calibration_error
from guerdon.metrics.score_calibration import (
    CALIBRATORS,
    BayesianBinning,
    Beta,
    Histogram,
    Isotonic,
    PerGroup,
    Platt,
    Temperature,
    calibrator,
    group_calibration_error,
    pooled_ranking,
    rank_kept,
)


def distorted(seed: int, rows: int = 4000, slope: float = 2.0, offset: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log-odds are ``slope`` times the true ones plus ``offset``."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 1.5, rows)
    return expit(slope * odds + offset), rng.random(rows) < expit(odds)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_every_calibrator_lowers_the_error_on_other_rows(name: str) -> None:
    fit, (score, right) = distorted(0, 20_000), distorted(1, 20_000)
    prob = calibrator(name).fit(*fit).predict(score)
    assert prob.shape == score.shape and prob.min() >= 0 and prob.max() <= 1
    before, after = (expected_calibration_error(p, right, 20) for p in (score, prob))
    # A temperature alone cannot take an offset away.
    assert after < (0.9 if name == "temperature" else 0.25) * before


@pytest.mark.parametrize(
    "name", [name for name in CALIBRATORS if name not in ("histogram", "bbq", "bbq-aic", "bbq-bic")]
)
@pytest.mark.parametrize("turned", [False, True])
def test_maps_never_turn_the_ranking(name: str, turned: bool) -> None:
    score, right = distorted(2)
    prob = calibrator(name).fit(score, ~right if turned else right).predict(np.linspace(0, 1, 200))
    assert (np.diff(prob) >= -1e-12).all()


def test_histogram_by_hand() -> None:
    made = Histogram(2).fit([0.1, 0.2, 0.5, 0.9], [0, 1, 0, 1])
    assert made.predict([0.0, 0.5, 0.51, 1.0]).tolist() == [1 / 3, 1 / 3, 1, 1]
    assert Histogram(4).fit([0.1], [1]).predict([0.1, 0.3, 0.9]).tolist() == [1, 0.375, 0.875]


def test_isotonic_by_hand() -> None:
    made = Isotonic().fit([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
    assert made.predict([0.0, 0.2, 0.3, 0.9]).tolist() == [0, 0.5, 0.5, 1]


def test_platt_beta_and_temperature_find_the_map_that_was_used() -> None:
    score, right = distorted(3, rows=100_000)
    odds = np.array([-3.0, -1, 0, 2])
    seen, true = expit(2 * odds + 1), expit(odds)
    assert Platt().fit(score, right).predict(seen) == pytest.approx(true, abs=0.02)
    assert Beta().fit(score, right).predict(seen) == pytest.approx(true, abs=0.03)
    score, right = distorted(3, rows=100_000, slope=3, offset=0)
    assert Temperature().fit(score, right).predict(expit(3 * odds)) == pytest.approx(true, abs=0.02)


def test_platt_is_logistic_regression_on_the_log_odds() -> None:
    score, right = distorted(4, rows=3000)
    theirs = LogisticRegression(C=1e9, tol=1e-8).fit(logit(score)[:, None], right)
    ours = Platt().fit(score, right)
    # Labels drawn in by Platt's counts differ by about 1 / 3000.
    assert ours.predict(score) == pytest.approx(theirs.predict_proba(logit(score)[:, None])[:, 1], abs=2e-3)


def test_scores_of_one_and_zero_and_perfect_separation_stay_finite() -> None:
    for name in CALIBRATORS:
        made = calibrator(name).fit([0.0, 0.1, 0.9, 1.0], [0, 0, 1, 1])
        prob = made.predict([0.0, 0.5, 1.0])
        assert np.isfinite(prob).all() and prob[0] < prob[2]


def test_bayesian_binning_by_hand() -> None:
    """Two rows allow one or two bins: their evidence, by the Beta-Binomial formula."""
    made = BayesianBinning().fit([0.2, 0.8], [0, 1])
    # One bin: prior Beta(1, 1), evidence 1! 1! / 3! = 1/6. Two: Beta(a, 1 - a), a = 0.25 and 0.75, each 0.75.
    weights = np.array([1 / 6, 0.75**2])
    low = np.array([0.5, 0.25 / 2]) @ weights / weights.sum()
    assert made.predict([0.1, 0.9]) == pytest.approx([low, 1 - low])
    for criterion in ("aic", "bic"):
        other = BayesianBinning(criterion).fit(*distorted(0)).predict([0.2, 0.5, 0.9])  # type: ignore[arg-type]
        assert (np.diff(other) > 0).all()


def test_equal_scores_share_a_bin() -> None:
    made = BayesianBinning().fit([0.5] * 50, [0, 1] * 25)
    assert made.predict([0.5]) == pytest.approx([0.5])


def test_groups_have_their_own_maps_and_fall_back() -> None:
    score = np.tile([0.2, 0.8], 60)
    group = np.repeat([3, 5, 9], 40)
    right = np.where(group == 3, score > 0.5, np.where(group == 5, score < 0.5, False))
    asked, of = np.tile([0.2, 0.8], 4), np.repeat([3, 5, 9, 7], 2)
    zero = PerGroup("histogram").fit(score, right, group).predict(asked, of)
    # Group 9 never had anything right, group 7 was never seen.
    assert zero.tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    keep = PerGroup("histogram", fallback="keep").fit(score, right, group).predict(asked, of)
    assert keep.tolist() == [0, 1, 1, 0, 0.2, 0.8, 0.2, 0.8]
    parents = {3: 0, 5: 1, 9: 0, 7: 2}
    borrow = PerGroup("histogram", fallback="borrow", parents=parents).fit(score, right, group).predict(asked, of)
    # 3 and 9 together: half of the high scores are right. Nobody is like 7.
    assert borrow.tolist() == [0, 1, 1, 0, 0, 0.5, 0.2, 0.8]


def test_rank_kept_survives_where_a_small_number_would_vanish() -> None:
    calibrated, score = np.array([0.9, 0.9, 0.9, 0.1]), np.array([0.5, 0.7, 0.5, 0.99])
    assert rank_kept(calibrated, score).tolist() == [1, 2, 1, 0]
    assert 0.9 + 1e-17 == 0.9  # what adding offsets comes to
    assert rank_kept([], []).tolist() == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40))
def test_a_steps_map_with_its_ranks_leaves_ap_alone(rows: list) -> None:
    score, right = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if not right.any():
        return
    steps = Isotonic().fit(score, right).predict(score)
    before, after = (average_precision(order, right, int(right.sum())) for order in (score, rank_kept(steps, score)))
    assert before == after


def test_group_error_is_the_mean_over_groups() -> None:
    prob, right, group = [0.5, 0.5, 0.9, 0.9], [1, 0, 1, 1], [0, 0, 4, 4]
    assert group_calibration_error(prob, right, group) == pytest.approx(0.05)
    assert expected_calibration_error(prob, right, 20) == pytest.approx(0.05)
    assert group_calibration_error([0.5] * 3, [1, 1, 0], [0, 1, 1]) == pytest.approx(0.25)


def test_pooled_view_by_hand() -> None:
    """Two prompts, each ranked right; the second one's scores are all higher."""
    view = pooled_ranking([0.2, 0.1, 0.9, 0.8], [1, 0, 1, 0], ["a", "a", "b", "b"])
    assert view.within == 1 and view.across == 0.5 and view.gap == 0.5
    assert view.group_ap == pytest.approx(1) and view.pooled_ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert (view.groups, view.mixed) == (2, 2)
    level = pooled_ranking([0.2, 0.1, 0.2, 0.1], [1, 0, 1, 0], [0, 0, 1, 1])
    assert level.gap == 0 and level.pooled_ap == pytest.approx(1)


def test_pooled_view_splits_all_pairs() -> None:
    rng = np.random.default_rng(0)
    group, right = rng.integers(6, size=200), rng.random(200) < 0.4
    score = rng.normal(right, 1).round(1)
    view = pooled_ranking(score, right, group)
    same = group[:, None] == group[None]
    pairs = right[:, None] & ~right[None]
    won = (score[:, None] > score[None]) + 0.5 * (score[:, None] == score[None])
    assert view.within == pytest.approx(won[pairs & same].mean()) and view.across == pytest.approx(
        won[pairs & ~same].mean()
    )
    share = (pairs & same).sum() / pairs.sum()
    assert share * view.within + (1 - share) * view.across == pytest.approx(roc_auc_score(right, score))


def test_shifting_a_prompt_changes_only_what_lies_across() -> None:
    rng = np.random.default_rng(1)
    group, right = np.repeat(np.arange(20), 8), rng.random(160) < 0.5
    score = rng.normal(right, 1)
    one, other = (pooled_ranking(s, right, group) for s in (score, score + 3 * rng.normal(size=20)[group]))
    assert one.within == other.within and one.group_ap == other.group_ap
    assert other.across < one.across - 0.1 and other.pooled_ap < one.pooled_ap - 0.05


def test_pooled_view_of_what_cannot_be_said() -> None:
    alone = pooled_ranking([0.5, 0.1], [1, 0], [0, 1])
    assert np.isnan(alone.within) and np.isnan(alone.group_ap) and alone.across == 1 and alone.mixed == 0
    same = pooled_ranking([0.5, 0.1], [1, 0], [0, 0])
    assert same.within == 1 and np.isnan(same.across)
    assert np.isnan(pooled_ranking([0.5], [0], [0]).pooled_ap)


def test_errors() -> None:
    with pytest.raises(GuerdonError, match="did you mean 'isotonic'"):
        calibrator("isotonc")
    with pytest.raises(GuerdonError, match="did you mean 'platt'"):
        PerGroup("plat")
    with pytest.raises(GuerdonError, match="fallback"):
        PerGroup("platt", fallback="nil")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="needs parents"):
        PerGroup("platt", fallback="borrow")
    with pytest.raises(GuerdonError, match=r"must lie in \[0, 1\] to be calibrated; got 1.5 at 1"):
        Platt().fit([0.5, 1.5], [0, 1])
    with pytest.raises(GuerdonError, match="labels must be 0 or 1"):
        Isotonic().fit([0.5], [0.5])
    with pytest.raises(GuerdonError, match="same non-empty"):
        Isotonic().fit([], [])
    with pytest.raises(GuerdonError, match="whole number for each"):
        PerGroup("platt").fit([0.5], [1], ["a"])
    with pytest.raises(GuerdonError, match="bins"):
        Histogram(0)
    with pytest.raises(GuerdonError, match="criterion"):
        BayesianBinning("bics")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="calibrated and score"):
        rank_kept([1], [1, 2])
    with pytest.raises(GuerdonError, match="score 0 is nan"):
        pooled_ranking([np.nan], [1], [0])
    with pytest.raises(GuerdonError, match="correct must hold 0 or 1"):
        pooled_ranking([0.5], [0.5], [0])
    with pytest.raises(GuerdonError, match="same non-empty|one non-empty"):
        pooled_ranking([], [], [])
