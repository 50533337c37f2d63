from __future__ import annotations

import math

import pytest
import torch

from guerdon.objectives.diffusion_nft import nft_loss, nft_old_policy_decay, nft_reward
from guerdon.objectives.flow_sde import interpolate


def batch(size: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise, v_old = torch.randn(3, size, 3, 4, 4, generator=generator)
    t = torch.linspace(0.2, 0.95, size)
    return {"v_old": v_old, "v_ref": v_old, "x_t": interpolate(x0, noise, t), "x0": x0, "t": t}


def test_reward_of_an_advantage() -> None:
    assert nft_reward(torch.tensor([-9.0, -5.0, 0.0, 2.5, 5.0, 9.0])).tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]
    assert nft_reward(torch.tensor([1.0]), clip=1.0).item() == 1.0


def test_hand_computed_loss() -> None:
    # x_t = (0.5, 0.5), t = 0.5. x0_hat(v+) = (0.4, 0.7): errors (-0.6, 0.7), square 0.425, size 0.65.
    # v- = -v: x0_hat = (0.6, 0.3): errors (-0.4, 0.3), square 0.125, size 0.35.
    v = torch.tensor([[0.2, -0.4]])
    zeros = torch.zeros(1, 2)
    x_t, x0 = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    loss, info = nft_loss(v, zeros, zeros, x_t, x0, 0.5, torch.tensor([0.8]))
    positive, negative = 0.425 / 0.65, 0.125 / 0.35
    assert info["positive"].item() == pytest.approx(positive, rel=1e-6)
    assert info["negative"].item() == pytest.approx(negative, rel=1e-6)
    assert info["kl"].item() == pytest.approx(0.1, rel=1e-6)
    assert loss.item() == pytest.approx(5 * (0.8 * positive + 0.2 * negative) + 1e-5, rel=1e-6)


def test_hand_computed_loss_with_a_small_beta() -> None:
    # b = 0.5, v_old = 1: v+ = 0.5 * 2 + 0.5 * 1 = 1.5, v- = 1.5 * 1 - 0.5 * 2 = 0.5; x_t = 1, t = 0.5, x_0 = 0.
    one = torch.ones(1, 1)
    loss, _ = nft_loss(2 * one, one, one, one, 0 * one, 0.5, torch.tensor([0.25]), beta=0.5, kl_weight=0.0)
    # Errors 0.25 and 0.75; each square over its size is the size itself.
    assert loss.item() == pytest.approx(5 * (0.25 * 0.25 / 0.5 + 0.75 * 0.75 / 0.5), rel=1e-6)


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_no_preference_gives_no_gradient_at_the_old_policy(beta: float) -> None:
    data = batch()
    v = data["v_old"].clone().requires_grad_()

    def gradient(r: float) -> torch.Tensor:
        loss, _ = nft_loss(v, **data, r=torch.full((4,), r), beta=beta)  # type: ignore[arg-type]
        return torch.autograd.grad(loss, v)[0]

    assert gradient(0.5).abs().max() < 1e-7
    liked = gradient(0.9)
    assert liked.abs().max() > 1e-4
    torch.testing.assert_close(gradient(0.1), -liked)


def test_good_samples_attract_and_bad_ones_repel() -> None:
    data = batch()
    v = data["v_old"].clone().requires_grad_()
    noise = (data["x_t"] - (1 - data["t"][:, None, None, None]) * data["x0"]) / data["t"][:, None, None, None]
    towards = noise - data["x0"] - data["v_old"]  # from the old velocity to the one that points at the sample
    r = torch.tensor([1.0, 0.0, 0.8, 0.2])
    (grad,) = torch.autograd.grad(nft_loss(v, **data, r=r)[0], v)  # type: ignore[arg-type]
    descent = -(grad * towards).flatten(1).sum(1)
    assert descent[0] > 0 > descent[1] and descent[2] > 0 > descent[3]


def test_the_error_scale_carries_no_gradient_and_has_a_floor() -> None:
    one = torch.ones(1, 1)
    v = (2 * one).requires_grad_()
    loss, _ = nft_loss(v, one, one, one, 0 * one, 0.5, torch.tensor([1.0]), kl_weight=0.0)
    # x0_hat = 1 - 0.5 v = 0: the error is 0 there, its size sits on the floor, and nothing is NaN.
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, v)[0].item() == 0.0
    v = (3 * one).requires_grad_()
    loss, _ = nft_loss(v, one, one, one, 0 * one, 0.5, torch.tensor([1.0]), kl_weight=0.0)
    # error e = -0.5, loss = 5 e^2 / 0.5, d/dv = 5 * 2 e * (-0.5) / 0.5 = 5 (with a scale that moved it would be 2.5).
    assert torch.autograd.grad(loss, v)[0].item() == pytest.approx(5.0)


def test_old_and_reference_policies_are_constants() -> None:
    data = batch()
    v_old, v_ref = (data[name].clone().requires_grad_() for name in ("v_old", "v_ref"))
    v = torch.zeros_like(v_old, requires_grad=True)
    nft_loss(v, v_old, v_ref, data["x_t"], data["x0"], data["t"], torch.full((4,), 0.7))[0].backward()
    assert v.grad is not None and v_old.grad is None and v_ref.grad is None


def test_divergence_term() -> None:
    data = batch()
    data["v_ref"] = data["v_old"] + 2.0
    r = torch.full((4,), 0.5)
    with_kl, _ = nft_loss(data["v_old"], **data, r=r, kl_weight=0.1)  # type: ignore[arg-type]
    without, _ = nft_loss(data["v_old"], **data, r=r, kl_weight=0.0)  # type: ignore[arg-type]
    assert (with_kl - without).item() == pytest.approx(0.4, rel=1e-5)


def test_invalid_samples_take_no_part() -> None:
    data = batch()
    v, r = data["v_old"] + 0.1, torch.tensor([0.9, math.nan, 0.2, 0.4])
    valid = torch.tensor([True, False, True, True])
    loss, _ = nft_loss(v, **data, r=r, valid=valid)  # type: ignore[arg-type]
    kept = {name: value[valid] for name, value in data.items()}
    expected, _ = nft_loss(v[valid], **kept, r=r[valid])  # type: ignore[arg-type]
    torch.testing.assert_close(loss, expected)


def test_half_precision_is_computed_in_float32() -> None:
    data = batch()
    v = data["v_old"].bfloat16()
    loss, _ = nft_loss(v, **data, r=torch.full((4,), 0.7))  # type: ignore[arg-type]
    expected, _ = nft_loss(v.float(), **data, r=torch.full((4,), 0.7))  # type: ignore[arg-type]
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)


@pytest.mark.parametrize(
    ("schedule", "step", "decay"),
    [
        (1, 0, 0.0),
        (1, 100, 0.1),
        (1, 500, 0.5),
        (1, 9000, 0.5),
        (2, 0, 0.0),
        (2, 75, 0.0),
        (2, 76, 0.0075),
        (2, 175, 0.75),
        (2, 9000, 0.999),
    ],
)
def test_old_policy_decay(schedule: int, step: int, decay: float) -> None:
    assert nft_old_policy_decay(step, schedule) == pytest.approx(decay, abs=1e-12)


def test_errors() -> None:
    data = batch()
    v = data["v_old"]
    with pytest.raises(ValueError, match=r"r must be in \[0, 1\]"):
        nft_loss(v, **data, r=torch.full((4,), 1.5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"r must be in \[0, 1\]"):
        nft_loss(v, **data, r=torch.full((4,), math.nan))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"r must be \[4\]"):
        nft_loss(v, **data, r=torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beta must be > 0"):
        nft_loss(v, **data, r=torch.zeros(4), beta=0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shapes must be equal"):
        nft_loss(v[:2], **data, r=torch.zeros(4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"valid must be \[4\]"):
        nft_loss(v, **data, r=torch.zeros(4), valid=torch.ones(2, dtype=torch.bool))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clip must be > 0"):
        nft_reward(torch.zeros(1), clip=0.0)
    with pytest.raises(ValueError, match="schedule must be 1 or 2"):
        nft_old_policy_decay(3, 0)
    with pytest.raises(ValueError, match="step must be >= 0"):
        nft_old_policy_decay(-1)
