"""Supervised training of a verifier's language model: the loss is on the verdict's token alone.

L = -log P(y | question, response, reference), y the first token of YES or NO.
Source: One Token to Fool LLM-as-a-Judge (arXiv 2507.08794), on top of TRL's ``SFTTrainer``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.processes import count
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.models.reference_verifier import ReferenceVerifier
from guerdon.models.scalar.backbone import quiet
from guerdon.trainers.keyed_grpo import COMPLETE, latest_complete

__all__ = ["TuningConfig", "Tuned", "tune_tokens", "tune_verifier", "verdict_sequences"]

_IGNORED = -100


class TuningConfig(Config):
    """How a language model is tuned. Defaults are the paper's table 11 (rate, batch, micro-batch, one epoch).

    The schedule and its warm-up are UNVERIFIED, ours. batch_size: rows an optimiser step, over all processes;
    micro_batch: rows a forward pass, fewer where the batch is smaller. steps: instead of ``epochs``. lora: rank of
    adapters, which are merged at the end; None trains everything.
    """

    seed: int = Field(0, ge=0)
    epochs: float = Field(1.0, gt=0)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(128, ge=1)
    micro_batch: int = Field(4, ge=1)
    learning_rate: float = Field(5e-6, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    lora: int | None = Field(None, ge=1)
    bf16: bool = False
    gradient_checkpointing: bool = False
    save_every: int = Field(200, ge=1)


@dataclass(frozen=True)
class Tuned:
    """What came of a training: steps done, the mean loss of the last tenth of the logged ones, and rows left out."""

    steps: int
    loss: float
    left_out: Mapping[str, int]


def verdict_sequences(
    verifier: ReferenceVerifier, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, list[int]]], dict[str, int]]:
    """Sequences {"input_ids", "labels"} of verifier rows, all labels but the verdict's ignored; and rows left out.

    A row is {"question", "reference", "response", "label"}; the tokens are those that the verifier judges by. Left out
    are rows that are too long for it. Raises GuerdonError for a label that is neither YES nor NO.
    """
    found, left_out = [], Counter[str]()
    for row in rows:
        if row["label"] not in ("YES", "NO"):
            raise GuerdonError(f"the label of a verifier row is YES or NO, got {row['label']!r}")
        ids = verifier.encode(str(row["question"]), str(row["reference"]), str(row["response"]))
        if isinstance(ids, Failed):
            left_out[ids.kind] += 1
            continue
        word = verifier.words[0 if row["label"] == "YES" else 1]
        found.append({"input_ids": [*ids, word], "labels": [_IGNORED] * len(ids) + [word]})
    return found, dict(left_out)


def tune_verifier(
    verifier: ReferenceVerifier,
    rows: Sequence[Mapping[str, Any]],
    config: TuningConfig,
    folder: RunFolder,
    *,
    stage: str,
    resume: bool = False,
) -> Tuned:
    """Train the verifier's model, in place, on rows; see `tune_tokens`. Raises GuerdonError where no row fits."""
    sequences, left_out = verdict_sequences(verifier, rows)
    if not sequences:
        raise GuerdonError(f"none of {len(rows)} rows fits into {verifier.max_length} tokens")
    model, tuned = tune_tokens(
        verifier.model, verifier.tokenizer, sequences, config, folder, stage=stage, resume=resume
    )
    verifier.model = model
    if hasattr(verifier.chat, "model"):
        verifier.chat.model = model
    return Tuned(tuned.steps, tuned.loss, left_out)


def tune_tokens(
    model: Any,
    tokenizer: Any,
    sequences: Sequence[Mapping[str, list[int]]],
    config: TuningConfig,
    folder: RunFolder,
    *,
    stage: str,
    resume: bool = False,
) -> tuple[Any, Tuned]:
    """The model trained (in place) on {"input_ids", "labels"}, and what came of it.

    Metrics go to the run's ``metrics.jsonl`` under ``stage``, transformers' checkpoints to ``tuning/STAGE``. With
    ``resume`` the stage goes on from its last whole checkpoint and gives the numbers of an uninterrupted run.
    Raises GuerdonError for sequences other than those of the stage to resume, and for a loss that is not finite.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    place = folder.path / "tuning" / stage
    checkpoint = latest_complete(place) if resume else None
    told = hashlib.sha256(json.dumps([config.model_dump(mode="json"), list(map(dict, sequences))]).encode()).hexdigest()
    if checkpoint is not None and (checkpoint / "data").read_text(encoding="utf-8") != told:
        raise GuerdonError(f"{checkpoint}: made with other rows or settings; use a new folder")
    processes = count()
    micro = min(config.micro_batch, max(1, config.batch_size // processes))
    together = micro * processes
    if config.batch_size % together:
        raise GuerdonError(f"batch_size {config.batch_size} is no multiple of {processes} processes x {micro} rows")
    a_pass = math.ceil(len(sequences) / config.batch_size)
    total = config.steps or max(1, math.ceil(config.epochs * a_pass))
    folder.rollback(int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1, stage=stage)
    adapters = None
    if config.lora is not None:
        from peft import LoraConfig

        adapters = LoraConfig(r=config.lora, lora_alpha=2 * config.lora, target_modules="all-linear")
    pad = tokenizer.pad_token_id
    losses: list[float] = []
    with quiet(), progress(total, stage.replace("_", " ")) as bar:
        settings = SFTConfig(
            output_dir=str(place), max_steps=total, per_device_train_batch_size=micro,
            gradient_accumulation_steps=config.batch_size // together, learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule, warmup_steps=math.ceil(config.warmup * total),
            weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm, seed=config.seed,
            data_seed=config.seed, logging_steps=1, save_strategy="steps", save_steps=config.save_every,
            save_total_limit=2, report_to="none", disable_tqdm=True, bf16=config.bf16, fp16=False,
            gradient_checkpointing=config.gradient_checkpointing, use_cpu=not torch.cuda.is_available(),
            max_length=None, loss_type="nll", dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        )  # fmt: skip
        if checkpoint is not None:
            bar.advance(int(checkpoint.name.rpartition("-")[2]))
        trainer = SFTTrainer(
            model=model, args=settings, train_dataset=Dataset.from_list([dict(one) for one in sequences]),
            processing_class=tokenizer, peft_config=adapters,
            data_collator=DataCollatorForLanguageModeling(tokenizer.eos_token_id if pad is None else pad),
            callbacks=[_logging(folder, stage, bar, losses, told)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trained: Any = trainer.accelerator.unwrap_model(trainer.model)
    trained = trained.merge_and_unload() if config.lora is not None else trained
    tail = losses[-max(1, len(losses) // 10) :]
    return trained.eval(), Tuned(total, sum(tail) / len(tail) if tail else math.nan, {})


def _logging(folder: RunFolder, stage: str, bar: Any, losses: list[float], told: str) -> Any:
    """A callback: lines of metrics.jsonl, progress, the marks of whole checkpoints, an end at a loss that is nan."""
    from transformers import TrainerCallback

    class Logging(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if not logs or "loss" not in logs:
                return
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise GuerdonError(f"{stage}: the loss of step {state.global_step} is {loss}")
            losses.append(loss)
            if state.is_world_process_zero:
                kept = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy")
                folder.log(state.global_step, {key: float(logs[key]) for key in kept if key in logs}, stage=stage)
                bar.advance(loss=loss)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                (saved / "data").write_text(told, encoding="utf-8")
                # Lines that the folder keeps when it is opened to resume.
                folder.mark_done(f"{stage}.saved", {"step": int(state.global_step)})
                (saved / COMPLETE).touch()

    return Logging()
