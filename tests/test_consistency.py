"""Consistency on contrast pairs: the inequalities, ties, and the judges of the card."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.consistency import consistency, consistency_by_task


def test_the_four_inequalities_by_hand() -> None:
    scores = np.array(
        [
            [[2.0, 1.0], [1.0, 2.0]],  # all hold
            [[2.0, 1.0], [3.0, 4.0]],  # s00 > s01 only, from the first side
            [[2.0, 3.0], [1.0, 4.0]],  # s00 > s10 only
            [[2.0, 1.0], [1.0, 0.0]],  # both from the first side, none from the second
        ]
    )
    found = consistency(scores)
    assert (found.c_res.value, found.c_ins.value, found.joint.value) == (0.75, 0.75, 0.25)
    assert (found.ties_res, found.ties_ins, found.rows) == (0.0, 0.0, 4)
    both = consistency(scores, symmetric=True)
    # The second side wins s11 > s10 in the first three rows, s11 > s01 in the first three too.
    assert (both.c_res.value, both.c_ins.value, both.joint.value) == (0.75, 0.75, 0.25)


def test_a_constant_judge_wins_nothing_and_ties_everything() -> None:
    found = consistency(np.full((7, 2, 2), 3.0))
    assert found.c_res.value == found.c_ins.value == found.joint.value == 0
    assert found.ties_res == found.ties_ins == 1


def test_a_judge_that_does_not_read_the_instruction() -> None:
    answers = np.random.default_rng(0).normal(size=(400, 1, 2))
    blind = np.repeat(answers, 2, axis=1)
    found = consistency(blind, symmetric=True)
    assert found.c_ins.value == 0 and found.ties_ins == 1 and found.joint.value == 0
    assert found.c_res.value == 0.5 and found.ties_res == 0
    one_side = consistency(blind)
    assert one_side.c_res.low < 0.5 < one_side.c_res.high


def test_coin_tosses_have_a_half_a_half_and_a_sixth() -> None:
    found = consistency(np.random.default_rng(1).normal(size=(20_000, 2, 2)))
    assert found.c_res.value == pytest.approx(1 / 2, abs=0.02) and found.c_ins.value == pytest.approx(1 / 2, abs=0.02)
    # Both right ones are the two largest of four: 1 of 6 choices.
    assert found.joint.value == pytest.approx(1 / 6, abs=0.02)


def test_intervals_resample_groups() -> None:
    rng = np.random.default_rng(2)
    right = np.repeat(rng.random(20) < 0.5, 50)
    scores = np.zeros((1000, 2, 2))
    scores[:, 0, 0] = np.where(right, 1.0, -1.0)
    grouped, alone = consistency(scores, np.repeat(np.arange(20), 50)), consistency(scores)
    assert grouped.c_res.value == alone.c_res.value
    assert grouped.c_res.high - grouped.c_res.low > 3 * (alone.c_res.high - alone.c_res.low)


def test_by_task() -> None:
    good, bad = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]
    found = consistency_by_task([good, bad, good], ["wmt", "sum", "wmt"], ["a", "b", "c"])
    assert list(found) == ["wmt", "sum"]
    assert found["wmt"].joint.value == 1 and found["sum"].c_res.value == 0 and found["wmt"].rows == 2
    with pytest.raises(GuerdonError, match="as many task names"):
        consistency_by_task([good], ["a", "b"])


@pytest.mark.parametrize("scores", [np.zeros((0, 2, 2)), np.zeros((3, 2)), np.zeros((3, 2, 3))])
def test_refuses_other_shapes(scores: np.ndarray) -> None:
    with pytest.raises(GuerdonError, match=r"\[P, 2, 2\]"):
        consistency(scores)


def test_refuses_nan() -> None:
    scores = np.zeros((3, 2, 2))
    scores[1, 0, 1] = np.nan
    with pytest.raises(GuerdonError, match="pair 1 has a score that is nan"):
        consistency(scores)
