"""A comparison of learned rewards as people read it, with what it does and does not guarantee."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from guerdon.core.sheet import Bar, Bars, Cell, Example, Examples, Heat, Part, Sheet, Table
from guerdon.metrics.intervals import Interval

if TYPE_CHECKING:
    from guerdon.comparisons.learned import Disagreement, LearnedComparison, PairOfRewards

FEW_PROMPTS = 20
LONGEST = 1_500

GUARANTEES = (
    "The distance is STARC's for one step: offsets a prompt and the scale are removed, what is left is compared in "
    "amounts. 0: both are the same up to these on every completion seen, so they order every mixture of these "
    "completions alike. 1.414: unrelated within prompts. 2: opposite.",
    "It guarantees nothing about completions that were not sampled. A policy trained on one of the rewards will leave "
    "them; sample from that policy, or from an attack, and compare again. Nor does it bound regret: STARC's bounds ask "
    "for the whole process, and here only samples of it are known.",
    "Neither reward is taken for the truth: a small distance may be a mistake that both make.",
    "The order within every prompt may be the same at a distance above 0, as for a reward and its cube: the distance "
    "compares amounts, which a policy feels when it trades one prompt for another.",
    "Both rewards see the same completions: which ones were drawn is in the interval. The floor is how far a reward is "
    "from itself when it scores a part of the rows again, in another order; a distance near it is that reward's noise.",
)


def learned_sheet(found: LearnedComparison) -> Sheet:
    """The `Sheet` of a comparison."""
    names = found.names
    parts: list[Part] = [_distances(found), _bars(found)]
    if len(names) > 2:
        parts.append(Heat("Distance of every two", names, names, found.matrix("distance"), 0.0, 2.0))
        parts.append(Heat("Pairs ordered alike", names, names, found.matrix("order")))
    parts += [_orders(found), _choices(found), _rewards(found)]
    if found.examples:
        note = (
            "Each reward's gap is in units of its usual deviation within a prompt; the largest smaller gap comes first."
        )
        parts.append(Examples("Where they disagree most", [_example(one) for one in found.examples], note))
    facts = {
        **found.facts,
        "rows, prompts": f"{found.rows}, {found.prompts}",
        "prompts compared": ", ".join(sorted({str(one.agreement.prompts) for one in found.pairs}))
        + " with two or more completions that both rewards score",
    }
    facts |= {f"identity of {name}": one.identity for name, one in found.rewards.items() if one.identity}
    notes = list(GUARANTEES)
    if min(one.agreement.prompts for one in found.pairs) < FEW_PROMPTS:
        notes.insert(0, f"Fewer than {FEW_PROMPTS} prompts: bootstrap intervals over so few are too narrow.")
    return Sheet("comparison", "Learned rewards", _lead(found), facts, parts, notes)


def _lead(found: LearnedComparison) -> str:
    if len(found.pairs) > 1:
        ordered = sorted(found.pairs, key=lambda one: one.distance.value)
        near, far = (f"{' and '.join(one.names)} ({one.distance})" for one in (ordered[0], ordered[-1]))
        return f"Of {len(found.names)} rewards, {near} are nearest, {far} farthest apart, on a scale from 0 to 2."
    one = found.pairs[0]
    told = " and ".join(one.names)
    if one.proportional:
        return f"{told} are the same on every completion seen, up to scale and an offset a prompt: distance 0."
    floors = [found.rewards[name].floor for name in one.names]
    noise = max((floor for floor in floors if not math.isnan(floor)), default=math.nan)
    lead = f"{told} are {_apart(one)}: distance {one.distance} on a scale from 0 to 2"
    if noise >= one.distance.low and noise > 0:
        lead += f", not clear of the {noise:.3f} by which one of them differs from itself"
    order = one.agreement.order
    return f"{lead}; they order {order.value:.0%} of the pairs alike." if not math.isnan(order.value) else f"{lead}."


def _apart(one: PairOfRewards) -> str:
    if one.distance.low > math.sqrt(2):
        return "opposed"
    if one.distance.high < math.sqrt(2):
        return "related"
    return "not clearly related"


def _distances(found: LearnedComparison) -> Table:
    rows: list[list[Cell]] = []
    for one in found.pairs:
        floors = [found.rewards[name].floor for name in one.names]
        rows.append([*one.names, one.distance.value, _span(one.distance), *floors])
    columns = ["reward", "and", "distance", "95%", "floor of the first", "floor of the second"]
    return Table("Canonicalised distance", columns, rows, "0 to 2; intervals resample prompts.")


def _bars(found: LearnedComparison) -> Bars:
    bars = [
        Bar(" and ".join(one.names), one.distance.value, _end(one.distance.low), _end(one.distance.high))
        for one in found.pairs
    ]
    return Bars("Distance with its interval", bars, 0.0, 2.0, math.sqrt(2), "The mark: unrelated within prompts.")


def _orders(found: LearnedComparison) -> Table:
    rows: list[list[Cell]] = []
    for one in found.pairs:
        agreed = one.agreement
        told = (agreed.order, agreed.spearman, agreed.kendall, agreed.pearson)
        rows.append([" and ".join(one.names), *(_cell(each) for each in told), agreed.constant])
    columns = ["rewards", "pairs ordered alike", "Spearman", "Kendall", "Pearson", "constant prompts"]
    note = (
        "Pairs ordered alike: of the completions of a prompt, those that neither ties. Correlations are means over "
        "prompts; where one of the two is constant there is none."
    )
    return Table("Agreement within prompts", columns, rows, note)


def _choices(found: LearnedComparison) -> Table:
    rows: list[list[Cell]] = []
    for one in found.pairs:
        agreed = one.agreement
        told = (agreed.same_best, agreed.first_loses, agreed.second_loses)
        ties = agreed.pairs["one tie"] + agreed.pairs["both tie"]
        rows.append([" and ".join(one.names), *(_cell(each) for each in told), sum(agreed.pairs.values()), ties])
    columns = ["rewards", "same best", "first loses", "second loses", "pairs", "tied pairs"]
    note = (
        "Same best: the share of prompts of which both choose the same completion. First loses: the share of its own "
        "range in a prompt that the first reward loses where the second picks the best completion."
    )
    return Table("What the other's choice costs", columns, rows, note)


def _rewards(found: LearnedComparison) -> Table:
    kinds = list(dict.fromkeys(kind for one in found.rewards.values() for kind in one.absent))
    rows: list[list[Cell]] = []
    for name, one in found.rewards.items():
        rows.append([name, one.scored, *(one.absent.get(kind, 0) for kind in kinds), one.spread, one.within, one.floor])
    columns = ["reward", "scored", *kinds, "deviation within a prompt", "variance within prompts", "floor"]
    return Table("Rewards", columns, rows, "Variance within prompts: the share that is not an offset a prompt.")


def _example(one: Disagreement) -> Example:
    first, second = one.rewards
    scores = [f"{own[0]:.4g} against {own[1]:.4g}" for own in (one.first_scores, one.second_scores)]
    fields = {
        "prompt": _cut(one.prompt),
        f"{first} prefers": _cut(one.first_prefers),
        f"{second} prefers": _cut(one.second_prefers),
        f"scores by {first}": scores[0],
        f"scores by {second}": scores[1],
    }
    return Example(f"{first} against {second}, {one.strength:.2f} deviations", fields)


def _cell(interval: Interval) -> Cell:
    return None if math.isnan(interval.value) else f"{interval.value:.3f} {_span(interval)}"


def _span(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _end(value: float) -> float | None:
    return None if math.isnan(value) else value


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"
