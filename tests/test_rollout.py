"""Rollouts: which steps are stochastic, what is kept, and what each image depends on."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

import tiny_pipelines as tiny
from guerdon.core.errors import GuerdonError
from guerdon.objectives.flow_sde import flow_sde_step, gaussian_log_prob, ode_step
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rollout import Trajectory, keyed_generator, rollout, trained_steps

PROMPTS = ["a cat", "a dog"]
N = 6


@pytest.fixture(scope="module")
def policy() -> FlowPolicy:
    return FlowPolicy(tiny.sd3(pixels=True), guidance=2.0)


def generators(count: int, start: int = 0) -> list[torch.Generator]:
    return [keyed_generator("test", index) for index in range(start, start + count)]


def test_window_steps_are_sde_and_the_others_euler(policy: FlowPolicy) -> None:
    cond = policy.encode(PROMPTS)
    start = policy.initial_noise(2, generators(2))
    path = rollout(policy, cond, num_steps=N, noise_level=0.7, window=(2, 4), generator=generators(2, 5), initial=start)
    assert path.step_index.tolist() == [2, 3]
    assert path.latents.shape == path.means.shape == (2, 2, 3, 8, 8) and path.log_probs.shape == (2, 2)
    sigmas = policy.sigmas(N)
    x = start
    with torch.no_grad():
        for step in range(2):
            x = ode_step(x, policy.velocity(x, sigmas[step], cond), sigmas[step], sigmas[step + 1])
        assert_close(path.latents[0], x)
        for place, step in enumerate((2, 3)):
            x, t, t_next = path.latents[place], sigmas[step], sigmas[step + 1]
            mean, std = flow_sde_step(x, policy.velocity(x, t, cond), t, t_next, noise_level=0.7, t_second=sigmas[1])
            assert_close(path.means[place], mean)
            assert_close(path.log_probs[place], gaussian_log_prob(path.next_latents[place], mean, std))
            z = (path.next_latents[place] - mean) / std
            assert 0.8 < z.std() < 1.2
        x = path.next_latents[1]
        for step in range(4, N):
            x = ode_step(x, policy.velocity(x, sigmas[step], cond), sigmas[step], sigmas[step + 1])
    assert_close(path.final, x)
    assert_close(path.images, policy.decode(x))
    assert_close(path.latents[1], path.next_latents[0])


def test_empty_window_is_the_ode(policy: FlowPolicy) -> None:
    cond = policy.encode(PROMPTS)
    path = rollout(policy, cond, num_steps=N, noise_level=0.7, window=(0, 0), generator=generators(2))
    start = policy.initial_noise(2, generators(2))
    assert_close(path.final, policy.integrate(start, cond, N))
    assert path.log_probs.shape == (0, 2) and len(path.latents) == 0


def test_full_sde_trains_all_but_the_last_step(policy: FlowPolicy) -> None:
    assert [list(steps) for steps in trained_steps(4, None)] == [[0, 1, 2, 3], [0, 1, 2]]
    path = rollout(policy, policy.encode(PROMPTS), num_steps=N, noise_level=0.7, generator=generators(2))
    assert path.step_index.tolist() == list(range(N - 1))
    assert torch.isfinite(path.log_probs).all()
    sigmas = policy.sigmas(N)
    last = path.next_latents[-1]
    v = policy.velocity(last, sigmas[-2], policy.encode(PROMPTS))
    assert (path.final - ode_step(last, v, sigmas[-2], sigmas[-1])).abs().max() > 0.01  # still noisy at the end


@pytest.mark.parametrize("kind", ["flow", "dance", "cps"])
def test_every_kind_has_finite_log_probs(policy: FlowPolicy, kind) -> None:
    path = rollout(
        policy,
        policy.encode(PROMPTS),
        num_steps=N,
        noise_level=0.8,
        kind=kind,
        window=(0, N - 1),
        generator=generators(2),
    )
    assert torch.isfinite(path.log_probs).all()
    if kind == "cps":
        assert_close(path.log_probs, -(path.next_latents - path.means).square().mean((2, 3, 4)))
        with pytest.raises(GuerdonError, match="end the window at 5"):
            rollout(policy, policy.encode(PROMPTS), num_steps=N, noise_level=0.8, kind=kind, window=(4, 6))


def test_branches_share_the_prefix_only(policy: FlowPolicy) -> None:
    path = rollout(
        policy, policy.encode(PROMPTS), num_steps=N, noise_level=0.9, window=(2, 4), branches=3, generator=generators(6)
    )
    assert len(path.images) == 6 and path.cond.index.tolist() == [0, 0, 0, 1, 1, 1]
    first = path.latents[0].unflatten(0, (2, 3))
    assert_close(first[:, 0], first[:, 1], atol=0, rtol=0)
    assert (first[0] - first[1]).abs().max() > 0.1
    after = path.next_latents[0].unflatten(0, (2, 3))
    assert (after[:, 0] - after[:, 1]).abs().max() > 0.01
    with pytest.raises(GuerdonError, match="6 images need as many generators"):
        rollout(policy, policy.encode(PROMPTS), num_steps=N, noise_level=0.9, branches=3, generator=generators(2))


def test_a_prefix_costs_one_pass_a_row(policy: FlowPolicy) -> None:
    rows: list[int] = []
    handle = policy.transformer.register_forward_pre_hook(
        lambda module, args, options: rows.append(len(options["hidden_states"])), with_kwargs=True
    )
    rollout(policy, policy.encode(PROMPTS), num_steps=N, noise_level=0.9, window=(2, 4), branches=3)
    handle.remove()
    assert rows == [4, 4, 12, 12, 12, 12]  # doubled by guidance


def test_same_noise_is_shared_by_a_prompt(policy: FlowPolicy) -> None:
    cond = policy.encode(["a", "b", "a", "b"])
    path = rollout(
        policy, cond, num_steps=N, noise_level=0.7, same_noise=True, generator=torch.Generator().manual_seed(1)
    )
    start = path.latents[0]
    assert_close(start[0], start[2], atol=0, rtol=0)
    assert_close(start[1], start[3], atol=0, rtol=0)
    assert (start[0] - start[1]).abs().max() > 0.1
    assert (path.final[0] - path.final[2]).abs().max() > 0.01


def test_an_image_depends_on_its_own_generator_only(policy: FlowPolicy) -> None:
    prompts = ["a", "b", "c", "d"]
    options = {"num_steps": N, "noise_level": 0.7, "window": (1, 3)}
    together = rollout(policy, policy.encode(prompts), generator=generators(4), **options)
    alone = rollout(policy, policy.encode(prompts[2:]), generator=generators(2, 2), **options)
    assert_close(together.final[2:], alone.final, atol=1e-5, rtol=1e-5)
    assert_close(together.log_probs[:, 2:], alone.log_probs, atol=1e-5, rtol=1e-5)


def test_keyed_generators_differ_by_every_part_of_the_key() -> None:
    keys = [
        (0, 1, "noise", 2),
        (1, 1, "noise", 2),
        (0, 2, "noise", 2),
        (0, 1, "start", 2),
        (0, 1, "noise", 3),
        (0, 12, 3),
    ]
    draws = [torch.rand((), generator=keyed_generator(*key)).item() for key in keys]
    assert len(set(draws)) == len(keys)
    assert draws[0] == torch.rand((), generator=keyed_generator(*keys[0])).item()


def storage_bytes(path: Trajectory) -> int:
    tensors = [path.chain, path.means, path.log_probs, path.latents, path.next_latents, path.final, path.images]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def test_only_the_trained_steps_are_kept(policy: FlowPolicy) -> None:
    """Twenty steps, two of them trained: what is alive afterwards does not grow with the number of steps."""
    cond, batch, trained, latent = policy.encode(PROMPTS), 2, 2, 3 * 8 * 8
    seen: list[weakref.ref[torch.Tensor]] = []
    velocity = policy.velocity
    policy.velocity = lambda x, t, c: (seen.append(weakref.ref(x)), velocity(x, t, c))[1]  # type: ignore[method-assign]
    try:
        path = rollout(policy, cond, num_steps=20, noise_level=0.7, window=(5, 7), generator=generators(2))
    finally:
        del policy.velocity  # type: ignore[method-assign]
    gc.collect()
    assert len(seen) == 20
    assert sum(reference() is not None for reference in seen) == 0  # states live on only inside path.chain
    # chain, means, final, images and the log-probs, in float32
    expected = 4 * batch * latent * ((trained + 1) + trained + 1 + 1) + 4 * trained * batch
    assert storage_bytes(path) == expected
    assert not path.chain.requires_grad and path.chain.grad_fn is None


def test_bad_windows_and_noise_are_refused(policy: FlowPolicy) -> None:
    cond = policy.encode(PROMPTS)
    with pytest.raises(GuerdonError, match="window"):
        rollout(policy, cond, num_steps=N, noise_level=0.7, window=(4, 8))
    with pytest.raises(GuerdonError, match="noise_level 0"):
        rollout(policy, cond, num_steps=N, noise_level=0.0, window=(0, 2))
