"""Supervised beginnings: next-token prediction of the answer, and a small policy made of a system's own examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.processes import first_goes_first
from guerdon.core.progress import progress
from guerdon.models.tiny_causal import tiny_causal
from guerdon.trainers.keyed_grpo import COMPLETE, mark_complete, quiet_trl
from guerdon.trainers.language_watch import answer_ids

__all__ = ["Example", "batches_of", "example", "teach", "warm_start"]

Example = tuple[list[int], int]
"""(ids of a prompt and its answer, where that begins which is learnt)."""
_IGNORED = -100


def example(tokenizer: Any, prompt: Any, answer: str) -> Example:
    """A prompt (messages, or a text) and its answer, tokenised apart, as they will be when an answer is sampled."""
    asked = answer_ids(tokenizer, prompt)
    return [*asked, *tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id], len(asked)


def batches_of(examples: Sequence[Example], size: int, seed: int) -> Iterable[list[Example]]:
    """Batches without end: pass after pass over the examples, each in an order keyed by (seed, pass)."""
    if not examples or size < 1:
        raise GuerdonError(f"batches need examples and a size of at least 1, got {len(examples)} and {size}")
    passed = 0
    order: list[int] = []
    while True:
        while len(order) < size:
            order += np.random.default_rng([seed, passed]).permutation(len(examples)).tolist()
            passed += 1
        chosen, order = order[:size], order[size:]
        yield [examples[place] for place in chosen]


def teach(
    model: Any, pad_id: int, batches: Iterable[list[Example]], steps: int, *, learning_rate: float = 5e-3,
    on_step: Callable[[int, float], None] | None = None,
) -> float:  # fmt: skip
    """``steps`` of next-token prediction of the answers, with warm-up and cosine decay; the mean loss of the last 20.

    on_step: told (steps done, loss). Raises GuerdonError where the batches run out before.
    """
    # Muon for the matrices inside the layers, AdamW for embeddings and norms: half the steps of AdamW alone.
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[Any] = [
        torch.optim.Muon(inner, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    warm = max(1, steps // 20)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    losses: list[float] = []
    model.train()
    for batch in islice(batches, steps):
        ids, labels = _padded(batch, pad_id)
        # Pads come last and attention is causal, so no real token sees one and the mask can be left out.
        loss = model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            schedule.step()
        losses.append(float(loss.item()))
        if on_step is not None:
            on_step(len(losses), losses[-1])
    model.eval()
    if len(losses) < steps:
        raise GuerdonError(f"{steps} steps were asked for, but there were batches for {len(losses)} only")
    return float(np.mean(losses[-20:]))


def warm_start(
    rows: Sequence[tuple[Any, str]], folder: Path, *, steps: int, batch: int = 32, hidden: int = 96, layers: int = 2,
    vocab: int = 800, learning_rate: float = 5e-3, seed: int = 0,
    encode: Callable[[Any, Any, str], Example] = example,
) -> tuple[Any, Any]:  # fmt: skip
    """(model, tokenizer) of a small ``Qwen3ForCausalLM`` taught (prompt, answer) rows from nothing; kept in ``folder``.

    What ``folder`` holds already is loaded instead, so a run that goes on begins with the same policy.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with first_goes_first():
        if not (folder / COMPLETE).is_file():
            said = [turn["content"] for prompt, _ in rows if not isinstance(prompt, str) for turn in prompt]
            said += [prompt for prompt, _ in rows if isinstance(prompt, str)]
            model, tokenizer = tiny_causal(
                [*said, *(answer for _, answer in rows)], hidden=hidden, layers=layers, vocab=vocab, seed=seed
            )
            examples = [encode(tokenizer, prompt, answer) for prompt, answer in rows]
            with progress(steps, "warm start") as bar:
                teach(
                    model, int(tokenizer.pad_token_id), batches_of(examples, batch, seed), steps,
                    learning_rate=learning_rate, on_step=lambda step, loss: bar.advance(1, loss=loss),
                )  # fmt: skip
            with quiet_trl():
                model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            mark_complete(folder)
    with quiet_trl():
        kept: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return kept.eval(), AutoTokenizer.from_pretrained(folder)


def _padded(batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels [B, T] of a batch; what is asked, and padding, has the label that the loss leaves out."""
    length = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), length), pad)
    labels = torch.full((len(batch), length), _IGNORED)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return ids, labels
