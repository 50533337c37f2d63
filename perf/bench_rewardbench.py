"""RewardBench 2 from a local file to the written page, on 1,865 made-up rows: what share of it is the model's forward?

The rows have RewardBench 2's subsets, counts and numbers of answers, and made-up words in answers of many lengths. The
run is the one of ``guerdon bench rewardbench-2 --model ... --data ... --out ...``, timed whole, less the loading of
model and libraries; the forward is the time inside the model's backbone and head.

Equal results: the scores that the run wrote down against a plain loop over a part of the answers, one at a time,
through transformers' own classifier (largest difference), and the subset scores against the published rule retold here
in plain Python from all written scores.

Last line: {"name", "ratio", "parity", ...}: ratio is the time of a whole run by that in the forward (1 = nothing but
the forward), median over the rounds, and beside it by processor time, which other programs on the machine disturb less;
parity is the larger of the two differences. A larger model brings the ratio nearer to 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_dialogues import made_pairs, save_classifier
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from guerdon.benchmarks.graded import BenchmarkResult
from guerdon.benchmarks.rewardbench_2 import load_rewardbench_2, rewardbench_2
from guerdon.cli.sheets import finish
from guerdon.core.preferences import text_of
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.rewards.subject import ScalarSubject

COUNTS = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495}
TWINS = 51
PARITY = 1e-5
PLAIN = 200


def made_rows(share: float) -> list[dict[str, Any]]:
    """Rows in the published columns: one right answer and three wrong ones, and pairs of Ties rows."""
    counts = {name: max(1, round(share * count)) for name, count in COUNTS.items()}
    twins = max(2, round(share * TWINS))
    pairs = iter(made_pairs(2 * sum(counts.values()) + 6 * twins, seed=1))
    rows = []

    def row(row_id: str, subset: str, right: int, answers: int) -> None:
        drawn = [next(pairs) for _ in range((answers + 1) // 2)]
        texts = [text_of(answer) for pair in drawn for answer in (pair.chosen, pair.rejected)][:answers]
        rows.append({
            "id": row_id, "subset": subset, "prompt": text_of(drawn[0].prompt[:1]), "chosen": texts[:right],
            "rejected": texts[right:], "num_correct": right, "total_completions": answers,
        })  # fmt: skip

    for name, count in counts.items():
        for number in range(count):
            row(f"{name} {number}", name, 1, 4)
    for number in range(twins):
        row(f"ref:{number}", "Ties", 1, 4)
        row(f"tied:{number}", "Ties", 4, 8)
    return rows


def now() -> np.ndarray:
    """Seconds by the clock and of processor time."""
    return np.array([time.perf_counter(), time.process_time()])


class Stopwatch:
    """Seconds inside some modules' forward, by the clock and of processor time."""

    def __init__(self, *modules: torch.nn.Module) -> None:
        self.seconds, self._began = np.zeros(2), np.zeros(2)
        for module in modules:
            module.register_forward_pre_hook(self._start)
            module.register_forward_hook(self._stop)

    def _start(self, *_: Any) -> None:
        self._began = now()

    def _stop(self, *_: Any) -> None:
        self.seconds += now() - self._began


def retold(rows: list[dict[str, Any]], scores: dict[str, list[float]]) -> dict[str, float]:
    """Every subset's score by the published rule, in plain Python."""
    credit: dict[str, list[float]] = {}
    gap: dict[str, dict[str, float]] = {"ref": {}, "tied": {}}
    spread: dict[str, float] = {}
    for row in rows:
        own, right = scores[row["id"]], row["num_correct"]
        if row["subset"] != "Ties":
            best = max(own)
            credit.setdefault(row["subset"], []).append(1 / own.count(best) if own[0] == best else 0.0)
            continue
        kind, prompt = row["id"].split(":")
        gap[kind][prompt] = min(own[:right]) - max(own[right:])
        if kind == "tied":
            spread[prompt] = max(own[:right]) - min(own[:right])
    found = {name: sum(values) / len(values) for name, values in credit.items()}
    least = {prompt: min(gap["ref"][prompt], gap["tied"][prompt]) for prompt in spread}
    means = [
        sum(value > 0 for value in gap["tied"].values()) / len(spread),
        sum(value > 0 for value in gap["ref"].values()) / len(spread),
        sum(gap["tied"][prompt] > spread[prompt] for prompt in spread) / len(spread),
        sum(least[prompt] > spread[prompt] for prompt in spread) / len(spread),
        sum(math.tanh(least[prompt] / spread[prompt] - 1) for prompt in spread) / len(spread),
    ]
    found["Ties"] = sum(weight * mean for weight, mean in zip((0.3, 0.3, 0.2, 0.2, 0.01), means, strict=True))
    return found


def one_by_one(folder: Path, rows: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Scores of some of the answers, evenly spread, by transformers' classifier."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    places = [(row, place) for row in rows for place in range(row["total_completions"])]
    found = {}
    for row, place in places[:: max(1, len(places) // PLAIN)]:
        turns = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": (row["chosen"] + row["rejected"])[place]},
        ]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        inputs = tokenizer(text, return_tensors="pt")
        if inputs["input_ids"].shape[1] > model.config.max_position_embeddings:
            continue  # a run cuts what is longer, and says so
        with torch.no_grad():
            found[row["id"], place] = float(model(**inputs).logits[0, 0])
    return found


def timed(
    model: ScalarRewardModel, watch: Stopwatch, data: Path, out: Path, limit: int | None = None
) -> tuple[BenchmarkResult, list[np.ndarray], np.ndarray]:
    """One run: its result, the seconds of reading, of asking and grading and of the page, and those in the forward."""
    watch.seconds = np.zeros(2)
    marks = [now()]
    items = load_rewardbench_2(data)
    marks.append(now())
    result = rewardbench_2(ScalarSubject(model), items, out=out, data=str(data), limit=limit, progress=False)
    marks.append(now())
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        finish(result.sheet(), result.to_dict(), out, as_json=True)
    marks.append(now())
    return result, [after - before for before, after in pairwise(marks)], watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, each a whole run")
    parser.add_argument("--share", type=float, default=1.0, help="of RewardBench 2's rows")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = made_rows(options.share)
    with tempfile.TemporaryDirectory() as place:
        folder, data = Path(place) / "model", Path(place) / "rows.jsonl"
        save_classifier(folder, made_pairs(200), "qwen3", options.hidden, options.layers)
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        model = ScalarRewardModel.from_pretrained(folder)
        watch = Stopwatch(model.backbone, model.head)
        timed(model, watch, data, Path(place) / "first", limit=50)  # what is imported or built once
        rounds = [timed(model, watch, data, Path(place) / f"out{turn}") for turn in range(options.rounds)]
        result, out = rounds[-1][0], Path(place) / f"out{options.rounds - 1}"
        lines = [json.loads(line) for line in (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
        scores = {line["id"]: line["values"] for line in lines}
        plain = one_by_one(folder, rows)
    far = max(abs(scores[name][place] - value) for (name, place), value in plain.items())
    own = {one.name: one.score.value for one in result.subjects[0].subsets}
    wanted = retold(rows, scores)
    off = max(abs(own[name] - wanted[name]) for name in wanted)
    print("subset scores: " + ", ".join(f"{name} {value:.4f}" for name, value in own.items()))
    print("the rule retold: " + ", ".join(f"{name} {wanted[name]:.4f}" for name in own))
    # [rounds, (reading, asking and grading, page), (clock, processor)], and the forward's share of the second
    parts, forward = np.array([one[1] for one in rounds]), np.array([one[2] for one in rounds])
    medians = np.median(parts[:, :, 0], axis=0)
    whole = parts.sum(axis=1)
    ratio, own_ratio = np.median(whole / forward, axis=0)
    answers = sum(row["total_completions"] for row in rows)
    print(
        f"{len(rows)} rows, {answers} answers, qwen3 of {options.layers} layers of {options.hidden}, "
        f"{torch.get_num_threads()} threads: {np.median(whole[:, 0]):.1f} s, forward {np.median(forward[:, 0]):.1f} s, "
        f"reading the file {medians[0]:.2f} s, all else before the page "
        f"{np.median(parts[:, 1, 0] - forward[:, 0]):.2f} s, page and JSON {medians[2]:.2f} s"
    )
    told = {
        "name": "rewardbench_2", "ratio": round(float(ratio), 3), "ratio_processor_time": round(float(own_ratio), 3),
        "parity": max(far, off), "scores_off": far, "subsets_off": off,
    }  # fmt: skip
    print(json.dumps(told), flush=True)
    sys.exit(0 if max(far, off) < PARITY else 1)


if __name__ == "__main__":
    main()
