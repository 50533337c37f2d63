"""Adv-GRPO's second player: a discriminator that is the reward, and the turns in which it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from guerdon.core.config import Config
from guerdon.models.detectors.foundation_head import BACKBONE, FoundationHead
from guerdon.models.detectors.small import make_detector
from guerdon.policies.rollout import keyed_generator
from guerdon.recipes._reward_run import eight_bit
from guerdon.rewards.bank import RewardBank
from guerdon.rewards.image.detector import ScoreReward
from guerdon.trainers import diffusion_state as packing
from guerdon.trainers.adversarial import AdversarialDetector, Turn, UpdateSchedule, always, every, when_generator_leads
from guerdon.trainers.diffusion import DiffusionTrainer


class DiscriminatorConfig(Config):
    """The discriminator. steps: its optimiser steps in one turn (the paper's: 1). lr: the paper's 1e-4 for the head.

    warm_up: turns on the base's images before the first step, so that the first reward means something (ours).
    backbone, image_size: of the "head". family: of the "detector".
    """

    kind: Literal["head", "detector"] = "head"
    schedule: Literal["every", "behind", "always"] = "every"
    detector_turns: int = Field(9, ge=1)
    steps: int = Field(1, ge=1)
    warm_up: int = Field(0, ge=0)
    lr: float = Field(1e-4, gt=0)
    backbone: str = BACKBONE
    image_size: int = Field(518, ge=1)
    family: str = "cnn"

    def turns(self) -> UpdateSchedule:
        """The schedule as the trainer of the game reads it."""
        if self.schedule == "always":
            return always()
        if self.schedule == "behind":
            return when_generator_leads(share_samples=False)
        return every(self.detector_turns, 1, share_samples=False)


class Discriminator:
    """The head or the detector behind one interface: ``score``, ``learn``, tensors for checkpoints."""

    def __init__(self, config: DiscriminatorConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.player: FoundationHead | AdversarialDetector
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if config.kind == "head":
                self.player = FoundationHead.from_pretrained(
                    config.backbone, image_size=config.image_size, lr=config.lr
                )
            else:
                self.player = AdversarialDetector(
                    make_detector(config.family, seed=seed), steps_per_update=config.steps, batch_size=32, lr=config.lr,
                    ema_decay=0.9, seed=seed,
                )  # fmt: skip

    def score(self, images: Tensor) -> Tensor:
        return self.player.score(images)

    def learn(self, references: Tensor, images: Tensor, step: int) -> dict[str, float]:
        """One turn on references and the images just drawn."""
        if isinstance(self.player, AdversarialDetector):
            return self.player.update(references, images, step=step)
        found: dict[str, float] = {}
        for number in range(self.config.steps):
            key = keyed_generator(self.seed, step, "patches", number)
            found = self.player.update(references, images, generator=key)
        return found

    def state_tensors(self) -> dict[str, Tensor]:
        if isinstance(self.player, AdversarialDetector):
            return self.player.state_dict()
        head, parameters = self.player.head, list(self.player.head.parameters())
        return {f"head/{key}": value for key, value in head.state_dict().items()} | packing.pack_adam(
            self.player.optimiser, parameters
        )

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        if isinstance(self.player, AdversarialDetector):
            return self.player.load_state_dict(dict(tensors))
        head = {key.removeprefix("head/"): value for key, value in tensors.items() if key.startswith("head/")}
        self.player.head.load_state_dict(head)
        packing.fill_adam(self.player.optimiser, list(self.player.head.parameters()), tensors)


class AdversarialGame:
    """Scorer and callback: scores a step's images and references, asks whose turn it is, and lets the judge learn."""

    def __init__(self, judge: Discriminator, references: Tensor, seed: int) -> None:
        self.judge, self.references, self.seed = judge, references, seed
        self.turns = judge.config.turns()
        bounds = (0.0, 1.0) if judge.config.kind == "detector" else None
        self.bank = RewardBank({"realness": (ScoreReward(judge, "realness", range=bounds), 1.0)}, std="batch")
        self.images, self.chosen = torch.empty(0), torch.empty(0)
        self.reference_mean, self.turn = 0.0, Turn(False, False)

    def __call__(self, prompts: list[str], images: Tensor, step: int, **columns: list[Any]) -> Any:
        self.images = eight_bit(images)
        self.chosen = self.draw(step, len(images))
        scored = self.bank.score(prompts, self.images)
        self.reference_mean = float(self.judge.score(self.chosen).mean())
        self.turn = self.turns(step, self.reference_mean, scored.mean["realness"])
        # Out of turn the samples are the discriminator's only: the generator takes no step on them.
        return scored if self.turn.generator else dataclasses.replace(scored, failed=np.ones_like(scored.failed))

    def draw(self, step: int, count: int) -> Tensor:
        """References of a step, [count, 3, H, W], of any prompt."""
        key = keyed_generator(self.seed, step, "references")
        return self.references[torch.randint(len(self.references), (count,), generator=key)]

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: dict[str, float]) -> None:
        metrics["discriminator/reference_mean"] = self.reference_mean
        metrics["discriminator/generator_turn"] = float(self.turn.generator)
        if self.turn.detector:
            found = self.judge.learn(self.chosen, self.images, step - 1)
            metrics |= {f"discriminator/{key}": found[key] for key in ("accuracy", "gap", "loss") if key in found}

    def state_tensors(self) -> dict[str, Tensor]:
        return self.judge.state_tensors()

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.judge.load_state_tensors(tensors)
