"""Scoring 2,000 dialogues of many lengths, in pairs that share a prompt: ScalarRewardModel against what people use.

The peers, on the same weights, in float32, from messages to scores (template, tokenizer and forward pass):

pipeline      transformers' text-classification pipeline, function_to_apply="none".
padded loop   batches in the given order, tokenised together and padded to their longest, as trainers score.

Both run with the batch size, of those tried on a part of the dialogues, that took the least processor time, one by one
included. The sides take turns. Last line: {"name", "ratio", "parity", ...}: ratio in pairs a second to the faster peer
and median over the rounds; parity is the largest difference of a score from that of the plain forward of one dialogue
at a time; beside them both ratios by processor time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from made_dialogues import made_pairs, save_classifier
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from transformers.utils import logging

from guerdon.models.scalar.model import ScalarRewardModel

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
TRIAL = 400
PARITY = 1e-5
Dialogues = list[list[dict[str, Any]]]
Side = Callable[[Dialogues], list[float]]


def padded_loop(model: Any, tokenizer: Any, batch_size: int) -> Side:
    """Scores in batches as they come."""

    @torch.no_grad()
    def score(dialogues: Dialogues) -> list[float]:
        scores: list[float] = []
        for first in range(0, len(dialogues), batch_size):
            texts = [
                tokenizer.apply_chat_template(one, tokenize=False) for one in dialogues[first : first + batch_size]
            ]
            scores += model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0].tolist()
        return scores

    return score


def through_pipeline(model: Any, tokenizer: Any, batch_size: int) -> Side:
    """Scores through the text-classification pipeline."""
    classify: Any = pipeline("text-classification", model=model, tokenizer=tokenizer)

    def score(dialogues: Dialogues) -> list[float]:
        texts = [tokenizer.apply_chat_template(one, tokenize=False) for one in dialogues]
        return [one["score"] for one in classify(texts, batch_size=batch_size, function_to_apply="none")]

    return score


def best_batch_size(make: Callable[[int], Side], dialogues: Dialogues) -> int:
    """The batch size that takes the least processor time on a part of the dialogues."""
    times = {}
    for size in BATCH_SIZES:
        side = make(size)
        side(dialogues[:64])
        before = time.process_time()
        side(dialogues[:TRIAL])
        times[size] = time.process_time() - before
    return min(times, key=lambda size: times[size])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; each runs every side once")
    parser.add_argument("--dialogues", type=int, default=2000)
    parser.add_argument("--kind", choices=("qwen3", "llama"), default="qwen3")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    pairs = made_pairs(options.dialogues // 2)
    dialogues = [pair.conversation(side) for pair in pairs for side in ("chosen", "rejected")]  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        save_classifier(Path(folder), pairs, options.kind, options.hidden, options.layers)
        ours = ScalarRewardModel.from_pretrained(folder)
        classifier = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = {
        name: best_batch_size(lambda size, make=make: make(classifier, tokenizer, size), dialogues)
        for name, make in (("pipeline", through_pipeline), ("padded loop", padded_loop))
    }
    sides: dict[str, Side] = {
        "ScalarRewardModel": ours.scores,
        "pipeline": through_pipeline(classifier, tokenizer, sizes["pipeline"]),
        "padded loop": padded_loop(classifier, tokenizer, sizes["padded loop"]),
    }
    plain = padded_loop(classifier, tokenizer, 1)(dialogues)
    parity = max(abs(a - b) for a, b in zip(ours.scores(dialogues), plain, strict=True))

    wall: dict[str, list[float]] = {name: [] for name in sides}
    used: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began, before = time.perf_counter(), time.process_time()
            sides[name](dialogues)
            wall[name].append(time.perf_counter() - began)
            used[name].append(time.process_time() - before)
    for name in names:
        rate, own = len(pairs) / statistics.median(wall[name]), statistics.median(used[name])
        batch = f" in batches of {sizes[name]}" if name in sizes else ""
        print(f"{name}{batch}: {rate:.1f} pairs/s, {own:.2f} s of processor time")
    print(
        f"{options.kind}, {options.layers} layers of {options.hidden}, {len(dialogues)} dialogues, "
        f"{torch.get_num_threads()} threads, {options.rounds} rounds"
    )
    peers = names[1:]
    ratios = {peer: ratio(wall[peer], wall["ScalarRewardModel"]) for peer in peers}
    own_ratios = {peer: ratio(used[peer], used["ScalarRewardModel"]) for peer in peers}
    told = {
        "name": "reward_scoring", "ratio": min(ratios.values()), "ratio_processor_time": min(own_ratios.values()),
        "ratios": ratios, "ratios_processor_time": own_ratios, "parity": parity,
    }  # fmt: skip
    print(json.dumps(told), flush=True)
    sys.exit(0 if parity < PARITY else 1)


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 3)


if __name__ == "__main__":
    main()
