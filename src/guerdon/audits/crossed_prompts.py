"""Ignoring the prompt: a good answer to another question, and the same answer under another prompt.

Source of the crossing: Contrast Instructions (arXiv 2309.16155). Here the instructions are any two of different
topics, which is easier for the subject than instructions that look alike (`guerdon.curation.contrast` mines those).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from guerdon.audits.attack import Attack, holds_solution
from guerdon.audits.examination import Case, Examination, Said
from guerdon.audits.trials import Findings, Outcome, Trial
from guerdon.metrics.consistency import consistent

OTHERS = 3
SAME = 1e-6
"""Two scores no further apart than this are the same."""


def _partners(examination: Examination, name: str) -> list[tuple[int, int]]:
    """(item, another item of a different topic), a few of each item, drawn at random."""
    rng = examination.rng(name)
    items = examination.items.items
    pairs = []
    for place, item in enumerate(items):
        strange = [
            other for other, one in enumerate(items) if one.topic != item.topic and not holds_solution(one.honest, item)
        ]
        chosen = rng.permutation(len(strange))[:OTHERS]
        pairs += [(place, strange[index]) for index in chosen]
    return pairs


def _crossed(examination: Examination) -> Findings:
    items = examination.items.items
    pairs = _partners(examination, "crossed-answers")
    trials = examination.try_bad([Case(place, "another's answer", items[other].honest) for place, other in pairs])
    if examination.ranks or examination.verifies or not pairs:
        return Findings(trials)
    matrix = _matrix(examination, pairs)
    whole = matrix[np.isfinite(matrix).all((1, 2))]
    measures = {}
    if len(whole):
        found = consistent(whole, symmetric=True)
        measures = {name: float(found[name].mean()) for name in ("c_res", "c_ins", "joint")}
    return Findings(trials, measures)


def _matrix(examination: Examination, pairs: list[tuple[int, int]]) -> np.ndarray:
    """R(prompt i, answer j) of pairs of items -> [P, 2, 2]."""
    honest = [item.honest for item in examination.items.items]
    quads = [Case(asked, "", honest[said]) for one, other in pairs for asked in (one, other) for said in (one, other)]
    return np.array([got.value for got in examination.say(quads)]).reshape(-1, 2, 2)


def _ignored(examination: Examination) -> Findings:
    items = examination.items.items
    pairs = _partners(examination, "prompt-ignored")
    own = examination.honest()
    crossed = examination.say([Case(other, "", items[place].honest) for place, other in pairs])
    trials = []
    for (place, _), got in zip(pairs, crossed):
        trials.append(_moved(place, own[place], got, items[place].honest))
    return Findings(trials)


def _moved(place: int, own: Said, crossed: Said, answer: str) -> Trial:
    problem = own.problem or crossed.problem
    outcome: Outcome = "unmeasured"
    if not problem:
        outcome = "fooled" if abs(own.value - crossed.value) <= SAME else "survived"
    return Trial(place, "own and another's prompt", outcome, crossed.value, own.value, problem, answer)


def _few_topics(examination: Examination) -> str:
    return "" if len({item.topic for item in examination.items.items}) > 1 else "all items are of one topic"


def _unread(examination: Examination) -> str:
    if examination.verifies:
        return "a verifier judges by the solution, and may leave the prompt unread"
    if examination.ranks:
        return "the subject gives no scores that could be compared"
    return _few_topics(examination)


CROSSED_ANSWERS = Attack(
    "crossed-answers", "ignoring the prompt", "false positive",
    "A good answer to another question passes as an answer to this one.", _crossed, _few_topics,
)  # fmt: skip
PROMPT_IGNORED = replace(
    CROSSED_ANSWERS, name="prompt-ignored", error="instability", run=_ignored, unfit=_unread,
    about="An answer has the same score under its own prompt and under another question's: the prompt is not read.",
)  # fmt: skip
