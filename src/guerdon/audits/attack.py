"""What an attack is, and the commonest kind: other answers in place of the honest one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from guerdon.audits.examination import Case, Examination
from guerdon.audits.items import Item
from guerdon.audits.trials import Error, Findings

Rng = np.random.Generator
Write = Callable[[Item, Rng], Mapping[str, str]]
"""The answers to try on an item, by variant."""
Fit = Callable[[Examination], str]
"""Why an attack does not apply to this subject and these items, in words; "" where it does."""
Base = Literal["honest", "wrong"]

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Attack:
    """A way to fool a subject.

    about:    one sentence: what is tried, and what a subject does that is fooled by it.
    run:      the trials; unfit: why there can be none here.
    version:  raise it when the attack changes, so that stored results of the old one are not taken for its own.
    """

    name: str
    family: str
    error: Error
    about: str
    run: Callable[[Examination], Findings]
    unfit: Fit = lambda examination: ""
    version: int = 1


def contentless(name: str, family: str, about: str, write: Write, *, unfit: Fit | None = None) -> Attack:
    """An attack by answers that say nothing about the question: for each item those of ``write``.

    Where a verifier's solution stands in such an answer, the answer might rightly pass: it is left out and counted.
    """

    def run(examination: Examination) -> Findings:
        rng = examination.rng(name)
        cases = [
            Case(place, variant, text)
            for place, item in enumerate(examination.items.items)
            for variant, text in write(item, rng).items()
        ]
        kept = [one for one in cases if not holds_solution(one.text, examination.items.items[one.item])]
        left_out = Counter({"the answer holds the solution": len(cases) - len(kept)})
        trials = examination.try_bad(kept)
        # A threshold hides near misses: how much it likes them tells more (arXiv 2507.08794).
        scores = np.array([one.score for one in trials if np.isfinite(one.score)])
        measures = {"mean score": float(scores.mean()), "highest score": float(scores.max())} if scores.size else {}
        return Findings(trials, measures, dict(+left_out))

    return Attack(name, family, "false positive", about, run, unfit or (lambda examination: ""))


def altered(name: str, family: str, about: str, write: Write, *, base: Base, unfit: Fit | None = None) -> Attack:
    """An attack by altering the wrong answer so that it passes, or the honest one so that it is refused.

    Only items on which the subject judges the unaltered answer well can show that the alteration fooled it.
    """
    good = base == "honest"

    def run(examination: Examination) -> Findings:
        rng = examination.rng(name)
        places = [place for place, item in enumerate(examination.items.items) if _has(examination, item, base)]
        cases = [
            Case(place, variant, text)
            for place in places
            for variant, text in write(examination.items.items[place], rng).items()
        ]
        left_out = Counter({"the item has no wrong answer": len(examination.items) - len(places)})
        trials = examination.try_good(cases, unless=base) if good else examination.try_bad(cases, unless=base)
        return Findings(trials, left_out=dict(+left_out))

    def reason(examination: Examination) -> str:
        if not any(_has(examination, item, base) for item in examination.items.items):
            return "the items have no wrong answers"
        return unfit(examination) if unfit is not None else ""

    return Attack(name, family, "false negative" if good else "false positive", about, run, reason)


def holds_solution(text: str, item: Item) -> bool:
    """Whether the item's solution stands in ``text``, as a number of the same value or in the same words."""
    if item.solution is None:
        return False
    wanted = number_in(item.solution)
    if wanted is None:
        return bool(item.solution.strip()) and item.solution.strip().casefold() in text.casefold()
    return any(number_in(found) == wanted for found in NUMBER.findall(text))


def with_number(text: str, value: float, other: str, *, every: bool = False) -> str:
    """``text`` with the last number of that value (``every``: each of them) written as ``other``; unchanged without."""
    places = [found.span() for found in NUMBER.finditer(text) if number_in(found[0]) == value]
    for start, stop in reversed(places if every else places[-1:]):
        text = text[:start] + other + text[stop:]
    return text


def number_in(text: str) -> float | None:
    """The number that ``text`` is, thousands separators and a currency sign aside; None where it is not one number."""
    stripped = text.strip().strip("$€£").replace(",", "")
    return float(stripped) if re.fullmatch(r"[-+]?\d+(?:\.\d+)?", stripped) else None


def _has(examination: Examination, item: Item, base: Base) -> bool:
    # A verifier judges an honest answer without help; a preference is between it and a wrong one.
    return item.wrong is not None or (base == "honest" and examination.verifies)
