"""What a reward of several hand-written parts is made of: tables, bands, rules, and weights that move with the row.

Each part is a reward of its own, so that a composed reward logs it and `guerdon.audits.reward_linter` can look at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import Reward
from guerdon.rewards.composite import Bounds, Combined, Composite, Term, bounds_of, broken, named_terms, numbers

__all__ = ["Bands", "ConfusionTable", "ConsistencyRule", "DynamicWeights", "ParseResult", "StructuredPart"]

Fields = Mapping[str, Any]
Judge = Callable[[Fields, Any], "float | None | Failed"]
"""(the answer's fields, the gold side of the row) -> a value, or None where the part does not apply."""


@dataclass(frozen=True)
class ParseResult:
    """The fields of an answer, or why there are none; what that is worth is the part's business, not the parser's."""

    ok: bool
    fields: Fields = field(default_factory=dict)
    reason: str = ""


class ConfusionTable:
    """What each decision is worth, by (said, wanted): a penalty for each kind of error.

    Raises GuerdonError where a pair of the labels is missing or worth nothing finite; when asked, for an unknown label.
    """

    def __init__(self, values: Mapping[tuple[Hashable, Hashable], float]) -> None:
        labels = {label for pair in values for label in pair}
        for said in labels:
            for wanted in labels:
                if not math.isfinite(values.get((said, wanted), math.nan)):
                    raise GuerdonError(f"a table of decisions lacks a finite value: said {said!r}, wanted {wanted!r}")
        if not values:
            raise GuerdonError("a table of decisions needs values")
        self.values = {pair: float(value) for pair, value in values.items()}
        self.bounds = (min(self.values.values()), max(self.values.values()))

    def __call__(self, said: Hashable, wanted: Hashable) -> float:
        if (said, wanted) not in self.values:
            known = {str(pair[0]) for pair in self.values}
            raise unknown("label", str(said if str(said) not in known else wanted), known)
        return self.values[said, wanted]


class Bands:
    """A number's value by bands: ``Bands([(10, 1), (20, 0)], -1)`` is 1 up to 10, 0 up to 20, else -1.

    at_least:  the steps are lower ends instead, the largest first: ``Bands([(0.75, 1), (0.4, 0)], -1, at_least=True)``.
    Ends belong to the better placed band. Raises GuerdonError for steps that are not in order.
    """

    def __init__(self, steps: Sequence[tuple[float, float]], otherwise: float, *, at_least: bool = False) -> None:
        ends = [end for end, _ in steps]
        if not steps or ends != sorted(set(ends), reverse=at_least):
            raise GuerdonError(f"bands need ends in {'falling' if at_least else 'growing'} order, got {ends}")
        self.steps, self.otherwise, self.at_least = tuple(steps), float(otherwise), at_least
        worth = [value for _, value in steps] + [otherwise]
        self.bounds = (float(min(worth)), float(max(worth)))

    def __call__(self, number: float) -> float:
        for end, value in self.steps:
            if number >= end if self.at_least else number <= end:
                return float(value)
        return self.otherwise


class ConsistencyRule:
    """The value of the first rule whose predicate of (answer, row) holds; ``otherwise`` where none does."""

    def __init__(self, rules: Sequence[tuple[Callable[[Fields, Fields], bool], float]], otherwise: float = 0.0) -> None:
        if not rules:
            raise GuerdonError("a consistency rule needs at least one rule")
        self.rules, self.otherwise = tuple(rules), float(otherwise)
        worth = [value for _, value in rules] + [otherwise]
        self.bounds = (float(min(worth)), float(max(worth)))

    def __call__(self, answer: Fields, row: Fields) -> float:
        return next((float(value) for holds, value in self.rules if holds(answer, row)), self.otherwise)


class StructuredPart:
    """One part of a reward as a reward: reads the completion, and judges its fields beside the row's columns.

    judge:    (fields, gold) -> a finite value, None where the part does not apply, or Failed.
    gold:     the row's columns -> what the judge compares with; None or Failed is then the outcome, whatever the answer
              (a row without gold must not teach what garbage is worth). Default: the columns themselves.
    reader:   text -> `ParseResult`.
    on_fail:  what an answer that cannot be read is worth: a number, or the fields that it is then taken to have (as
              much published code does; the linter asks whether that is a legal answer). Always one of the two.
    columns:  names of the columns that must be there.
    bounds:   (lowest, highest) value, ``on_fail`` included where it is a number.
    """

    groupwise = False
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        name: str,
        judge: Judge,
        *,
        reader: Callable[[str], ParseResult],
        on_fail: float | Fields,
        bounds: Bounds,
        columns: Sequence[str] = (),
        gold: Callable[[Fields], Any] = dict,
    ) -> None:
        if not isinstance(on_fail, Mapping):
            if not math.isfinite(on_fail):
                raise GuerdonError(f"part {name!r}: an answer that cannot be read needs a finite value, got {on_fail}")
            bounds = (min(bounds[0], on_fail), max(bounds[1], on_fail))
        self.__name__, self.judge, self.reader, self.on_fail = name, judge, reader, on_fail
        self.columns, self.gold = tuple(columns), gold
        self.range: Bounds | None = (float(bounds[0]), float(bounds[1])) if bounds[0] < bounds[1] else None

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None | Failed]:
        """One outcome a completion. Raises GuerdonError for a column that is missing or of another length."""
        count = len(completions)
        for key in self.columns:
            given = columns.get(key)
            if given is None or isinstance(given, str) or len(given) != count:
                raise GuerdonError(f"reward {self.__name__!r} needs the column {key!r}, one entry a completion")
        kept = {
            key: values for key, values in columns.items() if isinstance(values, list | tuple) and len(values) == count
        }
        found: list[float | None | Failed] = []
        for place, completion in enumerate(completions):
            gold = self.gold({key: values[place] for key, values in kept.items()})
            parsed = self.reader(completion_text(completion))
            if gold is None or isinstance(gold, Failed):
                found.append(gold)
            elif parsed.ok:
                found.append(self.judge(parsed.fields, gold))
            else:
                found.append(self.judge(self.on_fail, gold) if isinstance(self.on_fail, Mapping) else self.on_fail)
        return found

    def identity(self) -> str:
        """Name, version, and a hash of the reader, the judge and what an unreadable answer is worth."""
        worth = dict(self.on_fail) if isinstance(self.on_fail, Mapping) else float(self.on_fail)
        parts = [self.reader, self.judge, self.gold, worth, self.columns]
        return f"{self.__name__}@{self.version}#{config_hash(parts)}"


class DynamicWeights(Composite):
    """sum_k w_k R_k with weights that move: w_k = max(floor, base_k + delta_k), then divided by their sum.

    terms:   (part, base weight) by name. deltas: by the same names, rewards that say what is added to the weight.
    floor:   the least that a weight falls to. normalise: divide by the sum.

    Every part and every delta ("weight/<name>") is required and logged. Weights that follow the policy's own answer let
    it choose what it is judged by; the linter says which do.
    Source: six-parameter reward of arXiv 2511.16073 (its notebook).
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        deltas: Mapping[str, Reward],
        *,
        floor: float = 0.01,
        normalise: bool = True,
        name: str = "dynamic_weights",
    ) -> None:
        named = named_terms(terms)
        for key in deltas:
            if key not in named:
                raise unknown("weight to be moved", key, named)
        if not floor >= 0:
            raise GuerdonError(f"reward {name!r}: the floor of a weight must be at least 0, got {floor}")
        self.weights = {key: float(weight) for key, (_, weight) in named.items()}
        self.moved, self.floor, self.normalise = frozenset(deltas), float(floor), normalise
        parts = {key: reward for key, (reward, _) in named.items()}
        ends = [bounds_of(reward) for reward in parts.values()]
        whole = (min(low for low, _ in ends), max(high for _, high in ends)) if normalise else (-math.inf, math.inf)
        settings = {"weights": self.weights, "floor": self.floor, "normalise": normalise}
        super().__init__(
            name, {**parts, **{f"weight/{key}": delta for key, delta in deltas.items()}}, settings, bounds=whole
        )

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        valid = np.logical_and.reduce([part.valid for part in scored.values()])
        failed = np.logical_or.reduce([broken(part) for part in scored.values()])
        total = np.zeros(len(valid))
        weight = np.zeros(len(valid))
        for key, base in self.weights.items():
            moved = base + (numbers(scored[f"weight/{key}"]) if key in self.moved else 0.0)
            own = np.maximum(self.floor, moved)
            total += own * numbers(scored[key])
            weight += own
        return Combined(total / np.maximum(weight, 1e-12) if self.normalise else total, valid & ~failed, failed)
