"""Clip and Delta of step scores: the card's facts, the telescoping identities, and what repetition earns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.objectives.step_rewards import clip_steps, delta_steps, reward_to_go, scatter_steps, shape_steps

X = torch.tensor([[0.9, 0.7, 0.95, 0.4]])
ALL = torch.ones(1, 4, dtype=torch.bool)
CLOSE = {"atol": 1e-6, "rtol": 0}


def rows(*scores: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, scores))
    padded = torch.tensor([[*row, *[0.5] * (longest - len(row))] for row in scores])
    mask = torch.tensor([[place < len(row) for place in range(longest)] for row in scores])
    return padded, mask


def test_facts() -> None:
    torch.testing.assert_close(clip_steps(X, 0.8), torch.tensor([[0.0, -0.1, 0.0, -0.4]]), **CLOSE)
    found = delta_steps(X, ALL)
    torch.testing.assert_close(found, torch.tensor([[0.2, -0.25, 0.95, 0.0]]), **CLOSE)
    torch.testing.assert_close(reward_to_go(found, ALL), torch.tensor([[0.9, 0.7, 0.95, 0.0]]), **CLOSE)
    both = shape_steps(X, ALL, mode="clip_delta", eta=0.8)
    torch.testing.assert_close(both.per_step, torch.tensor([[0.1, -0.1, 0.0, 0.0]]), **CLOSE)
    torch.testing.assert_close(reward_to_go(both.per_step, ALL), torch.tensor([[0.0, -0.1, 0.0, 0.0]]), **CLOSE)
    assert both.nonzero_share == 0.5 and both.bound == 0.0 and both.eta.tolist() == pytest.approx([0.8])


def test_rows_end_where_they_end() -> None:
    scores, mask = rows([0.9, 0.7, 0.95, 0.4], [0.6], [0.8, 0.3])
    found = delta_steps(scores, mask)
    torch.testing.assert_close(found[1:], torch.tensor([[0.0, 0, 0, 0], [0.8, 0, 0, 0]]), **CLOSE)
    kept = delta_steps(scores, mask, last_step="keep")
    torch.testing.assert_close(kept[1:], torch.tensor([[0.6, 0, 0, 0], [0.5, 0.3, 0, 0]]), **CLOSE)


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9), min_size=1, max_size=5), st.floats(0, 1))
def test_totals_telescope_and_are_bounded(scores: list[list[float]], eta: float) -> None:
    x, mask = rows(*scores)
    total = reward_to_go(delta_steps(x, mask), mask)
    inner = mask & torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    torch.testing.assert_close(total[inner], x[inner], atol=1e-5, rtol=0)
    assert total[mask & ~inner].abs().max() == 0
    for mode in ("clip", "clip_delta", "delta", "normed"):
        shaped = shape_steps(x, mask, mode=mode, eta=eta)  # type: ignore[arg-type]
        assert float(shaped.per_step.sum(dim=1).max()) <= shaped.bound + 1e-5, mode
        assert float(shaped.per_step[~mask].abs().sum()) == 0
    assert shape_steps(x, mask, mode="none").bound == float("inf")


@pytest.mark.parametrize("mode, slope", [("none", 0.9), ("clip", 0.0), ("delta", 0.0), ("clip_delta", 0.0)])
def test_what_filler_earns(mode: str, slope: float) -> None:
    totals = []
    for times in (0, 5):
        scores, mask = rows([0.9, 0.7, 0.95, *[0.9] * times, 0.4])
        totals.append(float(shape_steps(scores, mask, mode=mode, eta=0.8).per_step.sum()))  # type: ignore[arg-type]
    assert totals[1] - totals[0] == pytest.approx(slope * 5, abs=1e-5)


def test_thresholds_of_a_question() -> None:
    scores, mask = rows([1.0, 0.0], [0.5], [0.2, 0.4])
    shaped = shape_steps(scores, mask, mode="clip", group_ids=torch.tensor([7, 7, 3]))
    assert shaped.eta.tolist() == pytest.approx([0.5, 0.5, 0.3])
    alone = shape_steps(scores, mask, mode="clip")
    assert alone.eta.tolist() == pytest.approx([0.5, 0.5, 0.3])
    half = shape_steps(scores, mask, mode="clip", eta=("quantile", 0.5))
    assert half.eta.tolist() == pytest.approx([0.4] * 3)


def test_steps_on_tokens_add_up() -> None:
    scores, mask = rows([0.5, 0.25, 0.125], [1.0])
    placed = scatter_steps(scores, torch.tensor([[1, 3, 3], [0, 9, 9]]), mask, 5)
    assert placed.tolist() == [[0, 0.5, 0, 0.375, 0], [1.0, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="outside of 3 tokens"):
        scatter_steps(scores, torch.tensor([[1, 3, 3], [0, 9, 9]]), mask, 3)


def test_discounted_return_skips_what_does_not_count() -> None:
    rewards, mask = torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([[1, 0, 1]])
    assert reward_to_go(rewards, mask, gamma=0.5).tolist() == [[2.0, 0.0, 2.0]]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="probabilities"):
        shape_steps(X * 3, ALL)
    with pytest.raises(ValueError, match="gap"):
        shape_steps(X, torch.tensor([[1, 0, 1, 1]]))
    with pytest.raises(ValueError, match="mode must be one of"):
        shape_steps(X, ALL, mode="clamp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eta must lie"):
        shape_steps(X, ALL, eta=1.5)
    with pytest.raises(ValueError, match=r"\[B, K\] alike"):
        delta_steps(X, ALL[:, :3])
