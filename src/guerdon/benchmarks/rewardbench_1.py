"""RewardBench (arXiv 2403.13787): is the chosen answer scored above the rejected one, in 23 subsets of four sections?

Built from the paper and from its code (allenai/reward-bench, Apache-2.0); none of its data are here. A pair counts 1
where the chosen answer scores strictly higher, else 0 (a judge that ranks: 1 or 0), sections weigh their subsets by the
published counts, and the score is the mean of the four. Deviation: a pair with an answer that has no score is counted
and left out; the published code gives an undecided judgement 0.5, which is in the result as "published rule".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.benchmarks.credits import Credits, Weights, compare, subset_scores, totals
from guerdon.benchmarks.graded import (
    MANY_SUBSETS,
    BenchmarkResult,
    SubjectScores,
    calibration_of,
    counted_problems,
    misjudged,
)
from guerdon.benchmarks.protocol import Question, RowOutcome, ranks_only, run_rows
from guerdon.benchmarks.published_rows import prompt_messages, published_rows, sampled
from guerdon.core.errors import GuerdonError
from guerdon.metrics.best_of_k import REWARDBENCH_1_SECTIONS, section_weights
from guerdon.models.rating_judge import swapped_order
from guerdon.rewards.subject import Subject

__all__ = ["COLUMNS", "HUB", "load_rewardbench_1", "pair_credit", "rewardbench_1"]

TITLE, SOURCE = "RewardBench", "arXiv 2403.13787"
HUB, SPLIT = "allenai/reward-bench", "filtered"
COLUMNS = ("id", "prompt", "chosen", "rejected", "subset")


def load_rewardbench_1(
    data: str | Path | None = None, *, skip_bad_rows: bool = False, out: Path | None = None
) -> list[Question]:
    """The rows of RewardBench, or of data in its columns: id, prompt, chosen (text), rejected (text), subset.

    Answer 0 of each question is the chosen one. data: as `published_rows.published_rows`. Raises GuerdonError naming
    together all rows that cannot be used.
    """
    rows = published_rows(
        TITLE, data, hub=HUB, split=SPLIT, required=COLUMNS, check=_fault, skip_bad_rows=skip_bad_rows, out=out
    )
    return [
        Question(str(row["id"]), prompt_messages(row["prompt"]), (row["chosen"], row["rejected"]), row["subset"])
        for _, row in rows
    ]


def _fault(row: dict[str, Any]) -> str | None:
    for name in ("chosen", "rejected", "subset"):
        if not isinstance(row[name], str):
            return f"column {name!r} must be a text"
    try:
        prompt_messages(row["prompt"])
    except ValueError as error:
        return f"column 'prompt' {error}"
    return None


def rewardbench_1(
    subject: Subject,
    questions: Sequence[Question],
    *,
    against: Subject | None = None,
    out: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    data: str = HUB,
    progress: bool = True,
) -> BenchmarkResult:
    """Grade a subject, or two and their difference; arguments as in `rewardbench_2.rewardbench_2`.

    Raises GuerdonError for no questions and two rows of one id in one subset.
    """
    kept = sampled(questions, limit, lambda one: f"{one.subset}\0{one.id}", seed=seed)
    if not kept:
        raise GuerdonError(f"{data} holds no rows of {TITLE}")
    result = graded_pairs(
        subject, kept, against=against, out=out, seed=seed, benchmark="rewardbench-1", weights=section_weights,
        groups=[f"{one.subset}\0{one.id}" for one in kept], tie=0.0, progress=progress,
    )  # fmt: skip
    subjects, paired, outcomes, seconds = result
    names = list(dict.fromkeys(one.subset for one in kept))
    return BenchmarkResult(
        TITLE, SOURCE, data, len(kept), 2 * len(kept), "Score" if "Score" in subjects[0].totals else "", subjects,
        paired, seconds, {"seed": seed}, misjudged(kept, outcomes, [1] * len(kept)), _notes(names, kept, questions),
    )  # fmt: skip


def pair_credit(outcome: RowOutcome, tie: float) -> float:
    """1 where answer 0 is judged the better of two, 0 where answer 1 is, ``tie`` for equal scores; NaN: not judged."""
    if not outcome.complete:
        return float("nan")
    if outcome.choice is not None:
        return float(outcome.choice == 0)
    chosen, rejected = outcome.values
    return tie if chosen == rejected else float(chosen > rejected)


def graded_pairs(
    subject: Subject,
    questions: Sequence[Question],
    *,
    against: Subject | None,
    out: Path | None,
    seed: int,
    benchmark: str,
    weights: Any,
    groups: Sequence[str],
    tie: float,
    progress: bool,
) -> tuple[list[SubjectScores], list[Any], list[RowOutcome], float]:
    """One or two subjects on questions of two answers, the first of them right.

    weights: subset names -> `Weights`. groups: what each row is resampled with. tie: credit of equal scores.
    Returns the subjects' scores, their differences, the first one's outcomes, and the seconds that it took.
    """
    began = time.monotonic()
    both = [one for one in (subject, against) if one is not None]
    outcomes = [
        _answered(one, questions, out if place == 0 or out is None else out / "against", seed, benchmark, progress)
        for place, one in enumerate(both)
    ]
    names = [question.subset for question in questions]
    credits = [Credits(names, groups, np.array([pair_credit(one, tie) for one in own])) for own in outcomes]
    parts: Weights = weights(list(dict.fromkeys(names)))
    graded = [_graded(one, own, credit, parts, seed) for one, own, credit in zip(both, outcomes, credits, strict=True)]
    paired = compare(credits[0], credits[1], parts, seed=seed) if against is not None else []
    return graded, paired, outcomes[0], time.monotonic() - began


def _answered(
    subject: Subject, questions: Sequence[Question], out: Path | None, seed: int, benchmark: str, progress: bool
) -> list[RowOutcome]:
    ranks = ranks_only(subject)
    asked = [
        Question(one.id, one.prompt, one.answers, one.subset, one.columns,
                 swapped_order(2, seed, f"{one.subset}\0{one.id}") if ranks else None)
        for one in questions
    ]  # fmt: skip
    settings = {"seed": seed} if ranks else {}
    return run_rows(subject, asked, out, benchmark=benchmark, settings=settings, progress=progress)


def _graded(
    subject: Subject, outcomes: Sequence[RowOutcome], credits: Credits, weights: Weights, seed: int
) -> SubjectScores:
    scores, draws = subset_scores(credits, chance=dict.fromkeys(credits.names(), 0.5), seed=seed)
    values = {one.name: one.score.value for one in scores}
    scored = [row for row, outcome in enumerate(outcomes) if outcome.complete and outcome.choice is None]
    both = np.array([outcomes[row].values for row in scored]).reshape(-1, 2)
    published = None
    if subject.modes & {"rate", "rank"} and len(scored) < len(outcomes) and np.isnan(credits.credit).any():
        filled = Credits(credits.subsets, credits.groups, np.where(np.isnan(credits.credit), 0.5, credits.credit))
        halves, drawn = subset_scores(filled)
        published = {one.name: one.score.value for one in halves}
        published |= {name: total.value for name, total in totals(published, drawn, weights).items()}
    return SubjectScores(
        subject.name, subject.identity, " and ".join(sorted(subject.modes)), scores, totals(values, draws, weights),
        counted_problems(outcomes), published,
        calibration_of(both[:, 0], both[:, 1], [credits.groups[row] for row in scored]),
        equal=float((both[:, 0] == both[:, 1]).mean()) if len(both) else float("nan"),
    )  # fmt: skip


def _notes(names: Sequence[str], kept: Sequence[Question], questions: Sequence[Question]) -> list[str]:
    notes = [MANY_SUBSETS.replace("{count}", str(len(names)))] if len(names) > 1 else []
    known = [name for own in REWARDBENCH_1_SECTIONS.values() for name in own]
    missing = [name for name in known if name not in names]
    if missing:
        notes.append(f"Not the whole of {TITLE}: the rows lack {', '.join(missing)}.")
    own = [name for name in names if name not in known]
    if own:
        notes.append(f"In no section, and so in no total: {', '.join(own)}.")
    if len(kept) < len(questions):
        notes.append(f"A sample of {len(kept)} of {len(questions)} rows.")
    notes.append("Equal scores count 0, as published.")
    return notes
