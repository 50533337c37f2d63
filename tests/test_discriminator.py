from __future__ import annotations

import math

import pytest
import torch

from guerdon.objectives.discriminator import hinge, soft_label_cross_entropy


def test_hinge() -> None:
    assert hinge(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.2])).item() == pytest.approx(0.425, abs=1e-7)
    assert hinge(torch.zeros(3), torch.zeros(5)).item() == 1.0
    assert hinge(torch.tensor([1.0, 4.0]), torch.tensor([-1.0])).item() == 0.0


def test_hinge_on_patches_averages_over_everything() -> None:
    real, fake = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hinge(real, fake), hinge(real.flatten(), fake.flatten()))


def test_hinge_stops_pushing_beyond_the_margin() -> None:
    real = torch.tensor([0.5, 1.5], requires_grad=True)
    fake = torch.tensor([-0.5, -1.5], requires_grad=True)
    hinge(real, fake).backward()
    assert real.grad is not None and fake.grad is not None
    assert real.grad.tolist() == [-0.25, 0.0]
    assert fake.grad.tolist() == [0.25, 0.0]


@pytest.mark.parametrize("loss", ["hinge", "cross_entropy"])
def test_one_step_on_disjoint_sets_widens_the_gap(loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    references = torch.randn(32, 2, generator=generator) * 0.1 + 1.0
    samples = torch.randn(32, 2, generator=generator) * 0.1 - 1.0
    head = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.05)

    def gap() -> float:
        real, fake = head(references), head(samples)
        return float(((real[:, 0] - real[:, 1]).mean() - (fake[:, 0] - fake[:, 1]).mean()).detach())

    before = gap()
    real, fake = head(references), head(samples)
    if loss == "hinge":
        hinge(real[:, 0] - real[:, 1], fake[:, 0] - fake[:, 1]).backward()
    else:
        soft_label_cross_entropy(real, fake).backward()
    optimiser.step()
    assert gap() > before


def test_soft_label_cross_entropy_by_hand() -> None:
    # P(real) is 0.8 for the reference and 0.3 for the generated image.
    real = torch.log(torch.tensor([[0.8, 0.2]]))
    fake = torch.log(torch.tensor([[0.3, 0.7]]))
    expected = -0.5 * (0.95 * math.log(0.8) + 0.05 * math.log(0.2) + 0.95 * math.log(0.7) + 0.05 * math.log(0.3))
    assert soft_label_cross_entropy(real, fake).item() == pytest.approx(expected, rel=1e-6)
    swapped = soft_label_cross_entropy(real.flip(1), fake.flip(1), real_index=1)
    assert swapped.item() == pytest.approx(expected, rel=1e-6)
    hard = soft_label_cross_entropy(real, fake, confidence=1.0)
    assert hard.item() == pytest.approx(-0.5 * (math.log(0.8) + math.log(0.7)), rel=1e-6)


def test_soft_labels_are_met_not_exceeded() -> None:
    # The best answer is the label itself: the loss is its entropy and the gradient vanishes there.
    logits = torch.log(torch.tensor([[0.95, 0.05]])).requires_grad_()
    loss = soft_label_cross_entropy(logits, logits.flip(1))
    assert loss.item() == pytest.approx(0.1985, abs=1e-4)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-6
    sure = torch.tensor([[20.0, 0.0]])
    assert soft_label_cross_entropy(sure, sure.flip(1)) > loss


def test_sides_weigh_one_half_whatever_their_size() -> None:
    real, fake = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0]])
    torch.testing.assert_close(soft_label_cross_entropy(real, fake), soft_label_cross_entropy(real, fake.repeat(9, 1)))
    torch.testing.assert_close(hinge(real[:, 0], fake[:, 0]), hinge(real[:, 0], fake[:, 0].repeat(9)))


def test_half_precision_is_computed_in_float32() -> None:
    half = torch.tensor([0.5], dtype=torch.bfloat16)
    assert hinge(half, half).dtype == torch.float32
    assert soft_label_cross_entropy(half.expand(1, 2), half.expand(1, 2)).dtype == torch.float32


def test_errors() -> None:
    two, empty = torch.zeros(1, 2), torch.zeros(0)
    with pytest.raises(ValueError, match="fake is empty"):
        hinge(two, empty)
    with pytest.raises(ValueError, match=r"fake must be logits \[N, 2\], got \[3\]"):
        soft_label_cross_entropy(two, torch.zeros(3))
    with pytest.raises(ValueError, match="confidence"):
        soft_label_cross_entropy(two, two, confidence=0.3)
    with pytest.raises(ValueError, match="real_index"):
        soft_label_cross_entropy(two, two, real_index=2)
