"""What RewardMATH found of a subject, or of two: ranks, ties, reducers, places, shortcuts, best-of-n."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from guerdon.benchmarks.graded import BenchmarkResult
from guerdon.benchmarks.shortcuts import ShortcutAudit
from guerdon.core.sheet import Bar, Bars, Line, Lines, Part, Sheet, Table
from guerdon.metrics.one_to_many import OneToMany
from guerdon.metrics.position_bias import PositionBias

__all__ = ["RankedSubject", "RewardMathResult", "Selection"]


@dataclass(frozen=True)
class Selection:
    """Share of problems whose selected solution is right, by how many of the first samples there were to choose from.

    curves:    subject -> shares [S]; beside them "majority" (the answer most samples give), "any right" (what a
               perfect score would select) and "one at random".
    problems:  how many, those with right or wrong solutions alone included.
    """

    sizes: list[int]
    curves: dict[str, list[float]]
    problems: int

    def parts(self) -> list[Part]:
        """A table and a figure."""
        rows: list[list[Any]] = [[name, *values] for name, values in self.curves.items()]
        note = f"{self.problems} problems; samples in the order of the data; ties go to the most frequent answer."
        columns = ["selected by", *(f"n = {size}" for size in self.sizes)]
        lines = [Line(name, [float(size) for size in self.sizes], values) for name, values in self.curves.items()]
        figure = Lines("Best of n", lines, "samples n", "share right", log_x=True)
        return [Table("Best of n", columns, rows, note), figure]


@dataclass(frozen=True)
class RankedSubject:
    """One subject's ranks.

    ranks:      of each item. beside: the summary by another rule for replies that cannot be read, by its name, where
                there were any.
    reducers:   of step scores: reducer -> summary. position, swapped: of comparisons.
    """

    name: str
    ranks: OneToMany
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    reducers: dict[str, dict[str, float]] = field(default_factory=dict)
    position: PositionBias | None = None
    swapped: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name, **self.ranks.summary(), "beside": self.beside, "reducers": self.reducers,
            "position": asdict(self.position) if self.position else None, "swapped": self.swapped,
        }  # fmt: skip


@dataclass(frozen=True)
class RewardMathResult:
    """`BenchmarkResult` of the strict accuracy, and all that lies beside it."""

    graded: BenchmarkResult
    ranked: Sequence[RankedSubject]
    shortcuts: ShortcutAudit | None = None
    selection: Selection | None = None

    @property
    def score(self) -> float:
        """Accuracy: the right solution scores strictly above every wrong one."""
        return self.ranked[0].ranks.acc

    def lead(self) -> str:
        """What was found, in sentences."""
        first = self.ranked[0].ranks
        told = self.graded.lead() + (
            f" It ranks the right solution first among {_sizes(first)} in {_percent(first.acc)} of the problems "
            f"(chance {_percent(first.chance)}; {_percent(first.acc_tie)} with ties), mean reciprocal rank "
            f"{first.mrr:.3f}; of single pairs it gets {_percent(first.mean_pairwise)} right."
        )
        best = self.shortcuts.best if self.shortcuts else None
        if best is not None and best.beats_chance and best.feature != "position":
            told += f" {best.wins.capitalize()} {best.feature} alone wins {_percent(best.by_lot.value)}."
        return told

    def sheet(self) -> Sheet:
        """Tables, figures and examples."""
        base = self.graded.sheet()
        own: list[Part] = [self._ranks(), *self._reducers(), *self._places()]
        if self.selection is not None:
            own += self.selection.parts()
        if self.shortcuts is not None:
            own += self.shortcuts.tables()
        return replace(base, lead=self.lead(), parts=[*own, *base.parts], notes=[*base.notes, *self._notes()])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.graded.to_dict(),
            "score": self.score,
            "one_to_many": [one.to_dict() for one in self.ranked],
            "shortcuts": self.shortcuts.to_dict() if self.shortcuts else None,
            "best_of_n": asdict(self.selection) if self.selection else None,
        }

    def _ranks(self) -> Table:
        columns = ["subject", "acc", "acc with ties", "ties by lot", "shares first place", "MRR", "pairwise",
                   "items", "not measured"]  # fmt: skip
        rows: list[list[Any]] = []
        for one in self.ranked:
            r = one.ranks
            rows.append(
                [one.name, r.acc, r.acc_tie, r.acc_by_lot, r.tie_rate, r.mrr, r.mean_pairwise, len(r),
                 len(r) - int(r.measured.sum())]
            )  # fmt: skip
            for rule, p in one.beside.items():
                names = ("acc", "acc_tie", "acc_by_lot", "tie_rate", "mrr", "mean_pairwise")
                label = f"{one.name}, {rule}"
                rows.append([label, *(p[name] for name in names), len(r), len(r) - int(p["measured"])])
        first = self.ranked[0].ranks
        rows.append(["chance", first.chance, None, first.chance, None, first.chance_mrr, 0.5, None, None])
        note = "acc: strictly first. MRR ranks a tie below its wrong solutions. An item with a score missing is not "
        return Table("One against many", columns, rows, note + "measured.")

    def _reducers(self) -> list[Part]:
        found: list[Part] = []
        for one in self.ranked:
            if one.reducers:
                names = ("acc", "acc_tie", "mrr", "mean_pairwise")
                rows: list[list[Any]] = [
                    [how, *(values[name] for name in names)] for how, values in one.reducers.items()
                ]
                note = "Which of them is best is known only after the test; the reducer was fixed before it."
                found.append(
                    Table(f"Step scores of {one.name} reduced", ["reducer", "acc", "acc with ties", "MRR", "pairwise"],
                          rows, note)
                )  # fmt: skip
                bars = [Bar(how, values["acc"]) for how, values in one.reducers.items()]
                found.append(Bars(f"Accuracy of {one.name} by reducer", bars, mark=one.ranks.chance))
        return found

    def _places(self) -> list[Part]:
        rows: list[list[Any]] = []
        for one in self.ranked:
            if one.position is not None:
                for place, accuracy in one.position.accuracy.items():
                    rows.append(
                        [one.name, place, str(accuracy), one.position.counts[place], one.position.unparsable[place],
                         one.position.chosen[place]]
                    )  # fmt: skip
                rows.append([one.name, "first less second", str(one.position.gap), None, None, None])
            if one.swapped is not None:
                rows.append([one.name, "same answer in both orders", f"{one.swapped['consistent']:.3f}",
                             None, None, None])  # fmt: skip
        if not rows:
            return []
        columns = ["subject", "right answer's place", "accuracy [95%]", "comparisons", "unparsable", "was named"]
        return [Table("Places", columns, rows, "An unparsable comparison counts as lost.")]

    def _notes(self) -> list[str]:
        notes = []
        for one in self.ranked:
            if one.ranks.tie_rate > 0.1:
                notes.append(
                    f"{one.name} gives the right solution and a wrong one the same highest score in "
                    f"{_percent(one.ranks.tie_rate)} of the problems: its accuracy alone says little."
                )
        if self.shortcuts is not None:
            places = next(rule for rule in self.shortcuts.rules if rule.feature == "position")
            if places.acc == 1 and places.wins == "the least":
                notes.append("The right solution stands first in every problem of these data: never show their order.")
        return notes


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def _sizes(ranks: OneToMany) -> str:
    sizes: Mapping[int, None] = dict.fromkeys(int(size) + 1 for size in sorted(ranks.wrong))
    listed = list(sizes)
    return str(listed[0]) if len(listed) == 1 else f"{listed[0]} to {listed[-1]}"
