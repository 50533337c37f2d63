"""Accuracy beside balanced accuracy, F1, and what a constant would score."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.class_scores import class_scores, merge_levels


def test_a_constant_has_the_accuracy_of_its_class_and_nothing_else() -> None:
    labels = np.repeat([1, 0], [90, 10])
    found = class_scores(labels, np.ones(100, int), 2)
    assert found.acc.value == found.majority_acc == 0.9
    assert found.balanced_acc == 0.5 and found.macro_f1 == pytest.approx(0.9 / 1.9)
    assert found.predicted == (0.0, 1.0) and found.n == 100
    assert found.acc.low < 0.9 < found.acc.high


def test_three_classes() -> None:
    found = class_scores([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0], 3)
    assert found.acc.value == pytest.approx(4 / 6) and found.balanced_acc == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert found.macro_f1 == pytest.approx((0.5 + 0.8 + 2 / 3) / 3)


def test_the_majority_is_the_training_set_s() -> None:
    found = class_scores([0, 1, 1], [1, 1, 1], 2, training_labels=[0, 0, 1])
    assert found.majority_acc == pytest.approx(1 / 3) and found.acc.value == pytest.approx(2 / 3)


def test_a_class_without_labels_counts_in_no_mean() -> None:
    assert class_scores([0, 1], [0, 2], 3).balanced_acc == 0.5


@pytest.mark.parametrize("labels, said", [([], [0]), ([0, 3], [0, 0]), ([0.5], [0]), ([0, 1], [0])])
def test_what_is_no_class(labels: list[float], said: list[int]) -> None:
    with pytest.raises(GuerdonError):
        class_scores(labels, said, 2)


def test_levels_merge_at_the_cuts() -> None:
    assert merge_levels([0, 1, 2, 3, 4], [1, 3]).tolist() == [0, 1, 1, 2, 2]
    assert merge_levels([0, 1, 2, 3], [1]).tolist() == [0, 1, 1, 1]
    for cuts in ([3, 1], []):
        with pytest.raises(GuerdonError, match="grow"):
            merge_levels([0], cuts)
