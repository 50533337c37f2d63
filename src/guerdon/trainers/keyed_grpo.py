"""TRL's GRPO trainer, resumable to the number: what runs that train a language model share.

TRL samples from the global random state, which a resumed run meets in another condition than the uninterrupted one as
soon as anything else (a callback, a data loader, a reward) has drawn from it.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import datasets
import torch
import transformers
from peft import LoraConfig
from trl import GRPOTrainer

from guerdon.trainers.rewriter_env import latent_seed

__all__ = [
    "COMPLETE", "KeyedGRPO", "KeyedSampling", "latest_complete", "lora", "mark_complete", "prompt_plan", "quiet_trl",
    "step_of",
]  # fmt: skip

COMPLETE = "complete"  # marker in a checkpoint whose every file has been written
T = TypeVar("T")


class KeyedSampling:
    """Mixed into a ``GRPOTrainer``: sampling at a step depends on (seed, step, process) and on the weights only."""

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        trainer: Any = self
        parent: Any = super()
        with _keyed_rng(trainer.args.seed, trainer.state.global_step, trainer.accelerator.process_index):
            return parent._prepare_inputs(generation_batch)


class KeyedGRPO(KeyedSampling, GRPOTrainer):
    """TRL's GRPO trainer with `KeyedSampling`."""


def prompt_plan(prompts: Sequence[T], count: int, seed: int) -> list[T]:
    """The prompts of a whole run in order: pass after pass over the data, each in an order keyed by (seed, pass).

    Laid out in advance so that a run resumed at step k needs nothing but k, in any pass.
    """
    plan: list[T] = []
    while len(plan) < count:
        order = list(prompts)
        random.Random(f"{seed}/{len(plan) // len(prompts)}").shuffle(order)
        plan += order
    return plan[:count]


def lora(rank: int, alpha: int | None = None) -> LoraConfig | None:
    """Adapters of ``rank`` on every linear layer; None for rank 0, which trains all weights."""
    if not rank:
        return None
    return LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def latest_complete(folder: Path) -> Path | None:
    """The last checkpoint in ``folder`` that was written to its end; a run killed while saving leaves one that was
    not."""
    complete = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """The step of a checkpoint's folder; 0 for none."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def mark_complete(folder: Path) -> None:
    """Say that every file in ``folder`` has been written."""
    with open(folder / COMPLETE, "w", encoding="utf-8") as file:
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def quiet_trl() -> Iterator[None]:
    """Without the bars of transformers and datasets, which would break up ours, and warnings about TRL's use."""
    shown, listed = transformers.utils.logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()
        if not listed:
            datasets.enable_progress_bars()


@contextmanager
def _keyed_rng(seed: int, step: int, process: int) -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(latent_seed(seed, step, "sampling", process))
        yield
