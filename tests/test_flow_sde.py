from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guerdon.objectives.flow_sde import (
    Kind,
    cps_log_prob,
    flow_noise_scale,
    flow_sde_step,
    gaussian_log_prob,
    interpolate,
    marginal_preserving_step,
    ode_step,
    predict_x0,
    predict_x1,
)

X, V = torch.tensor([[1.0]]), torch.tensor([[-0.4]])
KINDS: tuple[Kind, ...] = ("flow", "dance", "cps")


def images(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    ("kind", "noise_level", "mean", "std"),
    [("flow", 0.7, 1.002, 0.35), ("dance", 0.3, 1.082, 0.15), ("cps", 0.8, 0.961803, 0.237764)],
)
def test_published_steps(kind: Kind, noise_level: float, mean: float, std: float) -> None:
    got_mean, got_std = flow_sde_step(X, V, 0.5, 0.25, noise_level=noise_level, kind=kind)
    assert got_mean.item() == pytest.approx(mean, abs=1e-6)
    assert got_std.item() == pytest.approx(std, abs=1e-6)


def test_log_prob_one_deviation_away() -> None:
    mean, std = flow_sde_step(X, V, 0.5, 0.25, noise_level=0.7)
    assert gaussian_log_prob(mean + std, mean, std).item() == pytest.approx(-0.369116, abs=1e-6)


def test_first_step_uses_the_second_time_in_the_denominator() -> None:
    assert flow_noise_scale(torch.tensor(1.0), 0.7, torch.tensor(0.75)).item() == pytest.approx(1.4, abs=1e-6)
    mean, std = flow_sde_step(X, V, 1.0, 0.75, noise_level=0.7, t_second=0.75)
    assert (mean.item(), std.item()) == (pytest.approx(0.855, abs=1e-6), pytest.approx(0.7, abs=1e-6))
    default_mean, default_std = flow_sde_step(X, V, 1.0, 0.75, noise_level=0.7)
    assert torch.equal(default_mean, mean) and torch.equal(default_std, std)
    # v enters with coefficient exactly dt there: no score correction of v is left at t = 1.
    shifted, _ = flow_sde_step(X, V + 1.0, 1.0, 0.75, noise_level=0.7)
    assert (shifted - mean).item() == pytest.approx(-0.25, abs=1e-6)


def test_second_time_changes_the_first_step_only() -> None:
    x, v = images(0)
    first = [flow_sde_step(x, v, 1.0, 0.75, t_second=second)[1] for second in (0.75, 0.9)]
    later = [flow_sde_step(x, v, 0.75, 0.5, t_second=second)[1] for second in (0.75, 0.9)]
    assert not torch.allclose(first[0], first[1])
    assert torch.equal(later[0], later[1])


def test_first_step_in_a_batch_of_different_times() -> None:
    x, v = images(1)
    t, t_next = torch.tensor([1.0, 0.75, 0.5, 1.0]), torch.tensor([0.75, 0.5, 0.25, 0.75])
    mean, std = flow_sde_step(x, v, t, t_next, noise_level=0.7, t_second=0.75)
    assert std.shape == (4, 1, 1, 1)
    for i in range(4):
        one = slice(i, i + 1)
        alone = flow_sde_step(x[one], v[one], float(t[i]), float(t_next[i]), noise_level=0.7, t_second=0.75)
        torch.testing.assert_close(mean[one], alone[0])
        torch.testing.assert_close(std[one], alone[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("t", "t_next"), [(1.0, 0.9), (0.6, 0.35), (0.1, 0.0)])
def test_without_noise_every_step_is_exactly_euler(kind: Kind, t: float, t_next: float) -> None:
    x, v = images(2)
    mean, std = flow_sde_step(x, v, t, t_next, noise_level=0.0, kind=kind)
    assert torch.equal(mean, ode_step(x, v, t, t_next))
    assert torch.equal(std, torch.zeros(4, 1, 1, 1))
    with pytest.raises(ValueError, match="std must be > 0"):
        gaussian_log_prob(mean, mean, std)


def test_two_written_forms_of_the_mean_agree() -> None:
    x, v = images(3, torch.float64)
    t, t_next, a = 0.6, 0.45, 0.9
    g, dt = a * math.sqrt(t / (1 - t)), t_next - t
    mean, std = flow_sde_step(x, v, t, t_next, noise_level=a)
    torch.testing.assert_close(mean, x * (1 + g**2 * dt / (2 * t)) + v * (1 + g**2 * (1 - t) / (2 * t)) * dt)
    torch.testing.assert_close(mean, x * (1 + a**2 * dt / (2 * (1 - t))) + (1 + a**2 / 2) * v * dt)
    assert std.flatten()[0].item() == pytest.approx(g * math.sqrt(-dt))


def test_flow_and_dance_are_members_of_the_general_family() -> None:
    x, v = images(4)
    g = float(flow_noise_scale(torch.tensor(0.6), 0.7))
    general = (marginal_preserving_step(x, v, 0.6, 0.4, g), marginal_preserving_step(x, v, 0.6, 0.4, 0.3))
    named = (
        flow_sde_step(x, v, 0.6, 0.4, noise_level=0.7),
        flow_sde_step(x, v, 0.6, 0.4, noise_level=0.3, kind="dance"),
    )
    for left, right in zip(general, named, strict=True):
        torch.testing.assert_close(left, right)


def test_cps_keeps_the_noise_budget() -> None:
    x, v = images(5, torch.float64)
    mean, std = flow_sde_step(x, v, 0.5, 0.3, noise_level=0.8, kind="cps")
    noise_left = (0.3**2 - std**2).sqrt()
    torch.testing.assert_close(mean, 0.7 * predict_x0(x, v, 0.5) + noise_left * predict_x1(x, v, 0.5))


def test_predictions_invert_the_forward_process() -> None:
    x0, noise = images(6)
    t = torch.tensor([0.2, 0.5, 0.9, 1.0])
    x = interpolate(x0, noise, t)
    torch.testing.assert_close(predict_x0(x, noise - x0, t), x0)
    torch.testing.assert_close(predict_x1(x, noise - x0, t), noise)
    # A straight path is followed without error, in either direction.
    torch.testing.assert_close(ode_step(x, noise - x0, t, 0.0), x0)
    torch.testing.assert_close(ode_step(x, noise - x0, t, 1.0), noise)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_computed_in_float32(kind: Kind) -> None:
    x, v = images(7, torch.bfloat16)
    mean, std = flow_sde_step(x, v, torch.tensor(0.9), 0.8, noise_level=0.7, kind=kind)
    expected, _ = flow_sde_step(x.float(), v.float(), 0.9, 0.8, noise_level=0.7, kind=kind)
    assert mean.dtype == std.dtype == torch.float32
    assert torch.equal(mean, expected)
    assert gaussian_log_prob(x, v, 0.5).dtype == torch.float32
    assert cps_log_prob(x, v).dtype == torch.float32


def test_float64_grid_does_not_change_the_dtype() -> None:
    x, v = images(8)
    grid = torch.linspace(1, 0, 5, dtype=torch.float64)
    assert flow_sde_step(x, v, grid[1], grid[2])[0].dtype == torch.float32


def test_log_prob_mean_and_sum_and_the_normal_distribution() -> None:
    mean, sample = images(9, torch.float64)
    std = torch.tensor([0.1, 0.4, 1.0, 3.0], dtype=torch.float64)
    expected = torch.distributions.Normal(mean, std[:, None, None, None]).log_prob(sample).flatten(1)
    torch.testing.assert_close(gaussian_log_prob(sample, mean, std, "sum"), expected.sum(1))
    torch.testing.assert_close(gaussian_log_prob(sample, mean, std), expected.mean(1))
    torch.testing.assert_close(
        gaussian_log_prob(sample, mean, std, "sum"), 75 * gaussian_log_prob(sample, mean, std, "mean")
    )


def test_cps_log_prob_is_the_bare_square() -> None:
    sample = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert cps_log_prob(sample, torch.zeros(2, 2)).tolist() == [-5.0, 0.0]


@pytest.mark.parametrize("log_prob", [cps_log_prob, lambda sample, mean: gaussian_log_prob(sample, mean, 0.5)])
def test_the_sample_is_data(log_prob) -> None:  # type: ignore[no-untyped-def]
    mean = torch.zeros(2, 3, requires_grad=True)
    sample = mean + 0.5  # attached to the graph, as x' = mean + std * eps is during sampling
    log_prob(sample, mean).sum().backward()
    assert mean.grad is not None and bool((mean.grad > 0).all())


def sample_marginal(steps: int, kind: str, noise_level: float, count: int = 50_000) -> Tensor:
    """Final samples with the exact velocity of x_0 ~ N(1.5, 0.5^2) on a uniform grid."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, generator=generator)
    grid = torch.linspace(1, 0, steps + 1)
    for t, t_next in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        centred, variance = x - (1 - t) * 1.5, (1 - t) ** 2 * 0.25 + t**2
        v = t * centred / variance - (1.5 + (1 - t) * 0.25 * centred / variance)
        noise = torch.randn(count, generator=generator)
        if kind == "no score":
            g = noise_level * math.sqrt(t / (1 - (t if t < 1 else grid[1].item())))
            x = ode_step(x, v, t, t_next) + g * math.sqrt(t - t_next) * noise
        else:
            mean, std = flow_sde_step(x, v, t, t_next, noise_level=noise_level, kind=kind)  # type: ignore[arg-type]
            x = mean + std * noise
    return x


@pytest.mark.parametrize(
    ("kind", "noise_level", "coarse", "fine"),
    [
        ("flow", 0.0, 0.431, 0.493),
        ("flow", 0.7, 0.478, 0.499),
        ("flow", 0.9, 0.488, 0.499),
        ("dance", 0.3, 0.441, 0.495),
        ("cps", 0.8, 0.352, 0.394),
    ],
)
def test_marginals_at_10_and_100_steps(kind: str, noise_level: float, coarse: float, fine: float) -> None:
    for steps, std in ((10, coarse), (100, fine)):
        x = sample_marginal(steps, kind, noise_level)
        assert x.mean().item() == pytest.approx(1.5, abs=0.015)
        assert x.std().item() == pytest.approx(std, abs=0.006)


def test_noise_without_the_score_term_widens_the_marginal() -> None:
    assert sample_marginal(100, "no score", 0.7).std().item() > 0.6


@settings(max_examples=50, deadline=None)
@given(
    t=st.floats(0.02, 1.0),
    share=st.floats(0.0, 0.95),
    noise_level=st.floats(0.01, 1.0),
    kind=st.sampled_from(KINDS),
)
def test_steps_are_finite_and_noisier_with_more_noise(t: float, share: float, noise_level: float, kind: Kind) -> None:
    x, v = images(10)
    mean, std = flow_sde_step(x, v, t, t * share, noise_level=noise_level, kind=kind)
    less = flow_sde_step(x, v, t, t * share, noise_level=noise_level / 2, kind=kind)[1]
    assert torch.isfinite(mean).all() and torch.isfinite(std).all()
    assert bool((std >= less).all())
    if kind == "cps":
        assert bool((std <= t * share * (1 + 1e-6)).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": 0.25, "t_next": 0.5}, "t_next < t"),
        ({"t": 0.5, "t_next": 0.5}, "t_next < t"),
        ({"t": 1.5, "t_next": 0.5}, "t_next < t"),
        ({"t": 0.5, "t_next": -0.1}, "t_next < t"),
        ({"t": float("nan"), "t_next": 0.1}, "t_next < t"),
        ({"noise_level": -0.1}, "noise_level must be >= 0"),
        ({"noise_level": 1.1, "kind": "cps"}, r"in \[0, 1\]"),
        ({"kind": "ddim"}, "'flow', 'dance' or 'cps'"),
        ({"t": 1.0, "t_second": 1.0}, "t_second must be in"),
        ({"t": torch.zeros(3)}, r"t must be .* got \[3\]"),
        ({"v": torch.zeros(2, 4)}, r"x \[2, 3\], v \[2, 4\]"),
    ],
)
def test_errors_of_a_step(arguments: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"x": torch.zeros(2, 3), "v": torch.zeros(2, 3), "t": 0.5, "t_next": 0.25} | arguments
    with pytest.raises(ValueError, match=message):
        flow_sde_step(**call)  # type: ignore[arg-type]


def test_noise_scale_at_the_start_needs_the_second_time() -> None:
    with pytest.raises(ValueError, match="t = 1 needs t_second"):
        flow_noise_scale(torch.tensor([1.0, 0.5]), 0.7)
    with pytest.raises(ValueError, match="g must be >= 0"):
        marginal_preserving_step(X, V, 0.5, 0.25, -1.0)


def test_log_prob_checks_shapes_and_every_std() -> None:
    with pytest.raises(ValueError, match=r"sample \[2, 3\], mean \[2, 4\]"):
        gaussian_log_prob(torch.zeros(2, 3), torch.zeros(2, 4), 0.5)
    with pytest.raises(ValueError, match="std must be > 0"):
        gaussian_log_prob(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0.5, 0.0]))
    with pytest.raises(ValueError, match="std must be > 0"):
        gaussian_log_prob(torch.zeros(2, 3), torch.zeros(2, 3), float("nan"))
