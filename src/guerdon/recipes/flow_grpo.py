"""Flow-GRPO: Training Flow Matching Models via Online RL (arXiv 2505.05470).

    repeat
        for each of ``prompts_per_step`` prompts draw ``group_size`` images by the SDE, in few steps       (rollout)
        score them; A = (r - mean of the group) / (deviation + 1e-4)                                (RewardBank)
        maximise min(A rho, A clip(rho, 1 - e, 1 + e)) - beta KL(policy || base) over the denoising steps
    sample by the ODE, in many steps, with the averaged weights

Rewards are summed with their weights and standardised once, by the deviation over all images of a step (the published
``global_std``). Presets: "sd3.5" the full SDE, "sd3.5-fast" a window of two steps, "embedded" for any machine.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from guerdon.core.catalogue import load_reward
from guerdon.core.config import Config
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.policies.embedded import clip_processor, load_clip
from guerdon.recipes._reward_run import (
    Watching,
    arm_figures,
    draw_arms,
    eight_bit,
    load_policy,
    load_prompts,
    save_pictures,
)
from guerdon.rewards.bank import BankScores, RewardBank
from guerdon.rewards.image.clip import CLIPScore
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.diffusion_config import DiffusionConfig, WindowConfig

TITLE = "Flow-GRPO: Training Flow Matching Models via Online RL"


class RewardTerm(Config):
    """One reward: its name in the catalogue or module:function, its weight, and the configuration it is built from."""

    reward: str
    weight: float = 1.0
    config: dict[str, Any] = Field(default_factory=dict)


def _published(**changes: Any) -> DiffusionConfig:
    """SD3.5-M on 32 GPUs (card, defaults): 10 steps in training, 40 in evaluation, groups of 24 for 48 prompts."""
    published: dict[str, Any] = dict(
        algorithm="grpo", steps=2000, num_steps=10, eval_steps=40, guidance=4.5, detach_uncond=True, group_size=24,
        prompts_per_step=48, sample_batch=24, micro_batch=8, noise_level=0.7, window=None, branches=1,
        learning_rate=3e-4, clip_range=1e-4, kl="mu", kl_weight=0.01, updates_per_step=2, lora_rank=32, lora_alpha=64,
        ema_decay=0.9, ema_every=8, recompute_old=True, checkpoint_every=30,
    )  # fmt: skip
    return DiffusionConfig(**{**published, **changes})


class FlowGRPOConfig(Config):
    """Flow-GRPO; the defaults are the paper's PickScore run on SD3.5-M.

    model: "embedded", or a diffusers pipeline on the hub or in a folder. data: rows with a "prompt"; None: captions of
    the embedded photographs. rewards: any number, by name. reward_std: deviation over the "batch" or the "group".
    held_out: prompts kept for evaluation, ``images_a_prompt`` each. watch_every: steps between two looks at what the
    reward does not see. steps is UNVERIFIED: the paper gives no count for PickScore.
    """

    preset: Literal["sd3.5", "sd3.5-fast", "embedded"] = "sd3.5"
    seed: int = Field(42, ge=0)
    model: str = "stabilityai/stable-diffusion-3.5-medium"
    data: str | None = None
    rewards: dict[str, RewardTerm] = Field(default_factory=lambda: {"pick_score": RewardTerm(reward="pick_score")})
    reward_std: Literal["group", "batch"] = "batch"
    held_out: int = Field(64, ge=1)
    images_a_prompt: int = Field(4, ge=2)
    watch_every: int = Field(10, ge=1)
    generator: DiffusionConfig = Field(default_factory=_published)


CONFIG = FlowGRPOConfig
PRESETS: dict[str, dict[str, Any]] = {
    "sd3.5": {},
    "sd3.5-fast": {
        "generator": _published(
            noise_level=0.8, window=WindowConfig(size=2), clip_range=1e-5, kl="none", kl_weight=0.0
        ).model_dump(),
    },
    "embedded": {
        "model": "embedded",
        "rewards": {"alignment": {"reward": "guerdon.recipes.flow_grpo:embedded_alignment"}},
        "held_out": 24,
        "watch_every": 5,
        "generator": _published(
            steps=20, eval_steps=20, guidance=1.0, detach_uncond=False, group_size=8, prompts_per_step=8,
            sample_batch=64, micro_batch=32, clip_range=1e-3, kl_weight=0.04, lora_rank=16, lora_alpha=32,
            ema_decay=0.5, ema_every=1, recompute_old=False, checkpoint_every=5, keep_checkpoints=2,
        ).model_dump(),
    },
}  # fmt: skip


def embedded_alignment() -> CLIPScore:
    """Cosine of image and prompt by the package's own tiny CLIP, in [-1, 1]."""
    model, tokenizer = load_clip()
    return CLIPScore(model, clip_processor(tokenizer), name="alignment", batch_size=256)


def run(config: FlowGRPOConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train in ``folder``; returns the summary, which is written there too, beside the adapter and pictures."""
    started = time.monotonic()
    terms = {name: (load_reward(term.reward, **term.config), term.weight) for name, term in config.rewards.items()}
    bank = RewardBank(terms, combine="sum_then_z", std=config.reward_std)
    policy = load_policy(config.model, config.generator.guidance)
    prompts, held = load_prompts(config.data, config.seed, config.held_out)
    settings = config.generator.model_copy(update={"seed": config.seed})
    with progress(settings.steps, "flow-grpo") as bar:
        watching = Watching(held, config.watch_every, bar)

        def score(prompts: list[str], images: Tensor, step: int, **columns: list[Any]) -> BankScores:
            return bank.score(prompts, eight_bit(images), **columns)

        trainer = DiffusionTrainer(policy, score, prompts, settings, folder, callbacks=[watching], stage="generator")
        watching.begin(trainer)
        trainer.train(resume=resume)
    folder.save_checkpoint(trainer.step, trainer.lora_state(), stage="adapter")
    arms, texts = draw_arms(trainer, held, config.images_a_prompt)
    figures = {}
    for name, images in arms.items():
        label = "base" if name == "base" else "Flow-GRPO"
        figures[name] = arm_figures(label, images, texts, bank.score(texts, images).parts, config.seed)
    save_pictures(folder, arms, texts, shown=12)
    summary = {
        "system": "flow-grpo", "title": TITLE, "seed": config.seed, "steps": trainer.step, "arms": figures,
        "verdicts": verdicts(figures), "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    folder.write_summary(summary)
    return summary


def verdicts(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """What the run was to show: every reward up, diversity within a tenth."""
    base, tuned = arms["base"], arms["tuned"]
    rows = []
    for name, before in base["rewards"].items():
        gain = tuned["rewards"][name]["mean"] - before["mean"]
        rows.append({"name": f"{name}: tuned minus base", "target": "above 0", "value": gain, "holds": gain > 0})
    kept = tuned["diversity"] / base["diversity"] if base["diversity"] else float("nan")
    rows.append({"name": "diversity: tuned over base", "target": "at least 0.90", "value": kept, "holds": kept >= 0.9})
    return rows
