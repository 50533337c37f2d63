"""The replay term: the card's number, the sum that grows with the batch, and who gets the gradient."""

from __future__ import annotations

import pytest
import torch

from guerdon.objectives.replay_anchor import replay_anchor


def test_two_items_as_published() -> None:
    reference = torch.tensor([1.0, 2.0])
    drifted = reference + torch.tensor([0.1, -0.2])
    assert replay_anchor(drifted, reference).item() == pytest.approx(0.0005, abs=1e-8)
    assert replay_anchor(reference, reference).item() == 0.0


def test_the_sum_grows_with_the_texts_and_the_mean_does_not() -> None:
    reference, drift = torch.zeros(4), torch.full((4,), 0.5)
    for count in (1, 4):
        assert replay_anchor(drift[:count], reference[:count]).item() == pytest.approx(0.01 * 0.25 * count)
        found = replay_anchor(drift[:count], reference[:count], reduce="mean")
        assert found.item() == pytest.approx(0.01 * 0.25)


def test_the_reference_is_a_constant() -> None:
    rewards = torch.tensor([1.0], requires_grad=True)
    reference = torch.tensor([0.0], requires_grad=True)
    replay_anchor(rewards, reference, coefficient=0.5).backward()
    assert rewards.grad is not None and rewards.grad.item() == pytest.approx(1.0) and reference.grad is None


def test_half_precision_is_summed_in_float32() -> None:
    rewards = torch.full((512,), 0.5, dtype=torch.bfloat16)
    found = replay_anchor(rewards, torch.zeros_like(rewards), coefficient=1.0)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(128.0)


@pytest.mark.parametrize(
    "first, second, options, said",
    [
        (torch.zeros(2), torch.zeros(3), {}, "shape"),
        (torch.zeros(0), torch.zeros(0), {}, "empty"),
        (torch.zeros(1), torch.zeros(1), {"coefficient": -1}, "coefficient"),
        (torch.zeros(1), torch.zeros(1), {"reduce": "none"}, "reduce"),
    ],
)
def test_refusals(first: torch.Tensor, second: torch.Tensor, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replay_anchor(first, second, **options)
