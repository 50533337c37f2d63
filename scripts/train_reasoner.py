"""Re-make the embedded reasoner in ``src/guerdon/assets/reasoner``.

    python scripts/train_reasoner.py --out src/guerdon/assets/reasoner

About ten minutes on one core; the same arguments give the same weights on the same machine. At the end it prints the
accuracy on problems that were held out, greedy and sampled, by the rule verifier. The number of steps sets how good it
is: after 450 it solves a fifth of them, after 800 seven in ten when greedy and three in ten when sampled.
"""

from __future__ import annotations

import argparse
import math
import time
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
    """Next-token prediction of the solution given the problem, with warm-up and cosine decay."""
    # Muon for the matrices inside the layers, AdamW for embeddings and norms: half the steps of AdamW alone.
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[Any] = [
        torch.optim.Muon(inner, lr=arguments.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=arguments.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    steps, warm = arguments.steps, max(1, arguments.steps // 20)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    rng = np.random.default_rng(1)
    started, place, waiting, losses = time.monotonic(), 0, [], []
    model.train()
    for step in range(steps):
        if not waiting:
            rows = []
            while len(rows) < BUCKET * arguments.batch:
                problem = word_problem(1, place)
                place += 1
                if split_of(problem) == "train":
                    told = problem.question if rng.random() < 0.7 else problem.paraphrase
                    rows.append(example(tokenizer, told, worked_text(problem, rng, wrong=arguments.wrong)))
            rows.sort(key=lambda row: len(row[0]))
            waiting = [rows[start : start + arguments.batch] for start in range(0, len(rows), arguments.batch)]
            rng.shuffle(waiting)  # type: ignore[arg-type]
        ids, labels = padded(waiting.pop(), tokenizer.pad_token_id)
        # Pads come last and attention is causal, so no real token sees one and the mask can be left out.
        loss = model(input_ids=ids, labels=labels).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - started
            print(f"step {step + 1}  loss {np.mean(losses[-50:]):.4f}  {seconds:.0f} s", flush=True)
    model.eval()


def example(tokenizer: Any, told: str, worked: str) -> tuple[list[int], int]:
    """(ids of a whole conversation, where the answer begins)."""
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": told}], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    # Tokenised apart, as it will be when sampled: a merge across the border would never be seen again.
    return [*turn, *tokenizer(worked, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id], len(turn)


def padded(batch: list[tuple[list[int], int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels [B, T] of a batch; what is asked, and padding, has the label -100."""
    length = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), length), pad)
    labels = torch.full((len(batch), length), -100)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return ids, labels


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
