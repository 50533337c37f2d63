"""MetaRM's difference loss: the card's figure, its bounds, and what it must not be read as."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from guerdon.objectives.meta_reward import bounds, difference_loss, spread_ratio

responses = st.lists(st.floats(-8, 8), min_size=2, max_size=6).map(lambda row: torch.tensor(row, dtype=torch.float64))


def test_the_card() -> None:
    assert difference_loss(torch.tensor([0.0, 1.0, 3.0])).item() == pytest.approx(0.56987, abs=1e-5)
    assert bounds(3) == pytest.approx((1 / 3, 2 / 3))


@pytest.mark.parametrize("k", [2, 3, 8])
def test_bounds_are_reached(k: int) -> None:
    low, high = bounds(k)
    assert difference_loss(torch.full((4, k), 2.5)).item() == pytest.approx(low, rel=1e-6)
    assert difference_loss(1000.0 * torch.arange(k)).item() == pytest.approx(high, rel=1e-6)


@settings(deadline=None)
@given(responses, st.floats(-5, 5), st.randoms(use_true_random=False))
def test_order_and_offset_do_not_matter(rewards: Tensor, shift: float, random) -> None:
    low, high = bounds(len(rewards))
    found = difference_loss(rewards)
    assert low - 1e-9 <= found <= high + 1e-9
    order = list(range(len(rewards)))
    random.shuffle(order)
    assert_close(found, difference_loss(rewards[order] + shift))


@settings(deadline=None)
@given(responses, st.floats(1, 5))
def test_scale_inflates_it_and_not_the_ratio(rewards: Tensor, scale: float) -> None:
    assert difference_loss(scale * rewards) >= difference_loss(rewards) - 1e-12
    reference = torch.tensor([[0.0, 2.0, 5.0]], dtype=torch.float64)
    assert_close(spread_ratio(scale * rewards, scale * reference), spread_ratio(rewards, reference))


def test_prompts_are_averaged() -> None:
    rewards = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([difference_loss(row) for row in rewards.flatten(0, 1)])
    assert_close(difference_loss(rewards), alone.mean())


def test_gradient() -> None:
    rewards = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(difference_loss, (rewards,))
    tied = torch.zeros(2, 3, requires_grad=True)
    assert torch.autograd.grad(difference_loss(tied), tied)[0].abs().max() == 0
    # Ascent drives responses apart: the best up, the worst down.
    spread = torch.tensor([0.0, 1.0, 3.0], requires_grad=True)
    gradient = torch.autograd.grad(difference_loss(spread), spread)[0]
    assert gradient[0] < 0 < gradient[2]


def test_spread_ratio_by_hand() -> None:
    assert spread_ratio(torch.tensor([0.0, 1.0]), torch.tensor([[0.0, 4.0], [1.0, 1.0]])).item() == 0.5


def test_errors() -> None:
    with pytest.raises(ValueError, match="k >= 2"):
        difference_loss(torch.zeros(4, 1))
    with pytest.raises(ValueError, match="k >= 2"):
        bounds(1)
    with pytest.raises(ValueError, match="empty"):
        difference_loss(torch.zeros(0, 3))
