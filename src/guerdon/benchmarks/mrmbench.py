"""MRMBench (arXiv 2511.12464): what a reward model's frozen states tell a linear probe about six dimensions.

Built from the paper's released probe code (wangclnlp/MRMBench, no licence file) and its description; none of its data
are here. The reward head plays no part, and that a probe finds a dimension does not show that the head uses it.
Deviations: beside the released recipe, which depends on its random start, a converged probe, and it is the headline;
beside accuracy the majority rate, balanced accuracy and a probe trained on shuffled labels, since some published
figures are about the share of one class; the last token is found by the attention mask, not by the token ids that the
released code puts in; float32 probes. Inference-time probing (`models.probe.InferenceTimeProbe`) is fitted to the
training states of the same run, where the paper takes a validation set that is not released.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.benchmarks.mrmbench_tasks import DIMENSIONS, Level, Task
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.progress import progress as progress_bar
from guerdon.core.sheet import Bar, Bars, Heat, Part, Sheet, Table
from guerdon.metrics.class_scores import ClassScores, class_scores
from guerdon.metrics.intervals import Interval
from guerdon.models.probe import InferenceTimeProbe, LinearProbe, Recipe
from guerdon.models.representation import RepresentationReader

__all__ = ["MRMBench", "MRMBenchResult", "PAPER_STEPS", "ProbeReport"]

TITLE, SOURCE = "MRMBench", "arXiv 2511.12464"
PAPER_STEPS = {
    "harmlessness": 62, "helpfulness": 100, "correctness": 100, "coherence": 75, "complexity": 100, "verbosity": 75
}  # fmt: skip
"""After how many optimiser steps the released scripts read each probe (micro-steps 500, 800, 600 of 8)."""
RECIPES: tuple[Recipe, ...] = ("converged", "paper")


@dataclass(frozen=True)
class ProbeReport:
    """One probe of one dimension, or its seeds together.

    scores:    of the first seed. by_seed: accuracy of every seed ("converged" has one: nothing in it is random).
    shuffled:  accuracy of the same probe trained on permuted labels; about the majority rate. shuffled_balanced: its
               balanced accuracy; about 1 / classes.
    dropped:   training and test texts without a representation (too long).
    """

    dimension: str
    recipe: Recipe
    scores: ClassScores
    by_seed: list[float]
    shuffled: float
    shuffled_balanced: float
    trained: int
    dropped: int
    classes: int

    @property
    def acc(self) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(self.by_seed))

    @property
    def constant(self) -> bool:
        """Whether at least 95% of the predictions are one class: then the accuracy is that class's share."""
        return max(self.scores.predicted) >= 0.95

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "acc": self.acc, "constant": self.constant}


@dataclass(frozen=True)
class MRMBenchResult:
    """Every dimension by every recipe, and how the dimensions' centroids lie to one another.

    leaning:  share of each dimension's test texts (rows) nearest to each dimension's centroids (columns), [D, D].
    probe:    the inference-time probe behind it, calibrated with the test texts; None where it was left out.
    """

    model: str
    identity: str
    level: str
    data: str
    reports: list[ProbeReport]
    leaning: list[list[float]] = field(default_factory=list)
    baseline: str = ""
    baseline_reports: list[ProbeReport] = field(default_factory=list)
    seconds: float = math.nan
    settings: dict[str, Any] = field(default_factory=dict)
    probe: InferenceTimeProbe | None = None

    @property
    def dimensions(self) -> list[str]:
        """In the order of the tasks."""
        return list(dict.fromkeys(report.dimension for report in self.reports))

    def mean(self, recipe: Recipe, *, balanced: bool = False, baseline: bool = False) -> float:
        """Mean over the dimensions of accuracy, or balanced accuracy, by a recipe; NaN where it was not run."""
        chosen = [one for one in (self.baseline_reports if baseline else self.reports) if one.recipe == recipe]
        values = [one.scores.balanced_acc if balanced else one.acc for one in chosen]
        return float(np.mean(values)) if values else math.nan

    @property
    def score(self) -> float:
        """Mean accuracy of the converged probes (of the paper's recipe where only that was run)."""
        return self.mean(self.reports[0].recipe)

    def lead(self) -> str:
        """What was found, in sentences."""
        recipe = self.reports[0].recipe
        own = [one for one in self.reports if one.recipe == recipe]
        majority = float(np.mean([one.scores.majority_acc for one in own]))
        told = (
            f"Linear probes ({recipe}) of {self.model} are right in {100 * self.mean(recipe):.1f}% over {len(own)} "
            f"dimensions of {TITLE}-{self.level.capitalize()} (always the most frequent label: {100 * majority:.1f}%); "
            f"their balanced accuracy is {100 * self.mean(recipe, balanced=True):.1f}%, {100 / own[0].classes:.1f}% by "
            "chance."
        )
        if self.baseline:
            gap = 100 * (self.mean(recipe) - self.mean(recipe, baseline=True))
            told += f" {self.baseline} is {abs(gap):.1f} points {'below' if gap >= 0 else 'above'}."
        said = [one.dimension for one in own if one.constant]
        if said:
            told += f" Probes of {', '.join(said)} say one label nearly always."
        return told

    def sheet(self) -> Sheet:
        """Tables and figures."""
        facts = {"model": self.identity, "data": self.data, "level": self.level}
        facts |= {name: str(value) for name, value in self.settings.items()}
        if not math.isnan(self.seconds):
            facts["seconds"] = f"{self.seconds:.1f}"
        recipes = list(dict.fromkeys(report.recipe for report in self.reports))
        parts: list[Part] = [self._means(recipes), *(self._table(recipe) for recipe in recipes)]
        bars = []
        for report in self.reports:
            if report.recipe == recipes[0]:
                bars.append(_bar(report.dimension, report.scores.acc))
                bars.append(Bar(f"{report.dimension}: most frequent label", report.scores.majority_acc))
        parts.append(Bars(f"Accuracy by dimension ({recipes[0]})", bars))
        if self.leaning:
            note = "Row: whose test texts. Column: whose centroids are nearest, as shares of the row."
            parts.append(Heat("Nearest dimension", self.dimensions, self.dimensions, self.leaning, note=note))
        notes = [
            "A linear probe shows what is in the states, not what the reward head makes of it.",
            "The recipe 'paper' stops after 60 to 100 small steps from a random start: compare models by it only with "
            "the published figures, and over several seeds.",
        ]
        if set(self.dimensions) != set(DIMENSIONS):
            notes.insert(0, f"Not the {TITLE} score: it is over {', '.join(self.dimensions)}.")
        return Sheet("benchmark", f"{TITLE}-{self.level.capitalize()}", self.lead(), facts, parts, notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        recipes = list(dict.fromkeys(report.recipe for report in self.reports))
        return {
            "benchmark": TITLE, "source": SOURCE, "model": self.model, "identity": self.identity, "level": self.level,
            "data": self.data, "score": self.score,
            "means": {recipe: {"acc": self.mean(recipe), "balanced_acc": self.mean(recipe, balanced=True)}
                      for recipe in recipes},
            "probes": [one.to_dict() for one in self.reports], "leaning": self.leaning, "baseline": self.baseline,
            "baseline_probes": [one.to_dict() for one in self.baseline_reports], "seconds": self.seconds,
            "settings": self.settings,
        }  # fmt: skip

    def _means(self, recipes: Sequence[Recipe]) -> Table:
        rows: list[list[Any]] = []
        for recipe in recipes:
            own = [one for one in self.reports if one.recipe == recipe]
            rows.append([self.model, recipe, self.mean(recipe), self.mean(recipe, balanced=True),
                         float(np.mean([one.scores.majority_acc for one in own])),
                         float(np.mean([one.shuffled for one in own]))])  # fmt: skip
            if self.baseline:
                other = [one for one in self.baseline_reports if one.recipe == recipe]
                rows.append([self.baseline, recipe, self.mean(recipe, baseline=True),
                             self.mean(recipe, balanced=True, baseline=True),
                             float(np.mean([one.scores.majority_acc for one in other])),
                             float(np.mean([one.shuffled for one in other]))])  # fmt: skip
        columns = ["model", "recipe", "accuracy", "balanced", "most frequent label", "shuffled labels"]
        return Table(f"Means over {len(self.dimensions)} dimensions", columns, rows)

    def _table(self, recipe: Recipe) -> Table:
        known = {one.dimension: one for one in self.baseline_reports if one.recipe == recipe}
        columns = ["dimension", "accuracy [95%]", "over seeds", "balanced", "macro F1", "most frequent label",
                   "shuffled labels", "trained", "tested", "dropped"]  # fmt: skip
        rows: list[list[Any]] = []
        for one in self.reports:
            if one.recipe != recipe:
                continue
            spread = None
            if len(one.by_seed) > 1:
                spread = f"{one.acc:.3f} ± {float(np.std(one.by_seed, ddof=1)):.3f}"
            row = [one.dimension, str(one.scores.acc), spread, one.scores.balanced_acc, one.scores.macro_f1,
                   one.scores.majority_acc, one.shuffled, one.trained, one.scores.n, one.dropped]  # fmt: skip
            rows.append([*row, known[one.dimension].acc] if known else row)
        if known:
            columns.append(self.baseline)
        note = "" if recipe == "converged" else "As released: read after a fixed number of small steps."
        return Table(f"Probes, {recipe}", columns, rows, note)


class MRMBench:
    """Probes of a set of tasks: ``MRMBench(tasks, level="easy").run(model)``.

    recipes:           of "converged" and "paper", the first of which gives the score.
    seeds:             of the paper's recipe, and of the permutation of labels.
    inverse_penalty:   of the converged probe.
    centroids:         k of inference-time probing; 0 leaves it out.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        level: Level = "easy",
        recipes: Sequence[Recipe] = RECIPES,
        seeds: Sequence[int] = (0, 1, 2),
        inverse_penalty: float = 0.01,
        centroids: int = 3,
        data: str = "",
    ) -> None:
        if not tasks:
            raise GuerdonError(f"{TITLE} needs at least one task")
        for recipe in recipes:
            if recipe not in RECIPES:
                raise unknown("probe recipe", recipe, RECIPES)
        if not recipes or not seeds:
            raise GuerdonError(f"{TITLE} needs at least one recipe and one seed")
        self.tasks, self.level, self.recipes, self.seeds = list(tasks), level, list(recipes), list(seeds)
        self.inverse_penalty, self.centroids, self.data = inverse_penalty, centroids, data

    def run(
        self, reader: RepresentationReader, *, baseline: RepresentationReader | None = None, progress: bool = True
    ) -> MRMBenchResult:
        """Read the texts of every task, fit the probes, and grade them.

        reader:    of the model (its cache makes a second run go on). baseline: of another one to stand beside it, such
                   as the language model that the reward model was trained from.

        Raises GuerdonError for a task of which too few texts could be read.
        """
        began = time.monotonic()
        reports, states = self._reports(reader, progress)
        others, _ = self._reports(baseline, progress) if baseline is not None else ([], {})
        probe, leaning = self._leaning(states)
        return MRMBenchResult(
            reader.name, reader.identity, self.level, self.data, reports, leaning,
            baseline.name if baseline is not None else "", others, time.monotonic() - began,
            {"pool": reader.pool, "layer": reader.layer, "chat template": reader.template,
             "inverse penalty": self.inverse_penalty, "seeds": ", ".join(map(str, self.seeds))}, probe,
        )  # fmt: skip

    def _reports(
        self, reader: RepresentationReader, progress: bool
    ) -> tuple[list[ProbeReport], dict[str, tuple[_Read, _Read]]]:
        reports: list[ProbeReport] = []
        states = {}
        for task in self.tasks:
            label = f"{reader.name}: {task.dimension}" if progress else None
            train, test = (_Read.of(task.dimension, part, reader, label) for part in (task.train, task.test))
            states[task.dimension] = (train, test)
        fits = [(task, recipe) for recipe in self.recipes for task in self.tasks]
        bar = progress_bar(len(fits), f"{reader.name}: probes") if progress else None
        for task, recipe in fits if bar is None else _shown(fits, bar):
            reports.append(self._report(task, recipe, *states[task.dimension]))
        return reports, states

    def _report(self, task: Task, recipe: Recipe, train: _Read, test: _Read) -> ProbeReport:
        def graded(labels: NDArray[np.int64], seed: int) -> ClassScores:
            probe = self._probe(task, recipe, seed).fit(train.states, labels)
            return class_scores(
                test.labels, probe.predict(test.states), task.classes, training_labels=train.labels, seed=seed
            )

        seeds = self.seeds if recipe == "paper" else self.seeds[:1]
        found = [graded(train.labels, seed) for seed in seeds]
        shuffled = graded(np.random.default_rng([self.seeds[0], 1]).permutation(train.labels), self.seeds[0])
        return ProbeReport(
            task.dimension, recipe, found[0], [one.acc.value for one in found], shuffled.acc.value,
            shuffled.balanced_acc, len(train.labels), train.dropped + test.dropped, task.classes,
        )  # fmt: skip

    def _probe(self, task: Task, recipe: Recipe, seed: int) -> LinearProbe:
        if recipe == "paper":
            return LinearProbe(task.classes, recipe=recipe, steps=PAPER_STEPS.get(task.dimension), seed=seed)
        return LinearProbe(task.classes, recipe=recipe, inverse_penalty=self.inverse_penalty, seed=seed)

    def _leaning(self, states: dict[str, tuple[_Read, _Read]]) -> tuple[InferenceTimeProbe | None, list[list[float]]]:
        if not self.centroids:
            return None, []
        probe = InferenceTimeProbe(self.centroids, seed=self.seeds[0]).fit(
            {name: train.states for name, (train, _) in states.items()},
            {name: train.labels for name, (train, _) in states.items()},
        )
        rows = []
        for _, test in states.values():
            nearest = probe.distances(test.states).argmin(1)
            rows.append((np.bincount(nearest, minlength=len(states)) / len(nearest)).tolist())
        return probe.calibrate(np.concatenate([test.states for _, test in states.values()])), rows


@dataclass(frozen=True)
class _Read:
    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    dropped: int

    @classmethod
    def of(cls, dimension: str, part: Any, reader: RepresentationReader, progress: str | None) -> _Read:
        found = reader(part.conversations, progress=progress)
        kept = found.kept
        if kept.sum() < 2:
            reason = next(iter(found.problems.values()), "there are too few")
            raise GuerdonError(f"{dimension}: {int(kept.sum())} of {len(part)} texts could be read ({reason})")
        return cls(found.states[kept], part.labels[kept], int((~kept).sum()))


def _bar(name: str, interval: Interval) -> Bar:
    return Bar(name, interval.value, interval.low, interval.high)


def _shown(items: Sequence[Any], bar: Any) -> Any:
    with bar:
        for item in items:
            yield item
            bar.advance()
