"""How a scalar reward model is trained: what can be chosen, and the learning rate of each step."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from guerdon.core.config import Config

Schedule = Literal["constant", "linear", "cosine"]


class PreferenceConfig(Config):
    """How a reward model is trained.

    Defaults are those of Secrets of RLHF II (rate, batch, one epoch) with the schedule of Skywork-Reward-V2. Warm-up of
    3% and AdamW's betas are UNVERIFIED, ours.

    batch_size:     pairs an optimiser step, over all processes. steps: of the optimiser, instead of ``epochs``.
    schedule:       after a warm-up over the share ``warmup`` of the steps, constant, or down to 0 by a line or cosine.
    weight_decay:   of matrices; vectors (biases, norms) have none.
    margins:        use the pairs' own. label_smoothing: of pairs that have none of their own.
    centre, length_norm, floor:  of `guerdon.objectives.preference.bradley_terry`.
    alternate:      batches all with or all without pictures, in this ratio (`ModalityAlternatingSampler`).
    together:       so many consecutive pairs always share a batch (2 for contrast pairs). shuffle: anew each epoch.
    layout:         "shared": a pair is one row that holds its prompt once; "interleaved": two padded rows.
    token_budget:   tokens a forward and backward pass, padding included; None: 1024 to 2048 on a CPU, else 4096.
    precision:      "bf16": matrix products under autocast; parameters that train are float32 in any case.
    evaluate_every: steps between two looks at held-out pairs, besides the first and last; None: a quarter of the run.
    keep_best:      end with the parameters of the look with the best held-out accuracy, as Skywork-Reward-V2.
    """

    seed: int = Field(0, ge=0)
    epochs: float = Field(1.0, gt=0)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(5e-6, gt=0)
    schedule: Schedule = "linear"
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)
    margins: bool = True
    label_smoothing: float = Field(0.0, ge=0, le=1)
    centre: float = Field(0.0, ge=0)
    length_norm: Literal["log"] | None = None
    floor: float = Field(0.0, ge=0)
    alternate: tuple[int, int] | None = None
    together: int = Field(1, ge=1)
    shuffle: bool = True
    layout: Literal["shared", "interleaved"] = "shared"
    token_budget: int | None = Field(None, ge=1)
    precision: Literal["float32", "bf16"] = "float32"
    gradient_checkpointing: bool = False
    evaluate_every: int | None = Field(None, ge=1)
    keep_best: bool = False
    checkpoint_every: int = Field(200, ge=1)
    keep_checkpoints: int = Field(2, ge=1)


def learning_rate(config: PreferenceConfig, step: int, total: int) -> float:
    """Rate of a step, counted from 0, of ``total``; without warm-up as transformers' schedules of the same names.

    The warm-up begins above 0, so that the first step is not lost.
    """
    warm = math.ceil(config.warmup * total)
    if step < warm:
        return config.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return config.learning_rate * factor[config.schedule]
