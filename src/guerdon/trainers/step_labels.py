"""Supervised training of a step scorer: cross-entropy at the end of each labelled step, on transformers' ``Trainer``.

The rows are those of TRL's stepwise supervision: prompt, completions (the steps), labels (whether each is right).
Source of the defaults: Fine-Grained RLHF (arXiv 2306.01693), its classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.models.scalar.backbone import quiet
from guerdon.models.step_scorer import StepScorer

__all__ = ["StepTuningConfig", "TunedSteps", "segment_accuracy", "step_sequences", "tune_step_scorer"]

_IGNORED = -100
StepRow = Mapping[str, Any]


class StepTuningConfig(Config):
    """How a step scorer is trained. Defaults are those of Fine-Grained RLHF's relevance model, but for the epochs.

    epochs: 50 there, on 2,853 answers; steps: instead of epochs. The schedule is linear, warm-up as a share.
    """

    seed: int = Field(0, ge=0)
    epochs: float = Field(3.0, gt=0)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(24, ge=1)
    learning_rate: float = Field(5e-6, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    bf16: bool = False


@dataclass(frozen=True)
class TunedSteps:
    """Steps done, the mean loss of the last tenth of the logged ones, and rows left out as too long."""

    steps: int
    loss: float
    left_out: int


def step_sequences(scorer: StepScorer, rows: Sequence[StepRow]) -> tuple[list[dict[str, list[int]]], int]:
    """Sequences {"input_ids", "labels"} of rows {"prompt", "completions", "labels"}, and how many were left out.

    A label is true, false, or None for a step that nobody judged. Raises GuerdonError for a row whose labels are not
    one a step, or a scorer whose form has more than two classes to tell apart by name.
    """
    right, other = scorer.classes
    found, left_out = [], 0
    for place, row in enumerate(rows):
        steps, labels = list(row["completions"]), list(row["labels"])
        if len(steps) != len(labels):
            raise GuerdonError(f"row {place}: {len(labels)} labels for {len(steps)} steps")
        encoded = scorer.encode(row["prompt"], steps)
        if isinstance(encoded, Failed) or not steps or all(one is None for one in labels):
            left_out += 1
            continue
        told = [_IGNORED] * len(encoded.ids)
        for where, label in zip(encoded.places, labels):
            if label is not None:
                told[where] = right if label else other
        found.append({"input_ids": encoded.ids, "labels": told})
    return found, left_out


def tune_step_scorer(
    scorer: StepScorer, rows: Sequence[StepRow], config: StepTuningConfig, folder: str | Path
) -> TunedSteps:
    """Train the scorer's model, in place. Raises GuerdonError where no row is left, or the loss is not finite."""
    from transformers import DataCollatorForTokenClassification, PrinterCallback, Trainer, TrainingArguments

    sequences, left_out = step_sequences(scorer, rows)
    if not sequences:
        raise GuerdonError(f"none of {len(rows)} rows has labelled steps that fit into {scorer.max_length} tokens")
    rounds = config.steps or max(1, round(config.epochs * len(sequences) / config.batch_size))
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=rounds, per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate, lr_scheduler_type="linear", warmup_steps=round(config.warmup * rounds),
        weight_decay=config.weight_decay, bf16=config.bf16, seed=config.seed, data_seed=config.seed,
        logging_steps=max(1, rounds // 50), save_strategy="no", report_to="none", disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(), remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    with quiet():
        trainer = Trainer(
            model=scorer.model,
            args=arguments,
            train_dataset=sequences,  # type: ignore[arg-type]
            data_collator=DataCollatorForTokenClassification(scorer.tokenizer, label_pad_token_id=_IGNORED),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    scorer.model = trainer.accelerator.unwrap_model(trainer.model).eval()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    loss = sum(losses[-max(1, len(losses) // 10) :]) / max(1, len(losses[-max(1, len(losses) // 10) :]))
    if not losses or not torch.isfinite(torch.tensor(loss)):
        raise GuerdonError(f"the step scorer's loss is {loss} after {rounds} steps; lower learning_rate")
    return TunedSteps(rounds, loss, left_out)


def segment_accuracy(scorer: StepScorer, rows: Sequence[StepRow]) -> dict[str, float]:
    """Share of the labelled steps that the scorer calls rightly, and what two constants would get.

    Returned: "accuracy", "all_right" and "all_wrong" (the baselines that the released code reports), "steps", and
    "failed", the rows that it could not read. Raises GuerdonError where no step has a label.
    """
    said = scorer([row["prompt"] for row in rows], [list(row["completions"]) for row in rows])
    calls: list[tuple[bool, bool]] = []
    for row, scores in zip(rows, said):
        if not isinstance(scores, Failed):
            calls += [(p > 0.5, bool(label)) for p, label in zip(scores, row["labels"]) if label is not None]
    if not calls:
        raise GuerdonError(f"none of the steps of {len(rows)} rows has both a label and a score")
    right = sum(label for _, label in calls) / len(calls)
    return {
        "accuracy": sum(call == label for call, label in calls) / len(calls),
        "all_right": right,
        "all_wrong": 1 - right,
        "steps": float(len(calls)),
        "failed": float(sum(isinstance(one, Failed) for one in said)),
    }
