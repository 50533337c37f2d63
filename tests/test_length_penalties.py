"""Length penalties: the cards' facts, bounds, groups that know no right answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.objectives.length_penalties import efficient_reasoning, group_length_penalty, relative_length


def test_facts_of_self_aligned_reward() -> None:
    assert relative_length(torch.tensor([100, 300])).tolist() == pytest.approx([1.0, -1 / 3], abs=1e-6)
    right = torch.tensor([True, True])
    assert efficient_reasoning(torch.tensor([100, 300]), right).tolist() == pytest.approx([0.4621, -0.4621], abs=1e-4)
    assert efficient_reasoning(torch.tensor([100, 300]), torch.tensor([1, 0])).tolist() == [0, 0]


def test_facts_of_harmo() -> None:
    lengths, scores = torch.tensor([10, 20, 30, 40]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    short = group_length_penalty(lengths, scores, p_max=0.5, side="short")
    assert short.tolist() == pytest.approx([-1 / 3, -1 / 6, 0, 0], abs=1e-6)
    both = group_length_penalty(lengths, scores, p_max=0.5, side="two_sided")
    assert both.tolist() == pytest.approx([-1 / 3, -1 / 6, 0, -1 / 6], abs=1e-6)
    wrong = group_length_penalty(lengths, scores, p_max=0.5, apply_to="incorrect")
    assert wrong.tolist() == pytest.approx([-1 / 3, 0, 0, 0], abs=1e-6)
    assert group_length_penalty(lengths, torch.zeros(4)).tolist() == [0, 0, 0, 0], "no right answer, no penalty"
    middle = group_length_penalty(torch.tensor([10, 20, 60]), torch.ones(3), side="long", reference="median_correct")
    assert middle.tolist() == pytest.approx([0, 0, -0.5])


@given(st.lists(st.tuples(st.integers(0, 500), st.booleans(), st.integers(0, 2)), min_size=1, max_size=12))
def test_groups_do_not_touch_each_other(rows: list[tuple[int, bool, int]]) -> None:
    lengths = torch.tensor([row[0] for row in rows])
    right = torch.tensor([row[1] for row in rows])
    groups = torch.tensor([row[2] for row in rows])
    for function in (
        lambda length, good, ids: relative_length(length, ids),
        lambda length, good, ids: efficient_reasoning(length, good, ids),
        lambda length, good, ids: group_length_penalty(length, good.float(), group_ids=ids),
    ):
        together = function(lengths, right, groups)
        assert bool(torch.isfinite(together).all()) and float(together.abs().max()) <= 1
        for group in groups.unique():
            inside = groups == group
            alone = function(lengths[inside], right[inside], torch.zeros(int(inside.sum()), dtype=torch.long))
            torch.testing.assert_close(together[inside], alone, atol=1e-5, rtol=1e-5)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        relative_length(torch.zeros(0))
    with pytest.raises(ValueError, match="not negative"):
        relative_length(torch.tensor([-1.0]))
    with pytest.raises(ValueError, match="side must be one of"):
        group_length_penalty(torch.ones(2), torch.ones(2), side="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="group_ids"):
        relative_length(torch.ones(2), torch.zeros(3))
    with pytest.raises(ValueError, match="one entry a completion"):
        efficient_reasoning(torch.ones(2), torch.ones(3))
