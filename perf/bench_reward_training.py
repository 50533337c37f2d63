"""Training steps of RewardModelTrainer against TRL's RewardTrainer: same weights, pairs, order, batch, rate, float32.

TRL's defaults that would change the arithmetic are off (bf16, gradient checkpointing). The effective batch is the same
for both; how many pairs TRL takes at a time (the rest is accumulated) is what took it the least processor time in a
trial. Both get token ids; what is timed is train() alone. A third side, plain, is RewardModelTrainer with two padded
rows a pair and all of a batch at once: it tells how much the rows and the micro-batches by tokens bring.

The sides take turns. Last line: {"name", "ratio", "parity", ...}: ratio in tokens a second (tokens of both
conversations of every pair, however they are computed), median over the rounds; parity is the largest difference of a
step's loss; beside them the ratio by processor time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from made_dialogues import made_pairs, save_classifier
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging
from trl import RewardConfig, RewardTrainer

from guerdon.core.preferences import Pair
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

RATE, PARITY = 1e-3, 1e-4
Losses = list[float]
# Builds everything, and returns what is timed.
Side = Callable[[], Callable[[], Losses]]


class Recorder(RewardTrainer):
    """TRL's trainer, which keeps the losses that it would round."""

    seen: list[torch.Tensor]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.seen.append((loss[0] if isinstance(loss, tuple) else loss).detach())
        return loss


def through_trl(folder: str, rows: Dataset, batch_size: int, at_once: int, out: str) -> Side:
    """TRL, with ``at_once`` pairs a forward pass."""

    def build() -> Callable[[], Losses]:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        arguments = RewardConfig(
            output_dir=out, use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None,
            per_device_train_batch_size=at_once, gradient_accumulation_steps=batch_size // at_once, num_train_epochs=1,
            learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, weight_decay=0.0,
            train_sampling_strategy="sequential", save_strategy="no", logging_strategy="no", report_to="none",
            disable_tqdm=True, seed=0,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(folder)
        trainer = Recorder(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.seen = []

        def train() -> Losses:
            trainer.train()
            found = torch.stack(trainer.seen).view(-1, batch_size // at_once)
            return found.mean(1).tolist()

        return train

    return build


def ours(folder: str, pairs: list[Pair], batch_size: int, **changes: Any) -> Side:
    """RewardModelTrainer."""

    def build() -> Callable[[], Losses]:
        model = ScalarRewardModel.from_pretrained(folder)
        config = PreferenceConfig(
            batch_size=batch_size, epochs=1, learning_rate=RATE, schedule="linear", warmup=0.0, shuffle=False, **changes
        )
        trainer = RewardModelTrainer(model, pairs, config)
        return lambda: [line["loss"] for line in trainer.train()]

    return build


def timed(side: Side) -> tuple[Losses, float, float]:
    """Losses, seconds and processor seconds."""
    train = side()
    began, before = time.perf_counter(), time.process_time()
    losses = train()
    return losses, time.perf_counter() - began, time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; each runs every side once")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--kind", choices=("qwen3", "llama"), default="qwen3")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    logging.disable_progress_bar()

    pairs = made_pairs(options.steps * options.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        save_classifier(Path(folder), pairs, options.kind, options.hidden, options.layers)
        encode = ScalarRewardModel.from_pretrained(folder).encode
        rows = Dataset.from_list(
            [{f"{side}_ids": encode(pair.conversation(side)).ids for side in ("chosen", "rejected")} for pair in pairs]  # type: ignore[arg-type]
        )
        tokens = sum(len(row[name]) for row in rows for name in ("chosen_ids", "rejected_ids"))
        trial = rows.select(range(2 * options.batch_size))
        costs = {}
        for size in (4, 8, 16, options.batch_size):
            if options.batch_size % size == 0:
                costs[size] = timed(through_trl(folder, trial, options.batch_size, size, f"{folder}/out"))[2]
        at_once = min(costs, key=lambda size: costs[size])
        sides = {
            "RewardModelTrainer": ours(folder, pairs, options.batch_size),
            "TRL": through_trl(folder, rows, options.batch_size, at_once, f"{folder}/out"),
            "plain": ours(folder, pairs, options.batch_size, layout="interleaved", token_budget=10**9),
        }
        found: dict[str, Losses] = {}
        wall: dict[str, list[float]] = {name: [] for name in sides}
        used: dict[str, list[float]] = {name: [] for name in sides}
        names = list(sides)
        for turn in range(options.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found[name], seconds, own = timed(sides[name])
                wall[name].append(seconds)
                used[name].append(own)
    for name in names:
        rate, own = tokens / statistics.median(wall[name]), statistics.median(used[name])
        taken = f", {at_once} pairs at once" if name == "TRL" else ""
        print(f"{name}{taken}: {rate:.0f} tokens/s, {own:.2f} s of processor time, last loss {found[name][-1]:.6f}")
    print(
        f"{options.kind}, {options.layers} layers of {options.hidden}, {options.steps} steps of {options.batch_size} "
        f"pairs, {tokens} tokens, {torch.get_num_threads()} threads, {options.rounds} rounds"
    )
    mine = found.pop("RewardModelTrainer")
    difference = max(abs(a - b) for theirs in found.values() for a, b in zip(mine, theirs, strict=True))
    told = {
        "name": "reward_training",
        "ratio": ratio(wall["TRL"], wall["RewardModelTrainer"]),
        "ratio_processor_time": ratio(used["TRL"], used["RewardModelTrainer"]),
        "ratio_plain_processor_time": ratio(used["plain"], used["RewardModelTrainer"]),
        "parity": difference,
    }
    print(json.dumps(told), flush=True)
    sys.exit(0 if difference < PARITY else 1)


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 3)


if __name__ == "__main__":
    main()
