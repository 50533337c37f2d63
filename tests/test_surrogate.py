from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.objectives.flow_sde import flow_sde_step, gaussian_log_prob
from guerdon.objectives.surrogate import clipped_surrogate, guard_log_ratio, guard_surrogate

EPS = torch.tensor([[1.0, -1.0, 0.5, 2.0]], dtype=torch.float64)
SHIFT = torch.tensor([[0.01, -0.02, 0.03, 0.0]], dtype=torch.float64)
STD = 0.35


def test_guard_and_plain_log_ratio() -> None:
    mean_old = torch.zeros(1, 4, dtype=torch.float64)
    mean, sample = mean_old + SHIFT, mean_old + STD * EPS
    logp, logp_old = gaussian_log_prob(sample, mean, STD), gaussian_log_prob(sample, mean_old, STD)
    assert (logp - logp_old).item() == pytest.approx(0.030714, abs=1e-6)
    assert guard_log_ratio(logp, logp_old, mean, mean_old, STD).item() == pytest.approx(0.01125, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), std=st.floats(0.01, 3.0), reduce=st.sampled_from(["mean", "sum"]))
def test_guard_ratio_is_the_noise_times_the_shift(seed: int, std: float, reduce: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean_old, shift, eps = torch.randn(3, 5, 2, 3, 3, generator=generator, dtype=torch.float64)
    scale = std * torch.tensor([1.0, 0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    mean, sample = mean_old + 0.01 * shift, mean_old + scale[:, None, None, None] * eps
    logp, logp_old = (gaussian_log_prob(sample, m, scale, reduce) for m in (mean, mean_old))  # type: ignore[arg-type]
    product = (eps * (mean - mean_old)).flatten(1)
    torch.testing.assert_close(
        guard_log_ratio(logp, logp_old, mean, mean_old, scale, reduce),  # type: ignore[arg-type]
        product.mean(1) if reduce == "mean" else product.sum(1),
        rtol=1e-7,
        atol=1e-9,
    )


def test_plain_log_ratio_drifts_down_and_guard_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    samples, dims, std, shift = 4000, 16, 0.05, 0.02
    mean_old = torch.zeros(samples, dims)
    mean = mean_old + shift
    sample = mean_old + std * torch.randn(samples, dims, generator=generator)
    logp, logp_old = gaussian_log_prob(sample, mean, std), gaussian_log_prob(sample, mean_old, std)
    guard = guard_log_ratio(logp, logp_old, mean, mean_old, std)
    drift = -(shift**2) / (2 * std**2)
    assert (logp - logp_old).mean().item() == pytest.approx(drift, abs=0.01)
    assert guard.mean().item() == pytest.approx(0.0, abs=5e-4)
    # The plain spread is the guarded one over std, so it explodes where the noise is small.
    assert ((logp - logp_old).std() / guard.std()).item() == pytest.approx(1 / std, rel=1e-3)


def on_policy() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, 6, 3, 4, 4, generator=generator)
    v = torch.randn(6, 3, 4, 4, generator=generator).requires_grad_()
    mean, std = flow_sde_step(x, v, 0.5, 0.25, noise_level=0.7)
    sample = (mean + std * noise).detach()
    return v, mean, std, gaussian_log_prob(sample, mean, std), torch.randn(6, generator=generator)


def test_on_policy_ratio_is_exactly_one_in_both_forms() -> None:
    v, mean, std, logp, adv = on_policy()
    plain, plain_info = clipped_surrogate(logp, logp.detach(), adv, 1e-4)
    guard, guard_info = guard_surrogate(logp, logp.detach(), mean, mean.detach(), std, adv, 1e-4, 0.25)
    for info in (plain_info, guard_info):
        assert info["ratio_mean"] == info["ratio_min"] == info["ratio_max"] == 1
        assert info["log_ratio_mean"] == info["log_ratio_std"] == info["clip_fraction"] == info["approx_kl"] == 0
    torch.testing.assert_close(plain, -adv.mean())
    torch.testing.assert_close(guard, -adv.mean() / 0.25)
    # The first on-policy gradients differ only by the factor std / |dt| that the guard puts on a step.
    plain_grad = torch.autograd.grad(plain, v, retain_graph=True)[0]
    guard_grad = torch.autograd.grad(guard, v)[0]
    torch.testing.assert_close(guard_grad, plain_grad * 0.35 / 0.25)
    assert plain_grad.abs().max() > 0


def test_zero_advantages_give_zero_gradient() -> None:
    v, mean, std, logp, _ = on_policy()
    old, adv = logp.detach() - 0.1, torch.zeros(6)
    for loss, _ in (
        clipped_surrogate(logp, old, adv, 1e-4),
        guard_surrogate(logp, old, mean, mean.detach(), std, adv, 1e-4, 0.25),
    ):
        assert loss == 0
        assert torch.autograd.grad(loss, v, retain_graph=True)[0].abs().max() == 0


@pytest.mark.parametrize(
    ("ratio", "adv", "loss", "gradient"),
    [
        (1.5, 1.0, -1.2, False),
        (1.5, -1.0, 1.5, True),
        (0.5, -1.0, 0.8, False),
        (0.5, 1.0, -0.5, True),
        (1.1, 2.0, -2.2, True),
        (0.9, -2.0, 1.8, True),
    ],
)
def test_clipping(ratio: float, adv: float, loss: float, gradient: bool) -> None:
    logp = torch.tensor([math.log(ratio)], requires_grad=True)
    value, info = clipped_surrogate(logp, torch.zeros(1), torch.tensor([adv]), 0.2)
    assert value.item() == pytest.approx(loss, abs=1e-6)
    (slope,) = torch.autograd.grad(value, logp)
    assert slope.item() == pytest.approx(-adv * ratio if gradient else 0.0, abs=1e-6)
    assert info["clip_active"].item() == (0.0 if gradient else 1.0)
    assert info["clip_fraction"].item() == (1.0 if abs(ratio - 1) > 0.2 else 0.0)


def test_lower_and_upper_clip_may_differ() -> None:
    logp = torch.log(torch.tensor([1.25, 0.75]))
    loss, _ = clipped_surrogate(logp, torch.zeros(2), torch.tensor([1.0, -1.0]), (0.1, 0.3))
    assert loss.item() == pytest.approx((-1.25 + 0.9) / 2, abs=1e-6)


def test_information() -> None:
    log_ratio = torch.log(torch.tensor([0.5, 1.0, 1.5, 1.05]))
    _, info = clipped_surrogate(log_ratio, torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.1)
    assert info["ratio_mean"].item() == pytest.approx(1.0125)
    assert (info["ratio_min"].item(), info["ratio_max"].item()) == (pytest.approx(0.5), pytest.approx(1.5))
    assert info["clip_fraction"].item() == 0.5
    assert info["clip_active"].item() == 0.25
    assert info["approx_kl"].item() == pytest.approx(float((log_ratio**2).mean()) / 2)
    assert info["log_ratio_std"].item() == pytest.approx(float(log_ratio.std(unbiased=False)))
    assert not any(value.requires_grad for value in info.values())


def test_guard_divides_each_sample_by_its_own_step() -> None:
    logp, mean = torch.zeros(2), torch.zeros(2, 3)
    adv, dt = torch.tensor([1.0, 1.0]), torch.tensor([-0.5, 0.25])
    loss, _ = guard_surrogate(logp, logp, mean, mean, 0.3, adv, 0.1, dt)
    assert loss.item() == pytest.approx(-(2 + 4) / 2)


def test_invalid_samples_take_no_part() -> None:
    valid = torch.tensor([True, False, True])
    logp = torch.tensor([0.01, math.nan, 0.02], requires_grad=True)
    loss, info = clipped_surrogate(logp, torch.zeros(3), torch.tensor([1.0, math.nan, -1.0]), 0.2, valid)
    expected, _ = clipped_surrogate(torch.tensor([0.01, 0.02]), torch.zeros(2), torch.tensor([1.0, -1.0]), 0.2)
    torch.testing.assert_close(loss, expected)
    assert info["ratio_max"].item() == pytest.approx(math.exp(0.02))
    (grad,) = torch.autograd.grad(loss, logp)
    assert torch.isfinite(grad).all() and grad[1] == 0 and grad[0] != 0


def test_nothing_valid_is_a_zero_that_still_backpropagates() -> None:
    logp = torch.zeros(3, requires_grad=True)
    loss, info = clipped_surrogate(logp, torch.zeros(3), torch.ones(3), 0.2, torch.zeros(3, dtype=torch.bool))
    assert loss == 0 and info["ratio_mean"] == 1 and info["clip_fraction"] == 0
    assert torch.autograd.grad(loss, logp)[0].tolist() == [0.0] * 3


def test_steps_and_samples_may_come_together() -> None:
    logp, adv = torch.randn(4, 3) / 100, torch.randn(4, 3)
    together, _ = clipped_surrogate(logp, torch.zeros(4, 3), adv, 0.2)
    apart = torch.stack([clipped_surrogate(logp[i], torch.zeros(3), adv[i], 0.2)[0] for i in range(4)]).mean()
    torch.testing.assert_close(together, apart)


def test_half_precision_is_computed_in_float32() -> None:
    logp = torch.tensor([-1.0], dtype=torch.bfloat16)
    loss, _ = clipped_surrogate(logp, torch.tensor([-1.001]), torch.ones(1), 0.2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-math.exp(0.001), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adv": torch.zeros(3)}, r"logp \[2\], logp_old \[2\], adv \[3\]"),
        ({"clip": 0.0}, "clip must be > 0"),
        ({"clip": (0.1, -0.1)}, "clip must be > 0"),
        ({"valid": torch.ones(3, dtype=torch.bool)}, r"adv \[2\], valid \[3\]"),
        ({"adv": torch.tensor([0.0, math.nan])}, "non-finite advantage"),
    ],
)
def test_errors_of_the_plain_form(arguments: dict[str, object], message: str) -> None:
    call: dict[str, object] = {
        "logp": torch.zeros(2),
        "logp_old": torch.zeros(2),
        "adv": torch.ones(2),
        "clip": 0.2,
    } | arguments
    with pytest.raises(ValueError, match=message):
        clipped_surrogate(**call)  # type: ignore[arg-type]


def test_errors_of_the_guarded_form() -> None:
    logp, mean = torch.zeros(2), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="std must be > 0"):
        guard_log_ratio(logp, logp, mean, mean, 0.0)
    with pytest.raises(ValueError, match=r"logp must be \[3\]"):
        guard_log_ratio(logp, logp, torch.zeros(3, 3), torch.zeros(3, 3), 0.1)
    with pytest.raises(ValueError, match="mean_old"):
        guard_log_ratio(logp, logp, mean, torch.zeros(2, 4), 0.1)
    with pytest.raises(ValueError, match="dt must not be zero"):
        guard_surrogate(logp, logp, mean, mean, 0.1, torch.ones(2), 0.2, 0.0)
