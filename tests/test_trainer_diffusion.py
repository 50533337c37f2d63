"""DiffusionTrainer's step: it learns, its update is the published one, and batching does not change it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from guerdon.core.errors import GuerdonError
from guerdon.objectives.flow_sde import flow_sde_step, gaussian_log_prob
from guerdon.trainers.diffusion import DiffusionTrainer
from tiny_training import PROMPTS, Scored, darkness, trainer


def gradients(one: DiffusionTrainer) -> list[list[torch.Tensor]]:
    """Run one training step without moving the policy; returns the gradients of each optimiser step."""
    found: list[list[torch.Tensor]] = []

    def optimise() -> float:
        found.append([p.grad.clone() for p in one.parameters])
        one.optimizer.zero_grad()
        return 0.0

    one._optimise = optimise  # type: ignore[method-assign]
    one.train_step()
    return found


def moved(one: DiffusionTrainer, amount: float = 0.2) -> DiffusionTrainer:
    """Move the adapter away from its zero start, so that every gradient and every reference matters."""
    generator = torch.Generator().manual_seed(5)
    for parameter in one.parameters:
        parameter.data += amount * torch.randn(parameter.shape, generator=generator)
    return one


# Learning


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "guard", "noise_level": 0.9},
        {"algorithm": "grpo", "kind": "cps", "noise_level": 0.7, "clip_range": 1e-2},
        {"algorithm": "nft"},
    ],
)
def test_a_reward_rises_above_a_random_one(changes: dict[str, Any]) -> None:
    def random(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
        return Scored({"random": np.random.default_rng(step).random(len(images))}, np.ones(len(images), dtype=bool))

    gains = []
    for scorer in (darkness, random):
        options = {
            "learning_rate": 1e-2,
            "steps": 8,
            "group_size": 12,
            "sample_batch": 24,
            "micro_batch": 24,
            **changes,
        }
        one = trainer(scorer, **options)
        prompts, seeds = PROMPTS * 4, list(range(12))
        before = darkness(prompts, one.evaluate(prompts, seeds), 0).parts["darkness"]
        one.train()
        after = darkness(prompts, one.evaluate(prompts, seeds, ema=False), 0).parts["darkness"]
        gains.append((after - before).mean())
    assert gains[0] > 0.015
    assert gains[0] > 3 * abs(gains[1])


# The update


def one_step_at_a_time(one: DiffusionTrainer, samples: Any, advantages: torch.Tensor) -> list[torch.Tensor]:
    """Flow-GRPO's published loop: a forward and a backward pass for every image and every trained step."""
    policy, chosen = one.policy, one.config
    sigmas, total = policy.sigmas(chosen.num_steps), len(advantages)
    for number in range(total):
        for place, step in enumerate(samples.step_index.tolist()):
            rows = torch.tensor([number])
            x, t, t_next = samples.chain[place, rows], sigmas[step], sigmas[step + 1]
            v = policy.velocity(x, t, samples.cond[rows])
            mean, std = flow_sde_step(x, v, t, t_next, noise_level=chosen.noise_level, t_second=sigmas[1])
            logp = gaussian_log_prob(samples.chain[place + 1, rows], mean, std)
            if chosen.algorithm == "guard":
                drift = ((mean - samples.means[place, rows]) ** 2 / (2 * std**2)).mean((1, 2, 3))
                ratio = (std.flatten() * (logp - samples.log_probs[place, rows] + drift)).exp()
            else:
                ratio = (logp - samples.log_probs[place, rows]).exp()
            adv = advantages[number].clamp(-chosen.adv_clip, chosen.adv_clip)
            clipped = ratio.clamp(1 - chosen.clip_range, 1 + chosen.clip_range)
            loss = torch.maximum(-adv * ratio, -adv * clipped).sum() / (total * len(samples.step_index))
            if chosen.algorithm == "guard":
                loss = loss / (t - t_next)
            if chosen.kl != "none":
                with policy.reference():
                    v_ref = policy.velocity(x, t, samples.cond[rows])
                mean_ref, _ = flow_sde_step(x, v_ref, t, t_next, noise_level=chosen.noise_level, t_second=sigmas[1])
                kl = {
                    "velocity": (v - v_ref).square().mean(),
                    "mu": ((mean - mean_ref) ** 2 / (2 * std**2)).mean() * (t - t_next),
                    "mu_exact": ((mean - mean_ref) ** 2 / (2 * std**2)).mean(),
                }[chosen.kl]
                loss = loss + chosen.kl_weight * kl / (total * len(samples.step_index))
            loss.backward()
    found = [p.grad.clone() for p in one.parameters]
    one.optimizer.zero_grad()
    return found


@pytest.mark.parametrize("algorithm", ["grpo", "guard"])
@pytest.mark.parametrize("kl", ["none", "velocity", "mu", "mu_exact"])
def test_stacked_steps_give_the_published_gradient(algorithm: str, kl: str) -> None:
    one = moved(trainer(algorithm=algorithm, kl=kl, kl_weight=0.3, updates_per_step=1, guidance=2.0))
    samples, scored = one.sampler.sample(0)
    advantages = scored.advantages(torch.arange(2).repeat_interleave(4))
    expected = one_step_at_a_time(one, samples, advantages)
    (found,) = gradients(one)
    scale = max(gradient.abs().max() for gradient in expected)
    assert scale > 1e-4
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, atol=float(1e-4 * scale), rtol=1e-3)


def test_micro_batches_do_not_change_the_gradient() -> None:
    found = [gradients(moved(trainer(micro_batch=size, kl="velocity")))[0] for size in (1, 3, 8)]
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            assert_close(mine, theirs, atol=1e-7, rtol=1e-4)


def half_flat(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
    """The first group's images are all as good as one another."""
    scored = darkness(prompts, images, step)
    scored.parts["darkness"][:4] = 1.0
    return scored


def test_zero_advantages_are_skipped_at_the_same_gradient() -> None:
    rows: list[int] = []
    one = moved(trainer(half_flat, updates_per_step=1, micro_batch=8))
    samples, scored = one.sampler.sample(0)
    advantages = scored.advantages(torch.arange(2).repeat_interleave(4))
    assert (advantages == 0).sum() == 4
    expected = one_step_at_a_time(one, samples, advantages)
    one.policy.transformer.register_forward_pre_hook(
        lambda module, args, options: rows.append(len(options["hidden_states"])) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    (found,) = gradients(one)
    assert rows == [4 * 2]  # four images of eight, two steps each, in one pass
    scale = float(max(gradient.abs().max() for gradient in expected))
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, atol=1e-4 * scale, rtol=1e-3)


def test_zero_advantages_still_feel_the_kl() -> None:
    rows: list[int] = []
    one = trainer(half_flat, updates_per_step=1, micro_batch=8, kl="velocity", kl_weight=0.1)
    one.policy.transformer.register_forward_pre_hook(
        lambda module, args, options: rows.append(len(options["hidden_states"])) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    one.train_step()
    assert rows == [8 * 2]


@pytest.mark.parametrize("changes", [{"kl": "none", "kl_weight": 1.0}, {"kl": "velocity", "kl_weight": 0.0}])
def test_no_reference_pass_without_kl(changes: dict[str, Any]) -> None:
    one = trainer(**changes)
    calls = []
    reference = one.policy.reference

    @contextmanager
    def counting():
        calls.append(1)
        with reference():
            yield

    one.policy.reference = counting  # type: ignore[method-assign]
    metrics = one.train_step()
    assert not calls and "kl" not in metrics


def test_failed_samples_take_no_part() -> None:
    def sometimes(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
        scored = darkness(prompts, images, step)
        scored.parts["darkness"][[1, 6]] = np.nan
        scored.valid[[1, 6]] = False
        return scored

    one = moved(trainer(sometimes, updates_per_step=1, kl="velocity", kl_weight=0.1))
    samples, scored = one.sampler.sample(0)
    advantages = scored.advantages(torch.arange(2).repeat_interleave(4))
    good = torch.tensor([0, 2, 3, 4, 5, 7])
    samples.chain, samples.means = samples.chain[:, good], samples.means[:, good]
    samples.log_probs, samples.cond = samples.log_probs[:, good], samples.cond[good]
    expected = one_step_at_a_time(one, samples, advantages[good])
    (found,) = gradients(one)
    scale = float(max(gradient.abs().max() for gradient in expected))
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, atol=1e-4 * scale, rtol=1e-3)
    fresh = trainer(sometimes)
    metrics = fresh.train_step()
    assert metrics["samples/valid"] == 0.75
    assert np.isfinite(list(metrics.values())).all()


def test_a_step_without_signal_moves_nothing() -> None:
    def flat(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
        return Scored({"flat": np.ones(len(images))}, np.ones(len(images), dtype=bool))

    one = trainer(flat)
    before = [parameter.detach().clone() for parameter in one.parameters]
    metrics = one.train_step()
    assert metrics["advantage/flat_groups"] == 1 and metrics["updates"] == 0 and metrics["samples/trained"] == 0
    for old, new in zip(before, one.parameters, strict=True):
        assert_close(old, new.data, atol=0, rtol=0)


def test_advantages_are_clipped() -> None:
    class Raw(Scored):
        def advantages(self, group_ids: torch.Tensor) -> torch.Tensor:
            return torch.tensor(self.parts["x"], dtype=torch.float32)

    def scaled(scale: float) -> list[torch.Tensor]:
        scored = Raw({"x": np.array([scale, -scale] * 4)}, np.ones(8, dtype=bool))
        return gradients(moved(trainer(lambda prompts, images, step, **columns: scored)))[0]

    found = [scaled(5.0), scaled(500.0)]
    for mine, theirs in zip(*found, strict=True):
        assert_close(mine, theirs, atol=0, rtol=0)


# The ratio check


def test_first_update_must_be_on_policy() -> None:
    one = trainer()
    velocity = one.policy.velocity

    def noisy(x: torch.Tensor, t: Any, cond: Any) -> torch.Tensor:
        v = velocity(x, t, cond)
        return v + 0.05 * torch.randn(v.shape) if torch.is_grad_enabled() else v

    one.policy.velocity = noisy  # type: ignore[method-assign]
    with pytest.raises(GuerdonError, match=r"ratio - 1.*dropout.*recompute_old.*torch.compile"):
        one.train_step()


def test_recomputed_old_log_probs_cure_batch_dependence() -> None:
    def batch_dependent(one: DiffusionTrainer) -> DiffusionTrainer:
        velocity = one.policy.velocity
        one.policy.velocity = lambda x, t, c: velocity(x, t, c) * (1 + 1e-2 * len(x))  # type: ignore[method-assign]
        return one

    with pytest.raises(GuerdonError, match="first on-policy update"):
        batch_dependent(trainer()).train_step()
    metrics = batch_dependent(trainer(recompute_old=True)).train_step()
    assert metrics["ratio_deviation/0"] == 0


def test_first_update_is_on_policy_and_the_second_is_not() -> None:
    metrics = trainer(guidance=3.0, detach_uncond=True, learning_rate=1e-2).train_step()
    assert metrics["ratio_deviation/0"] <= 1e-5 < metrics["ratio_deviation/1"]
    assert metrics["updates"] == 2


# Sampling


def test_groups_columns_and_k_repeat() -> None:
    seen: list[tuple[list[str], dict[str, Any], int]] = []

    def watching(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
        seen.append((prompts, columns, step))
        assert images.shape == (8, 3, 8, 8) and 0 <= images.min() and images.max() <= 1
        return darkness(prompts, images, step)

    rows = [{"prompt": text, "subject": number} for number, text in enumerate(PROMPTS)]
    one = trainer(watching, rows, steps=6)
    one.train()
    assert [step for _, _, step in seen] == list(range(6))
    for prompts, columns, _ in seen:
        assert len(set(prompts[:4])) == len(set(prompts[4:])) == 1 and prompts[0] != prompts[4]
        assert columns["subject"] == [PROMPTS.index(text) for text in prompts]
        assert columns["group_ids"] == [0] * 4 + [1] * 4
    assert len({prompts[0] for prompts, _, _ in seen}) > 1
    assert one.sampler._slots(3) == trainer(watching, rows).sampler._slots(3)
    wide = trainer(watching, rows, prompts_per_step=7)
    assert sorted(np.bincount(wide.sampler._slots(0)).tolist()) == [2, 2, 3]


@pytest.mark.parametrize("branches", [1, 2])
def test_same_noise_and_branches(branches: int) -> None:
    one = trainer(same_noise=True, branches=branches, window={"size": 2, "lo": 0, "hi": 2})
    start = one.sampler.sample(0)[0].chain[0].unflatten(0, (2, 4))
    assert_close(start, start[:, :1].expand_as(start), atol=0, rtol=0)
    plain = trainer(branches=branches, window={"size": 2, "lo": 0, "hi": 2}).sampler.sample(0)[0].chain[0]
    distinct = len({float(row.sum()) for row in plain})
    assert distinct == 8 // branches


def test_sampling_batches_do_not_change_a_run() -> None:
    first = trainer(sample_batch=8).train()
    second = trainer(sample_batch=3).train()
    for mine, theirs in zip(first, second, strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-5), key


def test_overlapped_scoring_scores_whole_groups_in_a_thread_to_the_same_numbers() -> None:
    calls: list[tuple[int, int, bool]] = []

    def watching(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
        calls.append((len(prompts), len(set(prompts)), threading.current_thread() is threading.main_thread()))
        return darkness(prompts, images, step)

    plain = trainer(sample_batch=3, prompts_per_step=3).train()
    overlapped = trainer(watching, sample_batch=3, prompts_per_step=3, overlap_scoring=True).train()
    assert plain == overlapped
    assert all(count % 4 == 0 and count == 4 * groups and not main for count, groups, main in calls)
    assert len(calls) == 3 * 4

    class Opaque:
        valid, parts = np.ones(8, dtype=bool), {"x": np.zeros(8)}

    with pytest.raises(GuerdonError, match="'Opaque' cannot be put together"):
        trainer(lambda *a, **k: Opaque(), overlap_scoring=True).train_step()


def test_mixgrpo_slides_its_window() -> None:
    window = {"size": 2, "interval": 2}
    history = trainer(algorithm="mixgrpo", window=window, steps=9).train()
    assert [row["window/start"] for row in history] == [0, 0, 1, 1, 2, 2, 3, 3, 0]


def test_full_sde_trains_all_but_the_last_step() -> None:
    one = trainer(window=None)
    assert one.sampler.sample(0)[0].step_index.tolist() == [0, 1, 2, 3]
    assert "window/start" not in one.train_step()
