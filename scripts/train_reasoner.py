"""Re-make the embedded reasoner in ``src/guerdon/assets/reasoner``.

    python scripts/train_reasoner.py --out src/guerdon/assets/reasoner

About ten minutes on one core; the same arguments give the same weights on the same machine. At the end it prints the
accuracy on problems that were held out, greedy and sampled, by the rule verifier. The number of steps sets how good it
is: after 450 it solves a fifth of them, after 800 seven in ten when greedy and three in ten when sampled.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from guerdon.core.arithmetic import Form, word_problem
from guerdon.policies.continuation import CheckpointPolicy
from guerdon.policies.reasoner import (
    LONGEST,
    embedded_reasoner,
    new_reasoner,
    problem_rows,
    reasoner_tokenizer,
    split_of,
    split_problems,
    worked_text,
)  # fmt: skip
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.trainers.warm_start import Example, example, teach

TRIES = 8
BUCKET = 16  # batches of texts of like length are cut from so many batches at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/guerdon/assets/reasoner"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--wrong", type=float, default=0.35, help="share of wrong solutions in the training texts")
    parser.add_argument("--problems", type=int, default=200, help="held-out problems to grade it on")
    parser.add_argument("--grade-only", action="store_true", help="grade what is in --out, without training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.grade_only:
        grade(*embedded_reasoner(arguments.out), arguments.problems)
        return
    tokenizer = reasoner_tokenizer()
    model: Any = new_reasoner(tokenizer, hidden=arguments.hidden, layers=arguments.layers)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, arguments)
    model.half().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    grade(model.float(), tokenizer, arguments.problems)


def train(model: Any, tokenizer: Any, arguments: argparse.Namespace) -> None:
    """Next-token prediction of the solution given the problem."""
    started, losses = time.monotonic(), []

    def told(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 50 == 0:
            print(f"step {step}  loss {np.mean(losses[-50:]):.4f}  {time.monotonic() - started:.0f} s", flush=True)

    rows = batches(tokenizer, arguments.batch, arguments.wrong)
    teach(model, tokenizer.pad_token_id, rows, arguments.steps, learning_rate=arguments.learning_rate, on_step=told)


def batches(tokenizer: Any, size: int, wrong: float) -> Iterator[list[Example]]:
    """Batches of texts of like length, of new problems for ever."""
    rng = np.random.default_rng(1)
    place = 0
    while True:
        rows: list[Example] = []
        while len(rows) < BUCKET * size:
            problem = word_problem(1, place)
            place += 1
            if split_of(problem) == "train":
                asked = problem.question if rng.random() < 0.7 else problem.paraphrase
                turn = [{"role": "user", "content": asked}]
                rows.append(example(tokenizer, turn, worked_text(problem, rng, wrong=wrong)))
        rows.sort(key=lambda row: len(row[0]))
        waiting = [rows[start : start + size] for start in range(0, len(rows), size)]
        rng.shuffle(waiting)  # type: ignore[arg-type]
        while waiting:
            yield waiting.pop()


def grade(model: Any, tokenizer: Any, count: int) -> None:
    """Print the share of right answers by the telling of the problem: greedy, sampled, and any of eight samples."""
    problems = split_problems(count, 2, "held_out")
    for form in get_args(Form):
        rows = problem_rows(problems, form=form, chat=False)
        told, right = [row["prompt"] for row in rows], [row["solution"] for row in rows]
        for name, temperature, tries in (("greedy", 1e-4, 1), ("sampled", 1.0, TRIES)):
            policy = CheckpointPolicy(
                model, tokenizer, chat=True, temperature=temperature, top_p=1.0, top_k=len(tokenizer),
                max_new_tokens=LONGEST, batch_size=100,
            )  # fmt: skip
            texts = policy(told * tries, 0)
            scores = np.array(rule_verifier(told * tries, texts, solution=right * tries), float).reshape(tries, count)
            best = f", any of {tries}: {scores.max(axis=0).mean():.3f}" if tries > 1 else ""
            print(f"{form}, {name}: {scores.mean():.3f} of {count}{best}", flush=True)
            if form == "question":
                print("\n".join(f"  {text!r}" for text in texts[:4]), flush=True)


if __name__ == "__main__":
    main()
