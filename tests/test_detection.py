from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection import auroc, balanced_accuracy, pass_rate, tpr_at_fpr


def test_by_hand() -> None:
    positive, negative = [0.9, 0.5, 0.4], [0.5, 0.1]
    # Six pairs: 0.9 beats both, 0.5 ties one and beats one, 0.4 loses to one and beats one.
    assert auroc(positive, negative) == pytest.approx((2 + 1.5 + 1) / 6)
    assert balanced_accuracy(positive, negative) == pytest.approx((1 / 3 + 1) / 2)
    assert pass_rate([0.5, 0.51, 0.2, 1.0]) == 0.5
    assert tpr_at_fpr(positive, negative, fpr=0.0) == pytest.approx(1 / 3)
    assert tpr_at_fpr(positive, negative, fpr=0.5) == 1.0
    assert tpr_at_fpr(positive, negative, fpr=1.0) == 1.0


def test_a_blind_detector() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(20_000), rng.random(20_000)
    assert auroc(a, b) == pytest.approx(0.5, abs=0.01)
    assert tpr_at_fpr(a, b) == pytest.approx(0.01, abs=0.004)
    assert auroc(np.zeros(5), np.zeros(7)) == 0.5
    assert tpr_at_fpr(np.zeros(5), np.zeros(7)) == 0.0


def test_share_of_negatives_survives_rounding() -> None:
    negative = np.arange(100) / 100
    for allowed in (7, 29, 57):  # 0.29 * 100 is 28.999999999999996 in binary
        assert tpr_at_fpr([(99 - allowed) / 100 + 0.005], negative, fpr=allowed / 100) == 1.0
        assert tpr_at_fpr([(99 - allowed) / 100], negative, fpr=allowed / 100) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=40),
    st.lists(st.integers(0, 8), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.01, 0.1, 0.5]),
)
def test_agrees_with_scikit_learn_also_under_ties(positive: list[int], negative: list[int], fpr: float) -> None:
    scores, labels = np.array(positive + negative) / 8, np.array([1] * len(positive) + [0] * len(negative))
    above, below = scores[: len(positive)], scores[len(positive) :]
    assert auroc(above, below) == pytest.approx(roc_auc_score(labels, scores))
    assert balanced_accuracy(above, below) == pytest.approx(balanced_accuracy_score(labels, scores > 0.5))
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert tpr_at_fpr(above, below, fpr=fpr) == pytest.approx(true[false <= fpr + 1e-9].max())


def test_wrong_scores_are_refused() -> None:
    with pytest.raises(GuerdonError, match="negative scores hold a nan at index 1"):
        auroc([0.1], [0.2, float("nan")])
    with pytest.raises(GuerdonError, match="positive scores must be a non-empty"):
        tpr_at_fpr([], [0.2])
    with pytest.raises(GuerdonError, match=r"fpr must lie in \[0, 1\]"):
        tpr_at_fpr([0.1], [0.2], fpr=1.5)
