"""Consistency of scores on contrast instructions: the two definitions, ties, symmetry, chance."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.consistency import consistency, consistent

# Right everywhere; only the answer's side of the first; only the instruction's; all but the second's answer; nowhere.
ROWS = np.array(
    [[[2, 0], [1, 3]], [[2, 1], [3, 0]], [[1, 3], [0, 5]], [[2, 0], [1, 0.5]], [[0, 1], [1, 0]]], dtype=float
)


def test_definitions_row_by_row() -> None:
    found = consistent(ROWS)
    assert found["c_res"].tolist() == [1, 1, 0, 1, 0]
    assert found["c_ins"].tolist() == [1, 0, 1, 1, 0]
    assert found["joint"].tolist() == [1, 0, 0, 0, 0]
    both = consistent(ROWS, symmetric=True)
    assert both["c_res"].tolist() == [1, 0.5, 0.5, 0.5, 0] and both["c_ins"].tolist() == [1, 0, 1, 1, 0]


def test_symmetric_is_the_mean_of_both_sides() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (200, 2, 2))
    turned = scores[:, ::-1, ::-1]
    both, first, second = consistent(scores, symmetric=True), consistent(scores), consistent(turned)
    for name in both:
        assert both[name] == pytest.approx((first[name] + second[name]) / 2)
    assert first["joint"].tolist() == second["joint"].tolist()


def test_a_constant_judge_is_never_consistent() -> None:
    found = consistency(np.zeros((7, 2, 2)))
    assert found.c_res.value == found.c_ins.value == found.joint.value == 0
    assert found.res_ties == found.ins_ties == 1 and found.rows == 7


def test_a_judge_that_does_not_read_the_prompt() -> None:
    answers = np.random.default_rng(1).normal(size=(4000, 1, 2))
    blind = np.repeat(answers, 2, axis=1)
    found = consistency(blind)
    assert found.c_ins.value == 0 and found.ins_ties == 1 and found.res_ties == 0
    assert found.c_res.value == pytest.approx(0.5, abs=0.03) and found.joint.value == 0
    # Over both sides exactly one answer is above the other.
    assert consistency(blind, symmetric=True).c_res.value == 0.5


def test_chance() -> None:
    found = consistency(np.random.default_rng(2).normal(size=(20_000, 2, 2)))
    # A standard error is 0.0035; a 95% interval would miss 0.5 for one seed in twenty.
    assert found.c_res.value == pytest.approx(0.5, abs=0.015) and found.c_ins.value == pytest.approx(0.5, abs=0.015)
    assert found.joint.value == pytest.approx(1 / 6, abs=0.01)


def test_tasks_and_groups() -> None:
    rng = np.random.default_rng(3)
    good, bad = np.array([[1.0, 0], [0, 1]]), np.array([[0.0, 1], [1, 0]])
    scores = np.where(rng.random((60, 1, 1)) < 0.7, good, bad).repeat(4, axis=0)
    found = consistency(scores, tasks=["a", "b"] * 120)
    assert list(found.per_task) == ["a", "b"] and found.per_task["a"].rows == 120
    assert found.per_task["a"].c_res.value == found.c_res.value
    grouped = consistency(scores, groups=np.arange(60).repeat(4))
    # Rows said four times tell no more: twice as wide.
    assert 1.6 < (grouped.c_res.high - grouped.c_res.low) / (found.c_res.high - found.c_res.low) < 2.5
    assert grouped.c_res.value == found.c_res.value


@pytest.mark.parametrize("scores", [np.zeros((0, 2, 2)), np.zeros((3, 2)), np.full((1, 2, 2), np.nan)])
def test_what_is_no_quadruple(scores) -> None:
    with pytest.raises(ValueError, match=r"must be \[P, 2, 2\]"):
        consistent(scores)


def test_labels_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="as many tasks, got 1"):
        consistency(ROWS, tasks=["a"])
    with pytest.raises(GuerdonError, match="groups"):
        consistency(ROWS, groups=np.zeros((5, 2)))
