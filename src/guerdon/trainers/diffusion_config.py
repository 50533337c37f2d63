"""Configuration of DiffusionTrainer. Defaults are RealGen's FLUX recipe with GRPO-Guard (card, stage 2, V1)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.trainers.windows import FullWindow, RandomWindow, SlidingWindow, Window


class WindowConfig(Config):
    """The stochastic, trained steps. ``hi`` None: random windows start at N // 2 or before, sliding ones reach the end.

    schedule None: "sliding" for algorithm "mixgrpo", else "random".
    """

    size: int = Field(default=7, ge=1)
    lo: int = Field(default=0, ge=0)
    hi: int | None = None
    schedule: Literal["random", "sliding", "sliding_decay", "sliding_random"] | None = None
    interval: int = Field(default=25, ge=1)


class DiffusionConfig(Config):
    """What DiffusionTrainer does. Every key is read by it.

    algorithm: "guard" GRPO-Guard; "grpo" Flow-GRPO's plain ratio; "mixgrpo" the plain ratio on a sliding window;
    "nft" DiffusionNFT (no stochastic steps: noise_level, kind, window, branches, clip_range, divide_by_dt,
    recompute_old and ratio_tolerance do not apply).
    steps: training steps. num_steps / eval_steps: denoising steps of training rollouts and of ``evaluate``.
    guidance: the pipeline's own guidance scale, in sampling and training; detach_uncond: no gradient through the
    unconditional branch.
    group_size images a prompt, prompts_per_step prompts a training step (sampled without replacement, keyed by seed
    and step). sample_batch: images drawn at once. micro_batch: images a forward-backward pass of the update, with all
    their trained steps stacked in it.
    window None: the full SDE, trained on all steps but the last. branches: images sharing one ODE prefix.
    same_noise: one initial noise a prompt (DanceGRPO).
    updates_per_step: optimiser steps a training step; the second is slightly off-policy, hence the clip.
    kl: "none", "mu" as published, "mu_exact", or "velocity"; the reference pass runs only when kl_weight > 0.
    divide_by_dt: policy loss over |dt|; None: as the algorithm's paper, that is for "guard" only.
    recompute_old: take old means and log-probs from a pass batched like the update, not from the rollout; needed
    where the transformer's output depends on its batch (bf16 on a GPU).
    ratio_tolerance: largest |ratio - 1| allowed in the first on-policy update of a run.
    overlap_scoring: score finished groups in a thread while later ones are sampled.
    gradient_checkpointing: recompute activations in the backward pass.
    checkpoint_every: training steps between checkpoints (the last step is always saved); keep_checkpoints: how many
    stay, None for all. log_with: an accelerate tracker such as "tensorboard" or "wandb".
    """

    algorithm: Literal["grpo", "guard", "mixgrpo", "nft"] = "guard"
    steps: int = Field(default=220, ge=1)
    num_steps: int = Field(default=28, ge=1)
    eval_steps: int = Field(default=28, ge=1)
    guidance: float = 3.5
    detach_uncond: bool = False
    group_size: int = Field(default=21, ge=1)
    prompts_per_step: int = Field(default=24, ge=1)
    sample_batch: int = Field(default=21, ge=1)
    micro_batch: int = Field(default=3, ge=1)
    noise_level: float = Field(default=0.9, gt=0)
    kind: Literal["flow", "dance", "cps"] = "flow"
    window: WindowConfig | None = Field(default_factory=lambda: WindowConfig())
    branches: int = Field(default=3, ge=1)
    same_noise: bool = False
    learning_rate: float = Field(default=1e-4, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    eps: float = 1e-8
    clip_range: float = Field(default=2e-6, gt=0)
    adv_clip: float = Field(default=5.0, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    kl: Literal["none", "mu", "mu_exact", "velocity"] = "velocity"
    kl_weight: float = Field(default=4e-4, ge=0)
    divide_by_dt: bool | None = None
    updates_per_step: int = Field(default=2, ge=1)
    recompute_old: bool = False
    ratio_tolerance: float = Field(default=1e-5, gt=0)
    nft_beta: float = Field(default=1.0, gt=0)
    nft_schedule: Literal[1, 2] = 1
    nft_timesteps: int | None = Field(default=None, ge=1)
    lora_rank: int = Field(default=64, ge=1)
    lora_alpha: float = 128
    ema_decay: float = Field(default=0.9, ge=0, le=1)
    ema_every: int = Field(default=8, ge=1)
    overlap_scoring: bool = False
    gradient_checkpointing: bool = False
    seed: int = 42
    checkpoint_every: int = Field(default=10, ge=1)
    keep_checkpoints: int | None = Field(default=None, ge=1)
    log_with: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> DiffusionConfig:
        if self.group_size % self.branches:
            raise GuerdonError(f"group_size {self.group_size} is not a multiple of branches {self.branches}")
        if self.updates_per_step > self.group_size * self.prompts_per_step:
            raise GuerdonError(f"updates_per_step {self.updates_per_step} is more than the images of a step")
        if self.algorithm == "guard" and self.kind == "cps":
            raise GuerdonError(
                "algorithm 'guard' needs Gaussian log-probs and kind 'cps' has none; use algorithm 'grpo'"
            )
        if self.algorithm == "mixgrpo" and self.window is None:
            raise GuerdonError("algorithm 'mixgrpo' slides a window; window cannot be null")
        if self.algorithm == "nft" and self.kl not in ("none", "velocity"):
            raise GuerdonError(f"algorithm 'nft' has no step means; kl must be 'none' or 'velocity', not {self.kl!r}")
        self.make_window()
        return self

    @property
    def kl_used(self) -> bool:
        """Whether the reference policy is evaluated at all."""
        return self.kl != "none" and self.kl_weight > 0

    def make_window(self) -> Window:
        """Return the window that chooses the trained steps. Raises GuerdonError if it does not fit the steps."""
        if self.window is None or self.algorithm == "nft":
            return FullWindow()
        choice, size, lo = self.window, self.window.size, self.window.lo
        schedule = choice.schedule or ("sliding" if self.algorithm == "mixgrpo" else "random")
        end = self.num_steps - 1 if self.kind == "cps" else self.num_steps  # the last step of CPS has no noise
        if choice.hi is not None and choice.hi > end:
            raise GuerdonError(f"window.hi {choice.hi} is beyond the last trainable step of {self.num_steps}: {end}")
        if schedule == "random":
            hi = min(self.num_steps // 2 + size, end) if choice.hi is None else choice.hi
            return RandomWindow(lo, hi, size, self.seed)
        pace = {"sliding": "constant", "sliding_decay": "decay", "sliding_random": "random"}[schedule]
        hi = end if choice.hi is None else choice.hi
        return SlidingWindow(lo, hi, size, interval=choice.interval, pace=pace, seed=self.seed)  # type: ignore[arg-type]
