"""Can a benchmark be won without reading? One-feature rules on its items, and what of a score no rule explains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.benchmarks.one_to_many_items import OneToManyItem
from guerdon.core.errors import GuerdonError
from guerdon.core.sheet import Table
from guerdon.metrics.intervals import Interval, bootstrap_mean
from guerdon.metrics.one_to_many import OneToMany, one_to_many

__all__ = ["FEATURES", "Rule", "ShortcutAudit", "item_features", "residual_scores", "shortcut_audit"]

PLACE = "position"
FEATURES = ("n_steps", "n_tokens", "n_digits", PLACE)
Rows = Sequence[NDArray[np.float64]]


@dataclass(frozen=True)
class Rule:
    """ "The least" or "the most" of a feature wins: how far that gets.

    acc: strictly first, as the benchmark counts. by_lot: ties drawn by lot, the figure to put beside ``chance``.
    pairwise: share of wrong answers beaten, equal ones counting half; 0.5 by chance.
    """

    feature: str
    wins: str
    acc: float
    by_lot: Interval
    pairwise: float
    chance: float

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.by_lot.low > self.chance


@dataclass(frozen=True)
class ShortcutAudit:
    """Every rule of every feature, the best first, and a subject's accuracy without what the features explain.

    residual:  accuracies of the score less its best within-item fit by all features of the text together; None
               without scores.
    """

    rules: list[Rule]
    items: int
    score: dict[str, float] | None = None
    residual: dict[str, float] | None = None

    @property
    def best(self) -> Rule:
        """The rule that is right most often."""
        return self.rules[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "rules": [{**asdict(one), "beats_chance": one.beats_chance} for one in self.rules]}

    def tables(self) -> list[Table]:
        """The rules, and the residual score where there is one."""
        rows: list[list[Any]] = [[r.feature, r.wins, r.acc, str(r.by_lot), r.chance, r.pairwise] for r in self.rules]
        columns = ["feature", "what wins", "strictly first", "ties by lot [95%]", "chance", "pairwise"]
        note = "Features are those of the data as they stand: place is the solution's place among the problem's rows, "
        note += "which nobody sees who scores solutions one by one."
        found = [Table("Rules that read nothing", columns, rows, note)]
        if self.score is not None and self.residual is not None:
            names = ("acc", "acc_tie", "mrr", "mean_pairwise")
            found.append(
                Table(
                    "The score without these features",
                    ["", "acc", "acc with ties", "MRR", "pairwise"],
                    [[label, *(one[name] for name in names)]
                     for label, one in (("score", self.score), ("residual", self.residual))],
                    "Residual of a least-squares fit within items; equal to the score where the features say nothing.",
                )
            )  # fmt: skip
        return found


def item_features(items: Sequence[OneToManyItem]) -> dict[str, list[NDArray[np.float64]]]:
    """Features of the compared solutions of each item, the right one first: steps, words, digits, place in the data."""

    def of(measure: Any) -> list[NDArray[np.float64]]:
        return [np.array([float(measure(item, place)) for place in item.compared]) for item in items]

    return {
        "n_steps": of(lambda item, place: len(item.steps[place])),
        "n_tokens": of(lambda item, place: len(item.answers[place].split())),
        "n_digits": of(lambda item, place: len(re.findall(r"\d", item.answers[place]))),
        PLACE: of(lambda item, place: item.places[place]),
    }


def shortcut_audit(
    features: Mapping[str, Sequence[ArrayLike]],
    scores: Sequence[ArrayLike] | None = None,
    *,
    correct_idx: int | ArrayLike = 0,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ShortcutAudit:
    """Try "the least" and "the most" of every feature as a judge.

    Args:
        features: name -> N rows of one value an answer; "position" is that in the data.
        scores: N rows of a subject's scores of the same answers; an item with a NaN among them is left out of the
            residual.
        correct_idx: of the right answer (`one_to_many`). groups: [N], resampled as a whole.
    Raises:
        GuerdonError: no feature, or rows that differ in length.
    Source: RewardMATH (arXiv 2410.01729): on RewardBench's math pairs fewer steps are nearly always right.
    """
    if not features:
        raise GuerdonError("a shortcut audit needs at least one feature")
    table = {name: [np.asarray(row, dtype=np.float64) for row in rows] for name, rows in features.items()}
    sizes = {name: [row.size for row in rows] for name, rows in table.items()}
    if len({tuple(one) for one in sizes.values()}) > 1:
        raise GuerdonError("every feature needs one value an answer of every item")
    rules = []
    for name, rows in table.items():
        for wins, sign in (("the least", -1.0), ("the most", 1.0)):
            found = one_to_many([sign * row for row in rows], correct_idx)
            by_lot = bootstrap_mean(found.first_by_lot, groups=groups, resamples=resamples, seed=seed)
            rules.append(Rule(name, wins, found.acc, by_lot, found.mean_pairwise, found.chance))
    rules.sort(key=lambda rule: -rule.by_lot.value)
    count = len(next(iter(table.values())))
    if scores is None:
        return ShortcutAudit(rules, count)
    own = [np.asarray(row, dtype=np.float64) for row in scores]
    plain = one_to_many(own, correct_idx)
    # The place is no part of the text. In data that list the right answer first it is the label itself.
    read = {name: rows for name, rows in table.items() if name != PLACE}
    rest = one_to_many(residual_scores(own, read), correct_idx) if read else plain
    return ShortcutAudit(rules, count, _shares(plain), _shares(rest))


def residual_scores(scores: Rows, features: Mapping[str, Rows]) -> list[NDArray[np.float64]]:
    """What no feature explains: scores less their item's mean and b . features, b by least squares within items.

    scores and each feature: N rows of [K_i]. Within items, because the level of a score means nothing across prompts.
    Raises GuerdonError for rows that differ in length.
    """
    columns = [np.concatenate([_centred(row) for row in rows]) for rows in features.values()]
    target = np.concatenate([_centred(row) for row in scores])
    if any(column.shape != target.shape for column in columns):
        raise GuerdonError("features and scores need one value an answer of every item")
    known = ~np.isnan(target)
    matrix = np.stack(columns, axis=1)
    weight = np.linalg.lstsq(matrix[known], target[known], rcond=None)[0] if known.any() else np.zeros(len(columns))
    ends = np.cumsum([row.size for row in scores])[:-1]
    # What is explained to the last bit must stay tied, and not be ordered by rounding.
    grain = 1e-9 * float(np.abs(target[known]).max(initial=0.0)) or 1.0
    return [
        np.round((row - row.mean() - part) / grain) * grain
        for row, part in zip(scores, np.split(matrix @ weight, ends), strict=True)
    ]


def _centred(row: NDArray[np.float64]) -> NDArray[np.float64]:
    return row - row.mean()


def _shares(found: OneToMany) -> dict[str, float]:
    return {name: found.summary()[name] for name in ("acc", "acc_tie", "mrr", "mean_pairwise")}
