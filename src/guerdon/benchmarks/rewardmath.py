"""RewardMATH (arXiv 2410.01729): does a subject put one right solution above all the wrong ones to the same problem?

Built from the paper's released code and result files (kimsh0507/RewardMATH_official, MIT); none of its data are here.
Deviations: a reply that cannot be read leaves its item out of the score and is counted, while the published rule makes
it the lowest rating or a lost comparison (both are in the result; a published file is graded by its own rule); judges
are asked in our own words; a problem that stands twice in the data counts once; which of the two solutions of a
comparison comes first alternates over all of them, where the released file holds its own places.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.benchmarks.credits import Credits, Difference, Weights, compare, subset_scores, totals
from guerdon.benchmarks.graded import (
    MANY_SUBSETS,
    BenchmarkResult,
    SubjectScores,
    calibration_of,
    counted_problems,
    misjudged,
)
from guerdon.benchmarks.one_to_many_items import OneToManyItem, OneToManyItems
from guerdon.benchmarks.protocol import Question, RowOutcome, ranks_only, run_rows
from guerdon.benchmarks.published_rows import sampled
from guerdon.benchmarks.rewardmath_result import RankedSubject, RewardMathResult, Selection
from guerdon.benchmarks.rewardmath_scores import PublishedScores
from guerdon.benchmarks.shortcuts import item_features, shortcut_audit
from guerdon.core.errors import GuerdonError
from guerdon.metrics.answer_selection import answer_classes, powers_of_two, selected_right
from guerdon.metrics.one_to_many import OneToMany, one_to_many, pairwise_to_one_to_many
from guerdon.metrics.position_bias import position_bias, swap_consistency
from guerdon.metrics.step_aggregation import Reducer
from guerdon.rewards.subject import Subject
from guerdon.rewards.text.final_answer import same_answer, stated_answer

__all__ = ["rewardmath", "rewardmath_published"]

TITLE, SOURCE = "RewardMATH", "arXiv 2410.01729"
OWN = "One against many"
LOWEST_RATING = 1.0


def rewardmath(
    subject: Subject,
    items: OneToManyItems,
    *,
    against: Subject | None = None,
    out: Path | None = None,
    limit: int | None = None,
    both_orders: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> RewardMathResult:
    """Grade a subject, or two and their difference.

    out:          folder where each row's outcome is kept, and taken up again (rows.jsonl; against/rows.jsonl).
    limit:        a sample of so many problems, drawn by ``seed``.
    both_orders:  ask a judge of pairs every comparison a second time, exchanged, to see whether it keeps its word;
                  the first order is the one that counts.

    A judge that ranks compares the right solution with each wrong one; every other subject scores all solutions. Data
    of sampled solutions (`load_one_to_many`) also give best-of-n. Raises GuerdonError for no items.
    """
    kept = sampled(items.items, limit, lambda item: item.id, seed=seed)
    sided = [] if items.published or limit is not None else list(items.one_sided)
    began = time.monotonic()
    subjects = [subject] if against is None else [subject, against]
    told = [
        _Answered(one, kept, sided, None if out is None else out / folder, both_orders, progress)
        for one, folder in zip(subjects, ("", "against"), strict=False)
    ]
    features = item_features(kept)
    scored = next((one for one in told if not one.ranks), None)
    audit = shortcut_audit(features, scored.scores if scored is not None else None, seed=seed)
    lists = [one for one in told if not one.ranks]
    selection = None if items.published or not lists else _selection(kept, sided, lists)
    labels, names = [item.subset for item in kept], [item.id for item in kept]
    graded = _graded(
        [(one.subject_scores(labels, names, seed), one.outcome) for one in told], labels, names,
        title=TITLE if items.published else OWN, data=items.name, answers=sum(len(item.compared) for item in kept),
        seconds=time.monotonic() - began, seed=seed,
    )  # fmt: skip
    notes = list(graded.notes)
    if len(kept) < len(items):
        notes.append(f"A sample of {len(kept)} of {len(items)} problems.")
    notes += [f"Left out: {count} problems with {why}." for why, count in items.left_out.items()]
    examples = misjudged(*told[0].compared())
    return RewardMathResult(
        replace(graded, notes=notes, examples=examples), [one.summary() for one in told], audit, selection
    )


def rewardmath_published(
    scores: PublishedScores, *, against: PublishedScores | None = None, reducer: Reducer = "prod", seed: int = 0
) -> RewardMathResult:
    """Grade a published result file, or two on the problems that both hold.

    reducer: of step scores; the result holds all eight, but this one was chosen before.
    """
    files = [scores] if against is None else [scores, against]
    shared = [name for name in scores.names() if against is None or name in set(against.names())]
    if not shared:
        raise GuerdonError(f"{scores.path} and {files[-1].path} have no problem in common")
    began, labels = time.monotonic(), ["all"] * len(shared)
    outcomes = []
    for one in files:
        place = {name: number for number, name in enumerate(one.names())}
        rows = np.array([place[name] for name in shared])
        ranks = _taken(one.by_problem(one.ranked(reducer)), rows)
        beside = {}
        if one.kind == "comparisons" and one.unparsable():
            left = _taken(one.by_problem(one.ranked(unparsable="leave_out")), rows)
            beside = {"unparsable left out": left.summary()}
        subject = RankedSubject(one.name, ranks, beside, one.reducers(), one.position_bias())
        mode = {"scores": "score", "steps": f"score (steps by {reducer})", "comparisons": "rank"}[one.kind]
        problems = {"unparsable": one.unparsable()} if one.unparsable() else {}
        outcomes.append((_subject_scores(one.name, one.identity, mode, ranks, labels, shared, problems, seed), subject))
    counts = scores.step_counts()
    audit = None
    if counts:
        features = {"n_steps": counts, "position": [np.arange(float(len(row))) for row in counts]}
        audit = shortcut_audit(features, scores.scores(reducer), groups=np.array(scores.problems), seed=seed)
    graded = _graded(
        [(own, subject.ranks) for own, subject in outcomes], labels, shared, title=TITLE, data=str(scores.path),
        answers=int(sum(outcomes[0][1].ranks.wrong + 1)), seconds=time.monotonic() - began, seed=seed,
    )  # fmt: skip
    notes = list(graded.notes)
    if len(scores.problems) > len(scores.names()):
        every = scores.ranked(reducer).acc
        notes.append(
            f"{scores.path.name} lists {len(scores.problems)} rows for {len(scores.names())} problems, which count "
            f"once each here; over all rows the accuracy is {100 * every:.2f}%."
        )
    return RewardMathResult(replace(graded, notes=notes), [subject for _, subject in outcomes], audit)


class _Answered:
    """One subject's answers to all items."""

    def __init__(
        self, subject: Subject, items: Sequence[OneToManyItem], sided: Sequence[OneToManyItem], out: Path | None,
        both_orders: bool, progress: bool,
    ) -> None:  # fmt: skip
        self.subject, self.items, self.sided, self.ranks = subject, items, sided, ranks_only(subject)
        every = [*items, *sided]
        self.questions = _comparisons(items, both_orders) if self.ranks else [_question(item) for item in every]
        self.outcomes = run_rows(
            subject, self.questions, out, benchmark="rewardmath",
            settings={"both_orders": both_orders} if self.ranks else {}, progress=progress,
        )  # fmt: skip
        self.wins, self.swapped = self._wins(both_orders) if self.ranks else ([], None)
        self.scores = [
            outcome.values[item.compared] for item, outcome in zip(items, self.outcomes, strict=False) if not self.ranks
        ]
        self.outcome = (
            pairwise_to_one_to_many(self.wins, unparsable="leave_out") if self.ranks else one_to_many(self.scores)
        )

    def all_scores(self) -> list[NDArray[np.float64]]:
        """Scores of every solution of every problem, in the order of items and one-sided ones."""
        return [outcome.values for outcome in self.outcomes]

    def compared(self) -> tuple[list[Question], list[RowOutcome], list[int]]:
        """Questions with the solutions that were compared alone, for examples."""
        if self.ranks:
            return list(self.questions), list(self.outcomes), [1] * len(self.questions)
        questions, outcomes = [], []
        for item, question, outcome in zip(self.items, self.questions, self.outcomes, strict=False):
            places = item.compared
            kept = {new: old for new, old in enumerate(places)}
            questions.append(replace(question, answers=tuple(question.answers[place] for place in places)))
            problems = {new: outcome.problems[old] for new, old in kept.items() if old in outcome.problems}
            details = {new: outcome.details[old] for new, old in kept.items() if old in outcome.details}
            outcomes.append(RowOutcome(outcome.values[places], None, problems, details))
        return questions, outcomes, [1] * len(questions)

    def summary(self) -> RankedSubject:
        """Its ranks, and where it compared pairs what place the right solution stood in."""
        beside = {}
        if self.subject.modes & {"rate", "rank"} and not self.outcome.measured.all():
            lowest = [np.nan_to_num(row, nan=LOWEST_RATING) for row in self.scores]
            found = pairwise_to_one_to_many(self.wins) if self.ranks else one_to_many(lowest)
            beside = {"published rule": found.summary()}
        position = None
        if self.ranks:
            first = [question.order for question in self.questions if not question.id.endswith(_SWAPPED)]
            places = ["A" if order == (0, 1) else "B" for order in first]
            if len(set(places)) == 2:
                groups = [number for number, row in enumerate(self.wins) for _ in row]
                position = position_bias(np.concatenate(self.wins), places, groups=groups)
        return RankedSubject(self.subject.name, self.outcome, beside, {}, position, self.swapped)

    def subject_scores(self, labels: Sequence[str], names: Sequence[str], seed: int) -> SubjectScores:
        """Its scores by subset, as every benchmark reports them."""
        found = _subject_scores(
            self.subject.name, self.subject.identity, " and ".join(sorted(self.subject.modes)), self.outcome, labels,
            names, counted_problems(self.outcomes), seed,
        )  # fmt: skip
        pairs = [
            (row[0], wrong, item.id)
            for item, row in zip(self.items, self.scores, strict=False)
            for wrong in row[1:]
            if not np.isnan(row[0]) and not np.isnan(wrong)
        ]
        calibration = calibration_of([p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs])
        return replace(found, calibration=calibration)

    def _wins(self, both_orders: bool) -> tuple[list[NDArray[np.float64]], dict[str, float] | None]:
        said = {
            question.id: np.nan if outcome.choice is None else float(outcome.choice == 0)
            for question, outcome in zip(self.questions, self.outcomes, strict=True)
        }
        wins = [
            np.array([said[f"{item.id}#{number}"] for number in range(len(item.compared) - 1)]) for item in self.items
        ]
        if not both_orders:
            return wins, None
        again = [
            said[f"{item.id}#{number}{_SWAPPED}"] for item, row in zip(self.items, wins) for number in range(len(row))
        ]
        return wins, swap_consistency(np.concatenate(wins), again)


_SWAPPED = "~"


def _question(item: OneToManyItem) -> Question:
    columns = {"solution": item.solution} if item.solution else {}
    return Question(item.id, item.prompt, item.answers, item.subset, columns)


def _comparisons(items: Sequence[OneToManyItem], both_orders: bool) -> list[Question]:
    """The right solution against each wrong one, first in every other comparison."""
    questions: list[Question] = []
    number = 0
    for item in items:
        right, *wrong = item.compared
        for place, other in enumerate(wrong):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            pair = (item.answers[right], item.answers[other])
            columns = {"solution": item.solution} if item.solution else {}
            name = f"{item.id}#{place}"
            questions.append(Question(name, item.prompt, pair, item.subset, columns, order))
            if both_orders:
                questions.append(Question(name + _SWAPPED, item.prompt, pair, item.subset, columns, order[::-1]))
            number += 1
    return questions


def _subject_scores(
    name: str, identity: str, mode: str, ranks: OneToMany, labels: Sequence[str], names: Sequence[str],
    problems: dict[str, int], seed: int,
) -> SubjectScores:  # fmt: skip
    credits = Credits(labels, names, ranks.first)
    chance = {label: float(np.mean(1 / (1 + ranks.wrong[credits.rows(label)]))) for label in credits.names()}
    scores, draws = subset_scores(credits, chance=chance, seed=seed)
    values = {one.name: one.score.value for one in scores}
    return SubjectScores(
        name, identity, mode, scores, totals(values, draws, _weights(credits)), problems, equal=ranks.tie_rate
    )


def _weights(credits: Credits) -> Weights:
    """All judged items alike, whatever their subset."""
    judged = {name: int((~np.isnan(credits.credit[credits.rows(name)])).sum()) for name in credits.names()}
    total = sum(judged.values())
    return {TITLE: {name: count / total for name, count in judged.items() if count}} if total else {}


def _graded(
    parts: Sequence[tuple[SubjectScores, OneToMany]], labels: Sequence[str], names: Sequence[str], *, title: str,
    data: str, answers: int, seconds: float, seed: int,
) -> BenchmarkResult:  # fmt: skip
    paired: list[Difference] = []
    if len(parts) == 2:
        both = parts[0][1].measured & parts[1][1].measured
        credits = [Credits(labels, names, np.where(both, ranks.first, np.nan)) for _, ranks in parts]
        paired = compare(credits[0], credits[1], _weights(credits[0]), seed=seed)
    subsets = list(dict.fromkeys(labels))
    notes = [MANY_SUBSETS.replace("{count}", str(len(subsets)))] if len(subsets) > 1 else []
    headline = TITLE if TITLE in parts[0][0].totals else ""
    return BenchmarkResult(
        title, SOURCE, data, len(names), answers, headline, [own for own, _ in parts], paired, seconds,
        {"seed": seed}, (), notes,
    )  # fmt: skip


def _taken(found: OneToMany, rows: NDArray[np.int64]) -> OneToMany:
    return OneToMany(
        found.first[rows], found.first_or_tied[rows], found.first_by_lot[rows], found.reciprocal_rank[rows],
        found.beaten[rows], found.wrong[rows],
    )  # fmt: skip


def _selection(
    items: Sequence[OneToManyItem], sided: Sequence[OneToManyItem], answered: Sequence[_Answered]
) -> Selection:
    """Best-of-n of every problem's solutions, in the order of the data, by each subject's scores."""
    every = [*items, *sided]
    sizes = powers_of_two(min(len(item.answers) for item in every))
    classes, right = [], []
    for item in every:
        stated = [stated_answer(text) for text in item.answers]
        texts = [one.text if one is not None else text for one, text in zip(stated, item.answers, strict=True)]
        order = np.argsort(item.places)
        classes.append(answer_classes([texts[place] for place in order], same_answer))
        right.append((order < item.right).astype(float))

    def curve(scores: Sequence[NDArray[np.float64]], tie: Any = "majority") -> list[float]:
        rows = [
            selected_right(own, kinds, good, sizes, tie=tie)
            for own, kinds, good in zip(scores, classes, right, strict=True)
        ]
        # A problem of which nothing was scored is left out; where none is left there is no share.
        known = [column[~np.isnan(column)] for column in np.stack(rows).T]
        return [float(column.mean()) if column.size else float("nan") for column in known]

    curves = {
        one.subject.name: curve(
            [own[np.argsort(item.places)] for own, item in zip(one.all_scores(), every, strict=True)]
        )
        for one in answered
    }
    same = [np.zeros(len(item.answers)) for item in every]
    curves |= {"majority": curve(same), "any right": curve(right), "one at random": curve(same, "average")}
    return Selection(sizes, curves, len(every))
