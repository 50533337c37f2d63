"""Adv-GRPO: The Image as Its Own Reward (arXiv 2511.20256).

    repeat
        draw ``group_size`` images for each prompt (CPS, first two of ten steps stochastic)       (rollout)
        score them and as many reference images with the discriminator R
        the schedule says whose turn it is:
            R:          separate references from the images just drawn                            (hinge)
            generator:  Flow-GRPO on R, no KL: the references are the anchor, not the base

Two discriminators: "head", a small head on frozen DINOv2 tokens (the paper's), and "detector", a small detector with
replay buffer and averaged weights (RealGen V2's), which needs no pretrained features. Schedules: "every", the paper's 9
discriminator turns to 1 of the generator; "behind", a discriminator turn only while references score below the images
(its PickScore rule); "always", both players in every step, which uses all samples. Not built: the updatable PickScore
itself (variant (a)). Deviation: a head's references need not match the prompt of the image, because a head sees none.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from guerdon.core import photographs
from guerdon.core.config import Config
from guerdon.core.data import load_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.images import as_tensor
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.metrics.diversity import features, mmd2
from guerdon.recipes._adv_grpo_game import AdversarialGame, Discriminator, DiscriminatorConfig
from guerdon.recipes._reward_run import (
    Watching,
    arm_figures,
    draw_arms,
    eight_bit,
    load_policy,
    save_pictures,
)
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.diffusion_config import DiffusionConfig, WindowConfig

TITLE = "The Image as Its Own Reward: Reinforcement Learning with Adversarial Reward for Image Generation"


def _published(**changes: Any) -> DiffusionConfig:
    """SD3.5-M on 8 GPUs (card, generator update). 910 steps of the 9 : 1 schedule are its 1,000 "global steps"."""
    published: dict[str, Any] = dict(
        algorithm="grpo", steps=910, num_steps=10, eval_steps=40, guidance=4.5, group_size=16, prompts_per_step=48,
        sample_batch=16, micro_batch=8, noise_level=0.8, kind="cps", window=WindowConfig(size=2, lo=0, hi=2),
        branches=1, learning_rate=3e-4, clip_range=1e-5, kl="none", kl_weight=0.0, updates_per_step=2, lora_rank=32,
        lora_alpha=64, ema_decay=0.9, ema_every=8, recompute_old=True,
    )  # fmt: skip
    return DiffusionConfig(**{**published, **changes})


class AdvGRPOConfig(Config):
    """Adv-GRPO; the defaults are the paper's DINO variant on SD3.5-M.

    references: rows with "image" and "prompt" (the paper: 8 images of a stronger model a prompt), whose prompts the
    generator is trained on; None: the embedded photographs. held_out: prompts kept for evaluation.
    """

    preset: Literal["sd3.5", "embedded"] = "sd3.5"
    seed: int = Field(42, ge=0)
    model: str = "stabilityai/stable-diffusion-3.5-medium"
    data: str | None = None
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    held_out: int = Field(64, ge=1)
    images_a_prompt: int = Field(4, ge=2)
    watch_every: int = Field(10, ge=1)
    generator: DiffusionConfig = Field(default_factory=_published)


CONFIG = AdvGRPOConfig
PRESETS: dict[str, dict[str, Any]] = {
    "sd3.5": {},
    "embedded": {
        "model": "embedded",
        "discriminator": {"kind": "detector", "schedule": "always", "steps": 4, "warm_up": 40, "lr": 1e-3},
        "held_out": 24,
        "watch_every": 5,
        "generator": _published(
            steps=20, eval_steps=10, guidance=1.0, group_size=8, prompts_per_step=8, sample_batch=64, micro_batch=32,
            window=WindowConfig(size=3, lo=0, hi=8), clip_range=1e-3, lora_rank=16, lora_alpha=32, ema_decay=0.5,
            ema_every=1, recompute_old=False, checkpoint_every=5, keep_checkpoints=2,
        ).model_dump(),
    },
}  # fmt: skip


def load_references(config: AdvGRPOConfig, shape: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """Reference images [N, 3, H, W] of the generator's size and their prompts."""
    if config.data is None:
        crops = photographs.sample(16 * config.held_out, seed=config.seed, marked_share=0.0)
        pictures, prompts = as_tensor(list(crops.images)), list(crops.captions)
    else:
        rows = load_rows(config.data, required=("image", "prompt"))
        pictures = as_tensor([row["image"].convert("RGB").resize((shape[1], shape[0])) for row in rows])
        prompts = [str(prompt) for prompt in rows["prompt"]]
    if tuple(pictures.shape[2:]) != shape:
        pictures = torch.nn.functional.interpolate(pictures, size=shape, mode="area")
    return eight_bit(pictures), prompts


def run(config: AdvGRPOConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train in ``folder``; returns the summary, which is written there too, beside the adapter and pictures."""
    started = time.monotonic()
    policy = load_policy(config.model, config.generator.guidance)
    scale = policy.pipeline.vae_scale_factor
    pictures, prompts = load_references(config, (policy.latent_shape[1] * scale, policy.latent_shape[2] * scale))
    unique = list(dict.fromkeys(prompts))
    if len(unique) < 2:
        raise GuerdonError(f"{config.data}: references of at least 2 different prompts are needed, got {len(unique)}")
    held = unique[: min(config.held_out, len(unique) // 2)]
    unseen = torch.tensor([prompt in held for prompt in prompts])
    judge = Discriminator(config.discriminator, config.seed)
    game = AdversarialGame(judge, pictures[~unseen], config.seed)
    settings = config.generator.model_copy(update={"seed": config.seed})
    with progress(settings.steps, "adv-grpo") as bar:
        watching = Watching(held, config.watch_every, bar)
        trainer = DiffusionTrainer(
            policy, game, unique[len(held) :], settings, folder, callbacks=[game, watching], stage="generator"
        )
        if trainer.accelerator.num_processes > 1:
            raise GuerdonError("adv-grpo runs in one process: its discriminator is not shared between processes")
        watching.begin(trainer)
        for turn in range(config.discriminator.warm_up if trainer.step == 0 else 0):
            texts = [unique[len(held) :][place % (len(unique) - len(held))] for place in range(32)]
            fake = eight_bit(trainer.evaluate(texts, [turn * 32 + place for place in range(32)], ema=False))
            judge.learn(game.draw(-1 - turn, len(fake)), fake, turn)
        trainer.train(resume=resume)
    folder.save_checkpoint(trainer.step, trainer.lora_state(), stage="adapter")
    arms, texts = draw_arms(trainer, held, config.images_a_prompt)
    gold, width = features(pictures[unseen]), float(torch.pdist(features(pictures[unseen])).median())
    figures = {}
    for name, images in arms.items():
        scores = {"realness": judge.score(images).cpu().numpy()}
        figures[name] = arm_figures("base" if name == "base" else "Adv-GRPO", images, texts, scores, config.seed)
        figures[name]["mmd2"] = mmd2(gold, features(images), bandwidth=width)
    save_pictures(folder, arms, texts, shown=12)
    nearer = figures["tuned"]["mmd2"] - figures["base"]["mmd2"]
    kept = figures["tuned"]["diversity"] / figures["base"]["diversity"]
    summary = {
        "system": "adv-grpo", "title": TITLE, "seed": config.seed, "steps": trainer.step, "arms": figures,
        "verdicts": [
            {"name": "distance to unseen references (MMD^2): tuned minus base", "target": "below 0", "value": nearer,
             "holds": nearer < 0},
            {"name": "diversity: tuned over base", "target": "at least 0.90", "value": kept, "holds": kept >= 0.9},
        ],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    folder.write_summary(summary)
    return summary
