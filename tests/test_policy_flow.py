"""FlowPolicy agrees with the pipelines it adapts, and keeps its promises about batches, adapters and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import tiny_pipelines as tiny
from guerdon.core.errors import GuerdonError
from guerdon.policies.flow import FlowPolicy

PROMPTS = ["a cat", "a red car in the rain", "a cat"]
STEPS = 5


def noise(policy: FlowPolicy, count: int = 3) -> torch.Tensor:
    return policy.initial_noise(count, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("pixels", [False, True])
def test_sd3_integrates_to_the_pipelines_own_image(guidance: float, pixels: bool) -> None:
    pipeline = tiny.sd3(pixels=pixels)
    policy = FlowPolicy(pipeline, guidance=guidance)
    assert policy.max_sequence_length == 1  # no T5
    start = noise(policy)
    expected = pipeline(
        prompt=PROMPTS, num_inference_steps=STEPS, guidance_scale=guidance, latents=start, output_type="pt",
        max_sequence_length=1,
    ).images  # fmt: skip
    ours = policy.decode(policy.integrate(start, policy.encode(PROMPTS), STEPS))
    assert expected.std() > 0.01
    assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance_embeds", [True, False])
def test_flux_integrates_to_the_pipelines_own_image(guidance_embeds: bool) -> None:
    pipeline = tiny.flux(guidance_embeds=guidance_embeds)
    policy = FlowPolicy(pipeline, guidance=3.5, max_sequence_length=16, height=16, width=24)
    assert policy.latent_shape == (4, 8, 12)
    start = noise(policy)
    expected = pipeline(
        prompt=PROMPTS, num_inference_steps=STEPS, guidance_scale=3.5, height=16, width=24, output_type="pt",
        latents=pipeline._pack_latents(start, 3, 4, 8, 12), max_sequence_length=16,
    ).images  # fmt: skip
    ours = policy.decode(policy.integrate(start, policy.encode(PROMPTS), STEPS))
    assert_close(ours, expected, atol=1e-4, rtol=0)
    if guidance_embeds:
        policy.guidance = 1.0
        assert (policy.integrate(start, policy.encode(PROMPTS), STEPS) - start).std() > 0
        other = policy.decode(policy.integrate(start, policy.encode(PROMPTS), STEPS))
        assert (other - expected).abs().max() > 1e-3  # the embedded scale is read


@pytest.mark.parametrize("guidance", [0.0, 4.0])
def test_z_image_integrates_to_the_pipelines_own_image(guidance: float) -> None:
    pipeline = tiny.z_image()
    policy = FlowPolicy(pipeline, guidance=guidance, max_sequence_length=40, height=16, width=16)
    prompts = ["a cat", "a red car in the rain with a very long and winding caption", "a cat"]
    start = noise(policy)
    expected = pipeline(
        prompt=list(prompts), num_inference_steps=STEPS, guidance_scale=guidance, height=16, width=16, latents=start,
        output_type="pt", max_sequence_length=40,
    ).images  # fmt: skip
    ours = policy.decode(policy.integrate(start, policy.encode(prompts), STEPS))
    assert_close(ours, expected, atol=1e-4, rtol=0)


def test_sigmas_are_the_schedulers_and_end_in_zero() -> None:
    pipeline = tiny.sd3()
    policy = FlowPolicy(pipeline)
    before = pipeline.scheduler.sigmas.clone()
    pipeline.scheduler.set_timesteps(7)
    expected = pipeline.scheduler.sigmas.clone()
    pipeline.scheduler.sigmas = before
    assert_close(policy.sigmas(7), expected, atol=0, rtol=0)
    assert policy.sigmas(7)[-1] == 0 and policy.sigmas(7).dtype == torch.float32
    assert_close(pipeline.scheduler.sigmas, before, atol=0, rtol=0)


@pytest.mark.parametrize(
    "make", [lambda: FlowPolicy(tiny.sd3(), guidance=3.0), lambda: FlowPolicy(tiny.z_image(), height=16, width=16)]
)
def test_generate_depends_on_prompt_and_seed_only(make) -> None:
    policy = make()
    prompts, seeds = ["a cat", "a long grey road at night", "b", "a cat", "c d"], [3, 4, 5, 6, 2**40]
    together = policy.generate(prompts, seeds, num_steps=3, batch_size=5)
    assert together.shape == (5, 3, 16, 16) and together.dtype == torch.float32
    assert 0 <= together.min() and together.max() <= 1
    assert_close(policy.generate(prompts, seeds, num_steps=3, batch_size=2), together, atol=1e-5, rtol=0)
    alone = policy.generate(prompts[3:4], seeds[3:4], num_steps=3)
    assert_close(alone, together[3:4], atol=1e-5, rtol=0)
    assert (together[0] - together[3]).abs().max() > 1e-3  # same prompt, other seed
    with pytest.raises(GuerdonError, match="2 prompts and 1 seeds"):
        policy.generate(["a", "b"], [1])


def test_each_text_is_encoded_once() -> None:
    pipeline = tiny.sd3()
    policy = FlowPolicy(pipeline)
    calls = []
    encode = pipeline.encode_prompt
    pipeline.encode_prompt = lambda **options: calls.append(options["prompt"]) or encode(**options)
    cond = policy.encode(["a", "b", "a"])
    again = policy.encode(["b", "c"])
    assert calls == ["a", "b", "c"]
    assert len(cond) == 3 and len(cond.embeds) == 2
    assert_close(cond[torch.tensor([1])].rows()[0], again[:1].rows()[0], atol=0, rtol=0)


def test_velocity_takes_one_time_a_sample() -> None:
    policy = FlowPolicy(tiny.sd3(), guidance=2.0)
    cond, x = policy.encode(PROMPTS), noise(FlowPolicy(tiny.sd3()))
    times = torch.tensor([0.9, 0.5, 0.1])
    stacked = policy.velocity(x, times, cond)
    for row in range(3):
        alone = policy.velocity(x[row : row + 1], float(times[row]), cond[row : row + 1])
        assert_close(stacked[row : row + 1], alone, atol=1e-5, rtol=1e-5)
    assert (policy.velocity(x, 0.9, cond) - policy.velocity(x, 0.1, cond)).abs().max() > 1e-3


def test_lora_starts_at_the_base_and_the_reference_stays_there() -> None:
    policy = FlowPolicy(tiny.sd3())
    cond, x = policy.encode(PROMPTS), noise(policy)
    base = policy.velocity(x, 0.5, cond)
    assert policy.trainable_parameters() == []
    state = torch.random.get_rng_state()
    policy.add_lora(rank=2, alpha=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    names = list(policy.lora_state())
    # eight projections in the first block; the last block drops its text half, and with it to_add_out
    assert len(names) == 2 * (8 + 7)
    assert {name.split(".attn.")[1].split(".lora")[0] for name in names} == {
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"
    }  # fmt: skip
    assert_close(policy.velocity(x, 0.5, cond), base, atol=1e-6, rtol=0)
    for parameter in policy.trainable_parameters():
        parameter.data += 0.3
    moved = policy.velocity(x, 0.5, cond)
    assert (moved - base).abs().max() > 1e-3
    with policy.reference():
        reference = policy.velocity(x, 0.5, cond)
        assert not reference.requires_grad
    assert_close(reference, base, atol=1e-6, rtol=0)
    assert_close(policy.velocity(x, 0.5, cond), moved, atol=0, rtol=0)
    assert all(parameter.requires_grad for parameter in policy.trainable_parameters())
    assert len(policy.trainable_parameters()) == len(names)


@pytest.mark.parametrize("make", [tiny.flux, tiny.z_image])
def test_lora_of_the_other_families(make) -> None:
    policy = FlowPolicy(make(), height=16, width=16, max_sequence_length=16)
    policy.add_lora(rank=2, alpha=4)
    cond, x = policy.encode(["a", "b c"]), noise(policy, 2)
    policy.velocity(x, 0.5, cond).square().mean().backward()
    ups = {name: p for name, p in policy._lora().items() if "lora_B" in name}
    assert all(parameter.grad is not None for parameter in ups.values())
    kinds = {name.split(".lora_B")[0].split(".", 2)[2] for name in ups}
    expected = (
        {"attn.to_q", "attn.to_add_out", "ff.net.0.proj", "ff_context.net.2"}
        if make is tiny.flux
        else {"attention.to_q", "attention.to_out.0", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"}
    )
    assert expected <= kinds


def test_lora_state_round_trip_and_mismatch() -> None:
    first, second = FlowPolicy(tiny.sd3()), FlowPolicy(tiny.sd3())
    for policy, seed in ((first, 0), (second, 1)):
        policy.add_lora(rank=2, alpha=4, seed=seed)
    for parameter in first.trainable_parameters():
        parameter.data += 0.1
    second.load_lora_state(first.lora_state())
    x = noise(first)
    assert_close(
        second.velocity(x, 0.5, second.encode(PROMPTS)), first.velocity(x, 0.5, first.encode(PROMPTS)), atol=0, rtol=0
    )
    state = first.lora_state()
    state.pop(next(iter(state)))
    with pytest.raises(GuerdonError, match="does not fit"):
        second.load_lora_state(state)
    with pytest.raises(GuerdonError, match="add_lora first"):
        FlowPolicy(tiny.sd3()).load_lora_state(first.lora_state())


def test_saved_names_load_in_diffusers(tmp_path) -> None:
    policy, other = FlowPolicy(tiny.sd3()), tiny.sd3()
    policy.add_lora(rank=2, alpha=2)
    for parameter in policy.trainable_parameters():
        parameter.data += 0.1
    type(other).save_lora_weights(tmp_path, transformer_lora_layers=policy.lora_state())
    other.load_lora_weights(tmp_path)
    plain = FlowPolicy(other)
    x = noise(policy)
    expected = policy.velocity(x, 0.5, policy.encode(PROMPTS))
    assert_close(plain.velocity(x, 0.5, plain.encode(PROMPTS)), expected, atol=1e-5, rtol=0)


def test_detached_uncond_changes_the_gradient_and_not_the_value() -> None:
    gradients, values = [], []
    for detach in (False, True):
        policy = FlowPolicy(tiny.sd3(), guidance=3.0, detach_uncond=detach)
        policy.add_lora(rank=2, alpha=4)
        v = policy.velocity(noise(policy), 0.5, policy.encode(PROMPTS))
        v.square().mean().backward()
        values.append(v.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trainable_parameters() if p.grad is not None]))
    assert_close(values[0], values[1], atol=1e-5, rtol=1e-5)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4


def test_using_swaps_parameters_and_puts_them_back() -> None:
    policy = FlowPolicy(tiny.sd3())
    policy.add_lora(rank=2, alpha=4)
    cond, x = policy.encode(PROMPTS), noise(policy)
    own = policy.velocity(x, 0.5, cond).detach()
    with pytest.raises(RuntimeError, match="stop"), policy.using([p.data + 1 for p in policy.trainable_parameters()]):
        assert (policy.velocity(x, 0.5, cond) - own).abs().max() > 1e-2
        raise RuntimeError("stop")
    assert_close(policy.velocity(x, 0.5, cond).detach(), own, atol=0, rtol=0)


def test_half_precision_base_keeps_float32_latents_and_adapters() -> None:
    pipeline = tiny.sd3()
    pipeline.to(torch.bfloat16)
    policy = FlowPolicy(pipeline, guidance=2.0)
    policy.add_lora(rank=2, alpha=4)
    assert {p.dtype for p in policy.trainable_parameters()} == {torch.float32}
    v = policy.velocity(noise(policy), 0.5, policy.encode(PROMPTS))
    assert v.dtype == torch.float32
    assert policy.generate(["a"], [1], num_steps=2).dtype == torch.float32


def test_unknown_transformer_is_refused() -> None:
    class Other:
        transformer = torch.nn.Linear(1, 1)

    with pytest.raises(GuerdonError, match="no flow policy for transformer 'Linear'"):
        FlowPolicy(Other())
