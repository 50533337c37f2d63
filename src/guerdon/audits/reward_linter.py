"""A reward of several parts, looked at before anything trains: six faults that it can have without anyone noticing.

It is put to made-up answers on real rows, so it needs nothing but the reward; what the parts declare about themselves
(weights, what an unreadable answer is worth) is looked at besides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from guerdon.audits.answer_table import AnswerTable, answer_table, constant_answers
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import name_of

__all__ = ["CHECKS", "GARBAGE", "Check", "Flag", "LegalAnswer", "LintReport", "lint_reward"]

Check = Literal["constant", "fallback", "collapse", "dominance", "group", "circular"]
Scale = Literal["group", "batch", "none"]
CHECKS: tuple[Check, ...] = get_args(Check)
GARBAGE = ("", "I cannot say.", "{", "{}", "[]", "null", '{"score": ', "yes no yes no yes no")
"""Answers in no form at all."""
_TOLERANCE = 1e-9
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LegalAnswer:
    """An answer in the form that is asked for, and the decision that it stands for."""

    text: str
    label: str


@dataclass(frozen=True)
class Flag:
    """One fault: which check found it, in which part ("" for the reward as a whole), and what is wrong."""

    check: Check
    part: str
    detail: str


@dataclass
class LintReport:
    """Faults found, and what was measured on the way.

    measures: "collapse" (what the best constant answer earns, between 0 = answers drawn by chance and 1 = always the
    best right answer), "compensation" (the most by which a wrong decision is paid more than a right one of the same
    row), "garbage" (share of rows on which some garbage is worth at least as much as a legal answer), "spread/<part>"
    (the part's share of the deviations within a group), and, with two labels, "tipping" (the share of the first label
    by the alphabet at which the best constant answer changes its label).
    """

    reward: str
    rows: int
    flags: list[Flag] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """No flags."""
        return not self.flags

    def of(self, check: Check) -> list[str]:
        """The parts that a check flagged. Raises GuerdonError for a check that there is not."""
        if check not in CHECKS:
            raise unknown("check of a reward", check, CHECKS)
        return [flag.part for flag in self.flags if flag.check == check]

    def lines(self) -> list[str]:
        """One line a fault, for people."""
        return [f"{flag.check}: {flag.part or self.reward}: {flag.detail}" for flag in self.flags] or [
            "no faults found"
        ]


def lint_reward(
    reward: Any,
    answers: Sequence[LegalAnswer],
    right: Sequence[str],
    *,
    prompts: Sequence[Any] | None = None,
    garbage: Sequence[str] = GARBAGE,
    group_size: int = 8,
    scale_rewards: Scale = "group",
    judges_form: Collection[str] = (),
    most_collapse: float = 0.75,
    drowned: float = 0.99,
    **columns: Any,
) -> LintReport:
    """Look for six faults of a reward.

    constant:   a part that is the same for all answers to a row: it cancels in a group-relative advantage.
    fallback:   an answer that cannot be read is worth at least as much as some legal one, or is taken for one.
    collapse:   one answer to everything earns ``most_collapse`` of what is to be earned.
    dominance:  the other parts can make a wrong decision pay at least as much as a right one.
    group:      groups too small for sizes to matter, rows on which all legal answers earn the same, or one part that
                takes ``drowned`` of the deviations, so that the others are not heard.
    circular:   a part that looks at the answer alone, whatever the row. ``judges_form`` names parts that are meant to.

    Args:
        reward: a reward of the contract; one with ``scores`` (any composite, a hierarchical reward) shows its parts.
        answers: legal answers with their decisions, at least two decisions, as varied as policies may be.
        right: the right decision of each row; rows of at least two, and as varied in all else that the parts look at.
        prompts: default one number a row. columns: of the reward, one entry a row.
        group_size, scale_rewards: of the training to come.
    Raises:
        GuerdonError: fewer than two decisions among answers or rows, or an unknown way to scale.

    A part named "weight/..." (`DynamicWeights`) is a weight: it may be constant within a row, but not circular.
    Source: the faults found in the reward of arXiv 2511.16073; thresholds are ours.
    """
    if scale_rewards not in get_args(Scale):
        raise unknown("way to scale rewards", scale_rewards, get_args(Scale))
    labels = np.array([one.label for one in answers])
    wanted = np.array(list(right))
    if len(set(labels)) < 2 or len(set(wanted)) < 2:
        raise GuerdonError("a reward is looked at with at least two decisions, among the answers and among the rows")
    strange = sorted(set(map(str, wanted)) - set(map(str, labels)))
    if strange:
        raise unknown("right decision", strange[0], set(labels.tolist()))
    asked = [f"row {row}" for row in range(len(wanted))] if prompts is None else prompts
    if len(asked) != len(wanted):
        raise GuerdonError(f"there are {len(asked)} prompts for {len(wanted)} right decisions")
    table = answer_table(reward, [*(one.text for one in answers), *garbage], prompts=asked, **columns)
    legal = AnswerTable(table.answers[: len(answers)], table.values[:, : len(answers)])
    report = LintReport(name_of(reward), len(wanted))
    weights = dict(getattr(reward, "weights", {}))
    fits = labels[None, :] == wanted[:, None]
    _constant_and_circular(report, table, judges_form)
    _fallback(report, reward, table, len(answers))
    _collapse(report, legal, labels, wanted, fits, most_collapse)
    _dominance(report, legal.values, fits)
    _group(report, table, len(answers), weights, group_size, scale_rewards, drowned)
    return report


def _constant_and_circular(report: LintReport, table: AnswerTable, judges_form: Collection[str]) -> None:
    for name, values in table.parts.items():
        if not np.isfinite(values).any():
            report.flags.append(Flag("constant", name, "it never applies"))
            continue
        over_answers, over_rows = _spread(values, 1), _spread(values, 0)
        if not (over_answers > _TOLERANCE).any():
            if not name.startswith("weight/"):
                detail = "the same for every answer to a row, so it cancels within a group and teaches nothing"
                report.flags.append(Flag("constant", name, detail))
        elif not (over_rows > _TOLERANCE).any() and name not in judges_form:
            report.flags.append(Flag("circular", name, "it looks at the answer alone: no row changes its value"))


def _fallback(report: LintReport, reward: Any, table: AnswerTable, count: int) -> None:
    legal, garbage = table.values[:, :count], table.values[:, count:]
    for name, part in _parts(reward):
        worth = getattr(part, "on_fail", None)
        if isinstance(worth, Mapping):
            detail = f"an answer that cannot be read is taken for {dict(worth)}, which a policy could have said"
            report.flags.append(Flag("fallback", name, detail))
    if not garbage.shape[1]:
        return
    lowest, highest = _least(legal, 1), -_least(-garbage, 1)
    both = np.isfinite(lowest) & np.isfinite(highest)
    paid = both & (highest >= lowest - _TOLERANCE)
    report.measures["garbage"] = float(paid.sum() / max(1, both.sum()))
    if not paid.any():
        return
    detail = f"garbage is worth at least as much as some legal answer on {report.measures['garbage']:.0%} of the rows"
    for place in range(garbage.shape[1]):
        same = np.abs(legal - garbage[:, place : place + 1]) <= _TOLERANCE
        twins = np.flatnonzero(same.all(axis=0))
        if twins.size:
            detail += f", and {table.answers[count + place]!r} always exactly as much as {table.answers[twins[0]]!r}"
            break
    report.flags.append(Flag("fallback", "", detail))


def _collapse(
    report: LintReport, legal: AnswerTable, labels: Any, wanted: Any, fits: NDArray[np.bool_], most: float
) -> None:
    ranked = constant_answers(legal, [str(one) for one in wanted])
    oracle = np.nanmean(-_least(-np.where(fits, legal.values, np.nan), 1))
    chance = float(np.nanmean(legal.values))
    if not ranked or not oracle > chance + _TOLERANCE:
        report.flags.append(Flag("collapse", "", "the best right answers earn no more than answers drawn by chance"))
        return
    label_of = {answer: str(label) for answer, label in zip(legal.answers, labels)}
    share = (ranked[0].mean - chance) / (oracle - chance)
    report.measures["collapse"] = float(share)
    kinds = sorted(set(map(str, wanted)))
    if len(kinds) == 2:
        grid = np.linspace(0.01, 0.99, 99)
        best = [
            label_of[max(ranked, key=lambda one: one.at({kinds[0]: float(p), kinds[1]: 1 - float(p)})).answer]
            for p in grid
        ]
        turns = [float(p) for p, one, after in zip(grid, best, best[1:]) if one != after]
        report.measures["tipping"] = turns[0] if turns else float("nan")
    if share >= most:
        detail = f"always {ranked[0].answer[:60]!r} earns {share:.0%} of what is to be earned above chance"
        report.flags.append(Flag("collapse", "", detail))


def _dominance(report: LintReport, values: Floats, fits: NDArray[np.bool_]) -> None:
    best_wrong = -_least(-np.where(fits, np.nan, values), 1)
    rights = np.where(fits, values, np.nan)
    worst_right, best_right = _least(rights, 1), -_least(-rights, 1)
    gap = best_wrong - worst_right
    if not np.isfinite(gap).any():
        return
    report.measures["compensation"] = float(np.nanmax(gap))
    upside_down = np.isfinite(best_right) & (best_wrong >= best_right - _TOLERANCE)
    if upside_down.any():
        detail = f"on {upside_down.mean():.0%} of the rows the best paid answer has the wrong decision"
        report.flags.append(Flag("dominance", "", detail))
    elif report.measures["compensation"] >= -_TOLERANCE:
        worst = report.measures["compensation"]
        detail = f"other parts can make a wrong decision pay up to {worst:.3g} more than a right one"
        report.flags.append(Flag("dominance", "", detail))


def _group(
    report: LintReport,
    table: AnswerTable,
    count: int,
    weights: Mapping[str, float],
    size: int,
    scale: Scale,
    drowned: float,
) -> None:
    if size < 3 and scale == "group":
        detail = f"with {size} answers a group and its own deviation every advantage is +-0.707: no size matters"
        report.flags.append(Flag("group", "", detail))
    tied = _spread(table.values[:, :count], 1) <= _TOLERANCE
    if tied.any():
        report.flags.append(Flag("group", "", f"all legal answers earn the same on {tied.mean():.0%} of the rows"))
    parts = {name: values for name, values in table.parts.items() if "/" not in name}
    moving: dict[str, float] = {}
    for name, values in parts.items():
        centred = np.nan_to_num(values[:, :count] * weights.get(name, 1.0), nan=0.0)
        moving[name] = float(centred.std(axis=1).mean())
    whole = sum(moving.values())
    if not whole:
        return
    report.measures |= {f"spread/{name}": value / whole for name, value in moving.items()}
    top = max(moving, key=lambda name: moving[name])
    others = [name for name, value in moving.items() if name != top and value > 0]
    if scale != "none" and others and moving[top] / whole >= drowned:
        detail = f"it makes {moving[top] / whole:.1%} of the deviations; where it differs, {', '.join(others)} vanish"
        report.flags.append(Flag("group", top, detail))


def _parts(reward: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """The parts of a reward, and theirs, as "part/inner"."""
    parts = getattr(reward, "parts", None)
    for name, part in parts.items() if isinstance(parts, Mapping) else ():
        yield f"{within}{name}", part
        yield from _parts(part, f"{within}{name}/")


def _spread(values: Floats, axis: int) -> Floats:
    """Largest less smallest value along an axis; 0 where nothing is finite."""
    high, low = -_least(-values, axis), _least(values, axis)
    return np.where(np.isfinite(high), high - low, 0.0)


def _least(values: Floats, axis: int) -> Floats:
    """The smallest finite value along an axis, NaN where there is none."""
    lowest = np.where(np.isfinite(values), values, np.inf).min(axis=axis)
    return np.where(np.isfinite(lowest), lowest, np.nan)
