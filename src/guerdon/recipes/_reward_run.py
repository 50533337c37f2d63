"""What recipes share that climb a reward with a diffusion policy: policy, prompts, watch, final figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.core.data import load_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.photographs import sample
from guerdon.core.progress import Progress
from guerdon.core.runs import RunFolder
from guerdon.metrics.diversity import diversity
from guerdon.metrics.drift import drift
from guerdon.metrics.intervals import bootstrap_mean
from guerdon.policies.embedded import load_base
from guerdon.policies.flow import FlowPolicy
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.watch import HackingWatch

EMBEDDED = "embedded"
WATCH_SEED, TEST_SEED = 50_000, 10_000


def load_policy(model: str, guidance: float) -> FlowPolicy:
    """A policy over the embedded base, or over a diffusers pipeline of the hub or a folder, in half precision."""
    if model == EMBEDDED:
        return FlowPolicy(load_base(), guidance=guidance)
    from diffusers import DiffusionPipeline

    try:
        pipeline = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.float16)
    except OSError as error:
        cause = str(error).splitlines()[0]
        raise GuerdonError(f"model '{model}' cannot be loaded ({cause}); --preset embedded needs no hub") from None
    pipeline.vae.to(torch.float32)
    return FlowPolicy(pipeline, guidance=guidance)


def load_prompts(data: str | None, seed: int, held_out: int) -> tuple[list[str], list[str]]:
    """(training prompts, held-out ones): the column "prompt" of ``data``, or captions of the embedded photographs."""
    if data is None:
        prompts = sample(4 * held_out, seed=seed, marked_share=0.0).captions
    else:
        prompts = [str(prompt) for prompt in load_rows(data, required=("prompt",))["prompt"]]
    unique = list(dict.fromkeys(prompts))
    if len(unique) < 2:
        raise GuerdonError(f"{data}: training and evaluation need at least 2 different prompts, got {len(unique)}")
    held = min(held_out, len(unique) // 2)
    return unique[held:], unique[:held]


def eight_bit(images: Tensor) -> Tensor:
    """Rounded to 256 levels, as a stored picture is."""
    return (images * 255).round() / 255


class Watching:
    """Callback: shows progress, and every ``every`` steps measures what the reward does not see."""

    def __init__(self, prompts: Sequence[str], every: int, bar: Progress[Any]) -> None:
        self.prompts, self.every, self.bar = list(prompts), every, bar
        self.watch: HackingWatch | None = None

    def begin(self, trainer: DiffusionTrainer) -> None:
        """Measure the policy before its first step, which is what the later ones are compared with."""
        seeds = [WATCH_SEED + place for place in range(2 * len(self.prompts))]
        twice = self.prompts * 2  # two pictures a prompt: diversity needs a pair
        groups = list(range(len(self.prompts))) * 2
        self.watch = HackingWatch(lambda: eight_bit(trainer.evaluate(twice, seeds)), groups, {}, {}, patience=None)
        self.watch.measure(0)

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: dict[str, float]) -> None:
        self.bar.advance(step - self.bar.done, **{key: metrics[key] for key in metrics if key.startswith("reward/")})
        if self.watch is not None and step % self.every == 0:
            metrics |= {key: value for key, value in self.watch.measure(step).items() if key != "step"}

    def state_tensors(self) -> dict[str, Tensor]:
        base = None if self.watch is None else self.watch.base_images
        return {} if base is None else {"base_images": base}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        if self.watch is not None and "base_images" in tensors:
            self.watch.base_images = tensors["base_images"]


def draw_arms(trainer: DiffusionTrainer, prompts: Sequence[str], each: int) -> tuple[dict[str, Tensor], list[str]]:
    """Pictures of base and tuned (averaged) policy from the same seeds, ``each`` a prompt; and their prompts."""
    texts = [prompt for prompt in prompts for _ in range(each)]
    seeds = [TEST_SEED + place for place in range(len(texts))]
    with trainer.policy.reference():
        base = trainer.evaluate(texts, seeds, ema=False)
    return {"base": eight_bit(base), "tuned": eight_bit(trainer.evaluate(texts, seeds))}, texts


def arm_figures(
    label: str, images: Tensor, prompts: Sequence[str], scores: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """The figures of one arm: the mean of each of ``scores`` (name -> [N]) with its interval, diversity, drift."""
    rewards = {}
    for name, values in scores.items():
        found = bootstrap_mean(values, groups=list(prompts), seed=seed)
        rewards[name] = {"mean": found.value, "low": found.low, "high": found.high}
    meters = {name: float(values.mean()) for name, values in drift(images).items()}
    return {"label": label, "rewards": rewards, "diversity": diversity(images, list(prompts)), "drift": meters}


def save_pictures(folder: RunFolder, arms: dict[str, Tensor], prompts: Sequence[str], shown: int) -> None:
    """The first ``shown`` pictures of each arm as PNG, with an index of their prompts."""
    import json

    from guerdon.core.images import to_pil

    places = list(range(len(prompts)))[:: max(1, len(prompts) // shown)][:shown]
    for name, images in arms.items():
        (folder.samples / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(to_pil(images[places])):
            picture.save(folder.samples / name / f"{number:03d}.png")
    rows = [
        {"index": number, "prompt": prompts[place], "seed": TEST_SEED + place} for number, place in enumerate(places)
    ]
    (folder.samples / "index.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
