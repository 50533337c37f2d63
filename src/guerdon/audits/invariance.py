"""The same answer asked again, alone, and in other company: a score belongs to the answer, not to the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.audits.attack import Attack
from guerdon.audits.examination import Examination, Said
from guerdon.audits.items import Item
from guerdon.audits.trials import Findings, Outcome, Trial

TOLERANCE = 1e-5
"""Two scores no further apart than this, relative to the larger of 1 and their size, are the same in float32."""
ROWS = 16
"""Items of which the answers are asked one at a time."""
LONG = "A long answer keeps the short one company. " * 60


def _rows(examination: Examination, count: int | None = None) -> list[tuple[int, Item, str]]:
    items = list(enumerate(examination.items.items))[:count]
    answers = [(place, item, text) for place, item in items for text in (item.honest, item.wrong) if text is not None]
    return answers


def _asked(examination: Examination, rows: Sequence[tuple[int, Item, str]]) -> list[Said]:
    return examination.ask([item.conversation(text) for _, item, text in rows], [item for _, item, _ in rows])


def _compared(
    variant: str, rows: Sequence[tuple[int, Item, str]], first: Sequence[Said], again: Sequence[Said]
) -> list[Trial]:
    trials = []
    for (place, _, text), one, other in zip(rows, first, again):
        problem = one.problem or other.problem
        outcome: Outcome = "unmeasured"
        if not problem:
            limit = TOLERANCE * max(1.0, abs(one.value), abs(other.value))
            outcome = "fooled" if abs(one.value - other.value) > limit else "survived"
        trials.append(Trial(place, variant, outcome, other.value, one.value, problem, text))
    return trials


def _determinism(examination: Examination) -> Findings:
    if examination.ranks:
        return _same_choice(examination)
    rows = _rows(examination)
    first, again = _asked(examination, rows), _asked(examination, rows)
    return _measured(_compared("asked twice", rows, first, again))


def _same_choice(examination: Examination) -> Findings:
    asked = [(place, item) for place, item in enumerate(examination.items.items) if item.wrong is not None]
    places = [place for place, _ in asked]
    answers = [[item.honest, item.wrong or ""] for _, item in asked]
    first, again = examination.choose(places, answers), examination.choose(places, answers)
    trials = []
    for place, one, other in zip(places, first, again):
        problem = one.problem or other.problem
        outcome: Outcome = "unmeasured" if problem else "survived" if one.value == other.value else "fooled"
        trials.append(Trial(place, "asked twice", outcome, other.value, one.value, problem))
    return Findings(trials)


def _batch(examination: Examination) -> Findings:
    rows = _rows(examination, ROWS)
    first = _asked(examination, rows)
    alone = [got for row in rows for got in _asked(examination, [row])]
    order = examination.rng("batch-invariance").permutation(len(rows))
    mixed = _asked(examination, [rows[place] for place in order])
    shuffled = [mixed[place] for place in np.argsort(order)]
    item = examination.items.items[0]
    beside = _asked(examination, [(0, item, LONG), *rows, (0, item, LONG)])[1:-1]
    few = [got for start in range(0, len(rows), 3) for got in _asked(examination, rows[start : start + 3])]
    trials = [
        *_compared("alone", rows, first, alone),
        *_compared("in another order", rows, first, shuffled),
        *_compared("beside long answers", rows, first, beside),
        *_compared("in batches of three", rows, first, few),
    ]
    return _measured(trials)


def _measured(trials: Sequence[Trial]) -> Findings:
    gaps = [abs(one.score - one.bar) for one in trials if one.outcome in ("fooled", "survived")]
    return Findings(trials, {"largest difference": float(max(gaps))} if gaps else {})


def _ranks(examination: Examination) -> str:
    return "the subject compares the answers to one prompt at a time, so it has no batch" if examination.ranks else ""


def _no_choice(examination: Examination) -> str:
    if examination.ranks and all(item.wrong is None for item in examination.items.items):
        return "the items have no wrong answers"
    return ""


DETERMINISM = Attack(
    "determinism", "invariance", "instability", "The same answer, asked twice, gets two scores.",
    _determinism, _no_choice,
)  # fmt: skip
BATCH_INVARIANCE = Attack(
    "batch-invariance", "invariance", "instability",
    "An answer's score depends on what shares its batch: size, order, or padding beside a long answer.", _batch, _ranks,
)  # fmt: skip
