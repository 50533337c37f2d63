"""Teach an untrained verifier that equal is YES and different is NO, before it sees a response as people write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.progress import progress
from guerdon.models.reference_verifier import ReferenceVerifier

__all__ = ["teach_to_compare"]

Batch = tuple[torch.Tensor, torch.Tensor]
_IGNORED, _LISTED = -100, 16


def teach_to_compare(
    verifier: ReferenceVerifier,
    answers: Sequence[str],
    *,
    said: Sequence[str] = ("{}",),
    steps: int = 300,
    batch: int = 32,
    seed: int = 0,
    rate: float = 5e-3,
) -> list[float]:
    """Train the verifier's model in place, twice ``steps`` steps; returns the loss of each.

    First on lists of ``answers`` in which each is followed by YES where it came before, else by NO: sixteen verdicts a
    text, without which small models stay at chance. Then on cases: one of ``answers`` as reference, and the same or
    another one, in one of the forms ``said``, as response. A model that begins with labelled responses instead learns
    every shortcut in them and not to compare. Raises GuerdonError for fewer than two answers, or cases too long.
    """
    different = list(dict.fromkeys(answers))
    if len(different) < 2:
        raise GuerdonError(f"comparing is taught with at least 2 different answers, got {len(different)}")
    rng = np.random.default_rng(seed)
    makers: list[Callable[[], Batch]] = [
        lambda: _seen(verifier, different, batch, rng),
        lambda: _cases(verifier, different, said, batch, rng),
    ]
    losses: list[float] = []
    with progress(len(makers) * steps, "learning to compare") as bar:
        for make in makers:
            for loss in _climb(verifier.model, make, steps, rate):
                losses.append(loss)
                bar.advance(loss=loss)
    return losses


def _climb(model: Any, make: Callable[[], Batch], steps: int, rate: float) -> Iterator[float]:
    # Muon for the matrices inside the layers: AdamW alone does not get there in several times the steps.
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[Any] = [
        torch.optim.Muon(inner, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    model.train()
    for step in range(steps):
        ids, labels = make()
        loss = model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale = min(1.0, (step + 1) / 20) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
        yield float(loss.item())
    model.eval()


def _seen(verifier: ReferenceVerifier, answers: Sequence[str], batch: int, rng: np.random.Generator) -> Batch:
    """Lists of answers, each with its verdict behind it: whether it came before."""
    told = {one: verifier.tokenizer(f" {one}", add_special_tokens=False)["input_ids"] for one in answers}
    rows = []
    for _ in range(batch):
        said: list[str] = []
        ids: list[int] = []
        labels: list[int] = []
        for _ in range(_LISTED):
            again = bool(said) and rng.random() < 0.5
            one = said[int(rng.integers(len(said)))] if again else answers[int(rng.integers(len(answers)))]
            word = verifier.words[0 if one in said else 1]
            ids += [*told[one], word]
            labels += [_IGNORED] * len(told[one]) + [word]
            said.append(one)
        rows.append((ids, labels))
    return _padded(rows)


def _cases(
    verifier: ReferenceVerifier, answers: Sequence[str], said: Sequence[str], batch: int, rng: np.random.Generator
) -> Batch:
    """Cases of the verifier; only the verdict's token is a label."""
    rows = []
    for _ in range(batch):
        first, second = (answers[int(place)] for place in rng.choice(len(answers), size=2, replace=False))
        same = bool(rng.random() < 0.5)
        form = said[int(rng.integers(len(said)))]
        ids = verifier.encode("", first, form.format(first if same else second))
        if isinstance(ids, Failed):
            raise GuerdonError(f"an answer cannot be compared: {ids}")
        word = verifier.words[0 if same else 1]
        rows.append(([*ids, word], [_IGNORED] * len(ids) + [word]))
    return _padded(rows)


def _padded(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    # Pads come last and attention is causal, so that no real token sees one and no mask is needed.
    width = max(len(ids) for ids, _ in rows)
    return (
        torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows]),
        torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in rows]),
    )
