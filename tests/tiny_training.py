"""A tiny DiffusionTrainer and a reward of the image alone, for the trainer's tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import tiny_pipelines as tiny
from guerdon.objectives.advantages import group_advantages
from guerdon.policies.flow import FlowPolicy
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.diffusion_config import DiffusionConfig

PROMPTS = ["a cat", "dogs", "rocks"]


@dataclass
class Scored:
    parts: dict[str, np.ndarray]
    valid: np.ndarray
    failures: dict[int, str] = field(default_factory=dict)

    def advantages(self, group_ids: torch.Tensor) -> torch.Tensor:
        rewards = torch.tensor(np.stack(list(self.parts.values())))
        return group_advantages(rewards, group_ids, valid=torch.tensor(self.valid))


def darkness(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
    values = -images.mean((1, 2, 3)).double().numpy()
    return Scored({"darkness": values}, np.ones(len(values), dtype=bool))


def config(**changes: Any) -> DiffusionConfig:
    base: dict[str, Any] = {
        "steps": 4, "num_steps": 5, "eval_steps": 3, "guidance": 1.0, "group_size": 4, "prompts_per_step": 2,
        "sample_batch": 4, "micro_batch": 3, "window": {"size": 2}, "branches": 1, "learning_rate": 1e-3,
        "clip_range": 1e-3, "lora_rank": 2, "lora_alpha": 4, "ema_every": 1, "kl": "none", "seed": 3,
        "checkpoint_every": 2,
    }  # fmt: skip
    return DiffusionConfig(**{**base, **changes})


def trainer(scorer: Any = darkness, prompts: Any = PROMPTS, run: Any = None, callbacks: Any = (), **changes: Any):
    policy = FlowPolicy(tiny.sd3(pixels=True, layers=1))
    return DiffusionTrainer(policy, scorer, prompts, config(**changes), run, callbacks=callbacks)
