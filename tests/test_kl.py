from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.objectives.flow_sde import flow_noise_scale, flow_sde_step, marginal_preserving_step
from guerdon.objectives.kl import kl_exact, kl_mean, kl_velocity, velocity_kl_weight


def test_published_and_exact_divergence_differ_by_the_step() -> None:
    x, v = torch.tensor([[1.0]]), torch.tensor([[-0.4]])
    mean, std = flow_sde_step(x, v, 0.5, 0.25, noise_level=0.7)
    mean_ref, _ = flow_sde_step(x, v - 0.1, 0.5, 0.25, noise_level=0.7)
    g = flow_noise_scale(torch.tensor(0.5), 0.7)
    exact, published = kl_exact(mean, mean_ref, std), kl_mean(mean, mean_ref, g)
    assert exact.item() == pytest.approx(0.00395415, rel=2e-5)
    assert published.item() == pytest.approx(0.00098854, rel=2e-5)
    assert (published / exact).item() == pytest.approx(0.25, rel=1e-6)
    assert kl_velocity(v, v - 0.1).item() == pytest.approx(0.01, rel=1e-5)
    assert velocity_kl_weight(0.5, 0.25, g).item() * 0.01 == pytest.approx(0.00395415, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(t=st.floats(0.05, 0.99), share=st.floats(0.0, 0.95), g=st.floats(0.05, 3.0), seed=st.integers(0, 1000))
def test_exact_divergence_is_a_weighted_velocity_distance(t: float, share: float, g: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, v, v_ref = torch.randn(3, 2, 3, 4, generator=generator, dtype=torch.float64)
    mean, std = marginal_preserving_step(x, v, t, t * share, g)
    mean_ref, _ = marginal_preserving_step(x, v_ref, t, t * share, g)
    times = [torch.tensor(value, dtype=torch.float64) for value in (t, t * share, g)]
    exact = kl_exact(mean, mean_ref, std)
    torch.testing.assert_close(exact, velocity_kl_weight(*times) * kl_velocity(v, v_ref))
    torch.testing.assert_close(kl_mean(mean, mean_ref, g), exact * (t - t * share))


def test_exact_divergence_is_that_of_normal_distributions() -> None:
    mean, mean_ref = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    std = torch.tensor([0.2, 1.0, 3.0])
    one, two = (torch.distributions.Normal(m, std[:, None, None]) for m in (mean, mean_ref))
    expected = torch.distributions.kl_divergence(one, two).flatten(1)
    torch.testing.assert_close(kl_exact(mean, mean_ref, std, "sum"), expected.sum(1))
    torch.testing.assert_close(kl_exact(mean, mean_ref, std), expected.mean(1))


def test_zero_at_the_reference_with_zero_gradient() -> None:
    mean = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for divergence in (kl_mean(mean, mean, 0.5), kl_exact(mean, mean, 0.5), kl_velocity(mean, mean)):
        assert divergence.tolist() == [0.0, 0.0]
        assert torch.autograd.grad(divergence.sum(), mean)[0].abs().max() == 0


def test_the_reference_is_a_constant() -> None:
    mean, reference = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    total = kl_mean(mean, reference, 0.5) + kl_exact(mean, reference, 0.5) + kl_velocity(mean, reference)
    total.sum().backward()
    assert reference.grad is None
    assert mean.grad is not None and bool((mean.grad < 0).all())


def test_half_precision_is_computed_in_float32() -> None:
    mean, reference = torch.ones(1, 2, dtype=torch.bfloat16), torch.full((1, 2), 1.001)
    assert kl_exact(mean, reference, 1.0).item() == pytest.approx(0.5e-6, rel=1e-3)
    assert kl_velocity(mean, reference).dtype == torch.float32


def test_errors() -> None:
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match="g must be > 0"):
        kl_mean(ones, ones, 0.0)
    with pytest.raises(ValueError, match="std must be > 0"):
        kl_exact(ones, ones, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"v \[2, 3\], v_ref \[3\]"):
        kl_velocity(ones, torch.ones(3))
    with pytest.raises(ValueError, match="t_next < t"):
        velocity_kl_weight(0.25, 0.5, 0.7)
    with pytest.raises(ValueError, match="g must be > 0"):
        velocity_kl_weight(0.5, 0.25, 0.0)
