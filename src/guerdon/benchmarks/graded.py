"""What a benchmark of right and wrong answers found: scores by subset, two subjects compared, calibration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from guerdon.benchmarks.credits import Difference, SubsetScore
from guerdon.benchmarks.protocol import Question, RowOutcome
from guerdon.core.preferences import text_of
from guerdon.core.sheet import Bar, Bars, Example, Examples, Line, Lines, Part, Sheet, Table
from guerdon.metrics.best_of_k import TiesScore
from guerdon.metrics.calibration import brier, expected_calibration_error, pair_probabilities, reliability
from guerdon.metrics.intervals import Interval

__all__ = ["BenchmarkResult", "Calibration", "SubjectScores", "calibration_of", "counted_problems", "misjudged"]

SHOWN, LONGEST = 5, 700
MANY_SUBSETS = (
    "Each interval covers one number; of {count} subsets the best and the worst stand out by chance alone, so a "
    "subset that was picked after looking needs its Holm-adjusted p, and a claim about it new data."
)


@dataclass(frozen=True)
class Calibration:
    """Do score gaps come true as Bradley-Terry log-odds? Over pairs of a right and a wrong answer to one prompt."""

    pairs: int
    error: float
    brier: float
    bins: list[dict[str, float]]


@dataclass(frozen=True)
class SubjectScores:
    """What one subject got.

    totals:     name -> score over several subsets. problems: answers without a judgement, by kind.
    published:  the totals by the published rule for replies that cannot be read, where there were any.
    equal:      share of the judged rows in which a right and a wrong answer share the highest score; NaN for a ranking.
    """

    name: str
    identity: str
    mode: str
    subsets: list[SubsetScore]
    totals: dict[str, Interval]
    problems: dict[str, int] = field(default_factory=dict)
    published: dict[str, float] | None = None
    calibration: Calibration | None = None
    ties: TiesScore | None = None
    equal: float = math.nan


@dataclass(frozen=True)
class BenchmarkResult:
    """A benchmark's result for one subject, or for two with their difference.

    headline:  the total that stands for the whole; "" where the data lack what it needs.
    settings:  what beside subject and data decided the numbers.
    """

    title: str
    source: str
    data: str
    rows: int
    answers: int
    headline: str
    subjects: list[SubjectScores]
    paired: list[Difference] = field(default_factory=list)
    seconds: float = math.nan
    settings: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    notes: Sequence[str] = ()

    @property
    def score(self) -> float:
        """The first subject's headline score; NaN where there is none."""
        total = self.subjects[0].totals.get(self.headline)
        return total.value if total is not None else math.nan

    def lead(self) -> str:
        """What was found, in a sentence."""
        first = self.subjects[0]
        if not self.headline or math.isnan(self.score):
            judged = sum(one.rows - one.unjudged for one in first.subsets)
            known = [one for one in first.subsets if not math.isnan(one.score.value)][:6]
            parts = ", ".join(f"{one.name} {one.score.value:.3f}" for one in known) or "no score"
            return f"{first.name} on {self.title}: {parts} ({judged} of {self.rows} rows judged)."
        told = f"{first.name} scores {first.totals[self.headline]} on {self.title}."
        paired = next((one for one in self.paired if one.name == self.headline), None)
        if paired is None:
            return told
        second = self.subjects[1]
        low, high = paired.difference.low, paired.difference.high
        verdict = "better" if low > 0 else "worse" if high < 0 else "no different as far as these rows tell"
        return (
            f"{told} It is {verdict} than {second.name}: {paired.difference.value:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"better on {paired.test.better} rows and worse on {paired.test.worse} (exact p = {paired.test.p:.2g})."
        )

    def sheet(self) -> Sheet:
        """Tables, figures and examples."""
        facts = {"data": self.data, "rows": f"{self.rows} rows, {self.answers} answers"}
        for one in self.subjects:
            facts[one.name] = f"{one.identity}, asked to {one.mode}"
        facts |= {name: str(value) for name, value in self.settings.items()}
        if not math.isnan(self.seconds):
            facts["seconds"] = f"{self.seconds:.1f}"
        parts: list[Part] = [self._scores(), self._bars()]
        if self.paired:
            parts.append(self._paired())
        parts += [*self._ties(), *self._calibration(), *self._problems()]
        if self.examples:
            parts.append(Examples("Rows that were misjudged most", self.examples))
        return Sheet("benchmark", self.title, self.lead(), facts, parts, list(self.notes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        subjects = [{**asdict(one), "ties": one.ties.to_dict() if one.ties else None} for one in self.subjects]
        return {
            "benchmark": self.title, "source": self.source, "data": self.data, "rows": self.rows,
            "answers": self.answers, "headline": self.headline, "score": self.score, "subjects": subjects,
            "paired": [one.to_dict() for one in self.paired], "seconds": self.seconds,
            "settings": dict(self.settings), "notes": list(self.notes),
        }  # fmt: skip

    def _scores(self) -> Table:
        chance = any(one.chance is not None for one in self.subjects[0].subsets)
        unjudged = [sum(one.unjudged for one in subject.subsets) > 0 for subject in self.subjects]
        columns: list[str] = ["subset", "rows"]
        for subject, some in zip(self.subjects, unjudged, strict=True):
            columns += [f"{subject.name} [95%]", *(["not judged"] if some else [])]
            columns += ["published rule"] if subject.published else []
        columns += ["chance"] if chance else []
        rows: list[list[Any]] = []
        for place, subset in enumerate(self.subjects[0].subsets):
            if subset.name in self.subjects[0].totals:
                continue  # the only subset is the total
            cells: list[Any] = [subset.name, subset.rows]
            for subject, some in zip(self.subjects, unjudged, strict=True):
                own = subject.subsets[place]
                cells += [_interval(own.score), *([own.unjudged] if some else [])]
                cells += [subject.published.get(own.name)] if subject.published else []
            rows.append(cells + ([subset.chance] if chance else []))
        for name in self.subjects[0].totals:
            cells = [name, self.rows if name == self.headline else None]
            for subject, some in zip(self.subjects, unjudged, strict=True):
                cells += [_interval(subject.totals[name]), *([None] if some else [])]
                cells += [subject.published.get(name)] if subject.published else []
            rows.append(cells + ([None] if chance else []))
        note = "Intervals resample prompts within each subset."
        if any(unjudged):
            note += " Rows without a judgement are counted and left out of the score."
        return Table("Scores", columns, rows, note)

    def _bars(self) -> Bars:
        several = len(self.subjects) > 1
        bars = []
        for place, subset in enumerate(self.subjects[0].subsets):
            for subject in self.subjects:
                score = subject.subsets[place].score
                name = f"{subset.name}: {subject.name}" if several else subset.name
                bars.append(Bar(name, score.value, *_ends(score)))
        known = {one.chance for one in self.subjects[0].subsets if one.chance is not None}
        top = max([1.0, *(bar.value for bar in bars if not math.isnan(bar.value))])
        return Bars("Score by subset", bars, high=top, mark=known.pop() if len(known) == 1 else None)

    def _paired(self) -> Table:
        first, second = self.subjects
        rows: list[list[Any]] = []
        totals = {one.name for one in self.paired if math.isnan(one.p_adjusted)}
        for one in self.paired:
            if one.name in totals and not math.isnan(one.p_adjusted):
                continue
            gap = one.difference
            told = None if math.isnan(gap.value) else f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
            test = one.test
            adjusted = None if math.isnan(one.p_adjusted) else f"{one.p_adjusted:.2g}"
            rows.append([one.name, told, test.better, test.worse, test.equal, f"{test.p:.2g}", adjusted])
        columns = ["subset", f"{first.name} less {second.name} [95%]", "better", "worse", "equal", "p", "p (Holm)"]
        note = "On the rows that both judged. p: exact two-sided sign test (McNemar's for right and wrong rows)."
        return Table("Paired difference", columns, rows, note)

    def _ties(self) -> list[Part]:
        told = [(one.name, one.ties) for one in self.subjects if one.ties is not None]
        if not told:
            return []
        names = ("score", "tied_accuracy", "ref_accuracy", "preferred", "hard", "margin", "prompts")
        labels = ("score (1.01 is perfect)", "right answers above wrong ones: several right", "and one right",
                  "gap to wrong answers above spread of right ones", "and on its one-right twin too",
                  "margin term (counts 0.01)", "prompts with both rows")  # fmt: skip
        rows: list[list[Any]] = [
            [label, *(getattr(ties, name) for _, ties in told)] for name, label in zip(names, labels, strict=True)
        ]
        return [Table("The Ties score", ["term", *(name for name, _ in told)], rows)]

    def _calibration(self) -> list[Part]:
        told = [(one.name, one.calibration) for one in self.subjects if one.calibration is not None]
        if not told:
            return []
        lines = [
            Line(
                name, *([one[key] for one in found.bins] for key in ("predicted", "observed", "low", "high"))
            )  # fmt: skip
            for name, found in told
        ]
        note = "A gap of scores read as the log-odds that the higher answer is the right one. Scales that were never "
        note += "meant so (ratings, lengths) may be off here and still order answers well."
        table = Table(
            "Calibration", ["subject", "pairs", "calibration error", "Brier score"],
            [[name, found.pairs, found.error, found.brier] for name, found in told], note,
        )  # fmt: skip
        axes = {"x_label": "predicted", "y_label": "came true", "diagonal": True}
        return [table, Lines("Reliability", lines, **axes)]  # type: ignore[arg-type]

    def _problems(self) -> list[Part]:
        rows: list[list[Any]] = [
            [one.name, kind, count] for one in self.subjects for kind, count in sorted(one.problems.items())
        ]
        if not rows:
            return []
        return [Table("What was not judged", ["subject", "kind", "answers or choices"], rows)]


def calibration_of(right: ArrayLike, wrong: ArrayLike, groups: Sequence[str]) -> Calibration | None:
    """`Calibration` of pairs [M] of scores, ``groups`` their prompts; None for no pairs."""
    high, low = np.asarray(right, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    if not high.size:
        return None
    prob, outcome = pair_probabilities(high, low)
    bins = [
        {"predicted": one.prob, "observed": one.outcome.value, "low": one.outcome.low, "high": one.outcome.high,
         "count": one.count}
        for one in reliability(prob, outcome, groups=np.asarray(groups), resamples=200)
    ]  # fmt: skip
    return Calibration(high.size, expected_calibration_error(prob, outcome), brier(prob, outcome), bins)


def counted_problems(outcomes: Iterable[RowOutcome]) -> dict[str, int]:
    """Answers and choices without a judgement, by kind."""
    return dict(Counter(kind for outcome in outcomes for kind in outcome.kinds()))


def misjudged(questions: Sequence[Question], outcomes: Sequence[RowOutcome], right: Sequence[int]) -> list[Example]:
    """The rows whose best wrong answer beats the worst right one by most, and replies that could not be read.

    right: how many of each question's answers, the first ones, are right.
    """
    gaps = []
    for place, (outcome, count) in enumerate(zip(outcomes, right, strict=True)):
        if outcome.choice is not None and outcome.choice >= count:
            gaps.append((math.inf, place))
        elif outcome.complete and outcome.choice is None:
            gap = float(outcome.values[count:].max() - outcome.values[:count].min())
            if gap > 0:
                gaps.append((gap, place))
    shown = []
    for _, place in sorted(gaps, key=lambda one: (-one[0], one[1]))[:SHOWN]:
        question, outcome, count = questions[place], outcomes[place], right[place]
        if outcome.choice is not None:
            worst, best = 0, outcome.choice
            told = f"the judge chose answer {outcome.choice + 1}"
        else:
            worst = int(outcome.values[:count].argmin())
            best = count + int(outcome.values[count:].argmax())
            told = f"{outcome.values[worst]:.4g} for the right answer, {outcome.values[best]:.4g} for the wrong one"
        shown.append(
            Example(
                f"{question.subset} {question.id}".strip(),
                {
                    "prompt": _cut(text_of(question.prompt)),
                    "right answer": _cut(text_of(question.answers[worst])),
                    "preferred wrong answer": _cut(text_of(question.answers[best])),
                    "said": told,
                },
            )
        )
    for question, outcome in zip(questions, outcomes, strict=True):
        if len(shown) >= 2 * SHOWN:
            break
        unread = next((row for row, problem in outcome.problems.items() if problem.startswith("unparsable")), None)
        if unread is not None:
            reply = str(outcome.details.get(unread, {}).get("reply", ""))
            fields = {"problem": outcome.problems[unread], "reply": _cut(reply)}
            shown.append(Example(f"{question.subset} {question.id}: not understood".strip(), fields))
    return shown


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " [...]"


def _interval(interval: Interval) -> str | None:
    return None if math.isnan(interval.value) else str(interval)


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    return (None, None) if math.isnan(interval.low) else (interval.low, interval.high)
