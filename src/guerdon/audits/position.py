"""Position bias: a judge that sees several answers at once should not care in which order they stand."""

from __future__ import annotations

import numpy as np

from guerdon.audits.attack import Attack
from guerdon.audits.examination import Examination
from guerdon.audits.trials import Findings, Outcome, Trial


def _run(examination: Examination) -> Findings:
    places = [place for place, item in enumerate(examination.items.items) if item.wrong is not None]
    both = [(examination.items.items[place].honest, examination.items.items[place].wrong or "") for place in places]
    ahead = examination.choose(places, [[good, bad] for good, bad in both])
    behind = examination.choose(places, [[bad, good] for good, bad in both])
    trials, firsts = [], []
    for place, one, other in zip(places, ahead, behind):
        problem = one.problem or other.problem
        outcome: Outcome = "unmeasured"
        if not problem:
            firsts += [one.value == 0, other.value == 0]
            outcome = "fooled" if one.value == other.value else "survived"
        kept = "the first both times" if one.value == other.value == 0 else "the second both times"
        answer = kept if outcome == "fooled" else ""
        trials.append(Trial(place, "honest and wrong, in both orders", outcome, problem=problem, answer=answer))
    measures = {"chose the first place": float(np.mean(firsts))} if firsts else {}
    left = len(examination.items) - len(places)
    return Findings(trials, measures, {"the item has no wrong answer": left} if left else {})


def _unfit(examination: Examination) -> str:
    if "rank" not in examination.subject.modes:
        return "the subject scores one answer at a time, so there is no order"
    if all(item.wrong is None for item in examination.items.items):
        return "the items have no wrong answers"
    return ""


POSITION = Attack(
    "position", "position", "instability",
    "The choice between a good and a wrong answer turns round, place for place, when they change places.",
    _run, _unfit,
)  # fmt: skip
