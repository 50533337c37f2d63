"""RewardBench 2 (arXiv 2506.01937): one right answer among four in five domains, and the calibration test Ties.

Built from the paper and from its code (allenai/reward-bench, Apache-2.0) at commit 05a9005; none of its data are here.
Deviations: an answer without a score is counted and its row left out, while the published code reads a rating that it
cannot parse as -1 and gives a row without any rating 0.25 (both are in the result, the latter as "published rule");
the place of the right answer in a ranking is drawn by seed and kept; judges are asked in our own words.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.benchmarks.credits import Credits, Special, Weights, compare, subset_scores, totals
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
from guerdon.core.preferences import Message
from guerdon.metrics.best_of_k import (
    REWARDBENCH_2_SUBSETS,
    TiesRow,
    best_of_k_credit,
    chance_credit,
    ties_draws,
    ties_row,
    ties_score,
    ties_terms,
)
from guerdon.models.rating_judge import swapped_order
from guerdon.rewards.subject import Subject

__all__ = ["COLUMNS", "HUB", "BestOfKItem", "load_rewardbench_2", "rewardbench_2"]

TITLE, SOURCE = "RewardBench 2", "arXiv 2506.01937"
HUB, SPLIT = "allenai/reward-bench-2", "test"
COLUMNS = ("id", "prompt", "chosen", "rejected", "subset")
COUNTS = ("num_correct", "total_completions")
TIES = "Ties"
HEADLINE = "RewardBench 2"
UNRATED = -1.0


@dataclass(frozen=True)
class BestOfKItem:
    """A prompt with its right answers (``chosen``) and wrong ones (``rejected``); ``where`` is ``file:row``."""

    id: str
    subset: str
    prompt: list[Message]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    where: str = ""

    @property
    def num_correct(self) -> int:
        """How many answers are right; they come first."""
        return len(self.chosen)

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers, the right ones first."""
        return self.chosen + self.rejected


def load_rewardbench_2(
    data: str | Path | None = None, *, skip_bad_rows: bool = False, out: Path | None = None
) -> list[BestOfKItem]:
    """The rows of RewardBench 2, or of data in its columns: id, prompt, chosen (list), rejected (list), subset, and,
    checked against the lists where they are there, num_correct and total_completions.

    data: as `published_rows.published_rows`. Subset names are the published ones in any letter case, or one's own; rows
    of "Ties" have ids "ref:PROMPT" (one right answer) and "tied:PROMPT" (several).

    Raises GuerdonError naming together all rows that cannot be used.
    """
    rows = published_rows(
        TITLE, data, hub=HUB, split=SPLIT, required=COLUMNS, optional=COUNTS, check=_fault,
        skip_bad_rows=skip_bad_rows, out=out,
    )  # fmt: skip
    return [
        BestOfKItem(
            str(row["id"]), _canonical(row["subset"]), prompt_messages(row["prompt"]), tuple(row["chosen"]),
            tuple(row["rejected"]), where,
        )
        for where, row in rows
    ]  # fmt: skip


def _fault(row: dict[str, Any]) -> str | None:
    for name in ("chosen", "rejected"):
        if not isinstance(row[name], list | tuple) or not all(isinstance(text, str) for text in row[name]):
            return f"column {name!r} must be a list of texts"
    if not isinstance(row["subset"], str):
        return "column 'subset' must be a name"
    try:
        prompt_messages(row["prompt"])
        if _canonical(row["subset"]) == TIES:
            count = len(row["chosen"])
            ties_row(str(row["id"]), np.zeros(count + len(row["rejected"])), count)
    except (ValueError, GuerdonError) as error:
        return str(error)
    counts = dict(zip(COUNTS, (len(row["chosen"]), len(row["chosen"]) + len(row["rejected"])), strict=True))
    for name, count in counts.items():
        if row.get(name) is not None and row[name] != count:
            return f"column {name!r} is {row[name]!r}, but the lists hold {count}"
    return None


def _canonical(subset: str) -> str:
    plain = " ".join(subset.replace("_", " ").split()).lower()
    return next((name for name in REWARDBENCH_2_SUBSETS if name.lower() == plain), subset)


def rewardbench_2(
    subject: Subject,
    items: Sequence[BestOfKItem],
    *,
    against: Subject | None = None,
    out: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    atol: float = 0.0,
    data: str = HUB,
    progress: bool = True,
) -> BenchmarkResult:
    """Grade a subject, or two and their difference.

    out:    folder where each row's outcome is kept, and taken up again (rows.jsonl; against/rows.jsonl).
    limit:  a sample of so many rows, drawn by ``seed``; both rows of a prompt of Ties stay together.
    seed:   of that, of the place of the right answer in rankings, and of the intervals.
    atol:   scores so near to the highest count as equal to it (the published rule: 0).

    A judge that ranks is asked to choose among the answers, save in Ties, which asks for ratings. Raises GuerdonError
    for no items, two rows of one id, and a subject that ranks and cannot rate where there are Ties.
    """
    kept = sampled(items, limit, _unit, seed=seed)
    if not kept:
        raise GuerdonError(f"{data} holds no rows of {TITLE}")
    began = time.monotonic()
    asked = [
        _answered(one, kept, None if out is None else out / folder, seed, progress)
        for one, folder in ((subject, ""), (against, "against"))
        if one is not None
    ]
    credits = [_credits(kept, outcomes, atol) for _, outcomes in asked]
    weights = _weights(credits[0])
    graded = [
        _graded(one, kept, questions, outcomes, own, weights, atol, seed)
        for one, (questions, outcomes), own in zip((subject, against), asked, credits, strict=False)
        if one is not None
    ]
    paired = []
    if against is not None:
        common = [
            _credits(kept, outcomes, atol, beside=asked[1 - place][1]) for place, (_, outcomes) in enumerate(asked)
        ]
        paired = compare(common[0], common[1], weights, seed=seed)
    return BenchmarkResult(
        TITLE, SOURCE, data, len(kept), sum(len(item.answers) for item in kept), next(iter(weights), ""),
        graded, paired, time.monotonic() - began, {"seed": seed, "equality": f"within {atol:g}" if atol else "exact"},
        misjudged(*asked[0], [item.num_correct for item in kept]), _notes(kept, items, credits[0]),
    )  # fmt: skip


def _unit(item: BestOfKItem) -> str:
    name = item.id.partition(":")[2] if item.subset == TIES else item.id
    return f"{item.subset}\0{name}"


def _answered(
    subject: Subject, items: Sequence[BestOfKItem], out: Path | None, seed: int, progress: bool
) -> tuple[list[Question], list[RowOutcome]]:
    ranks = ranks_only(subject)
    if ranks and any(item.subset == TIES for item in items) and not callable(getattr(subject, "score", None)):
        raise GuerdonError(f"{subject.name} ranks and cannot rate, but Ties asks for ratings; leave out its rows")
    questions = []
    for item in items:
        ties = item.subset == TIES
        order = swapped_order(len(item.answers), seed, f"{item.subset}\0{item.id}") if ranks and not ties else None
        columns = {"many_right": True} if ties else {}
        questions.append(Question(item.id, item.prompt, item.answers, item.subset, columns, order))
    settings = {"seed": seed} if ranks else {}
    return questions, run_rows(
        subject, questions, out, benchmark="rewardbench-2", settings=settings, progress=progress
    )  # fmt: skip


def _credits(
    items: Sequence[BestOfKItem],
    outcomes: Sequence[RowOutcome],
    atol: float,
    *,
    beside: Sequence[RowOutcome] | None = None,
) -> Credits:
    """Credit of every row, and the Ties rows apart; ``beside``: leave out what another subject did not judge."""
    judged = [outcome.complete and (beside is None or beside[row].complete) for row, outcome in enumerate(outcomes)]
    credit = np.full(len(items), np.nan)
    rows: list[TiesRow] = []
    accurate = np.full(len(items), np.nan)
    for row, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        if item.subset == TIES:
            values = outcome.values if judged[row] else np.full(len(item.answers), np.nan)
            rows.append(ties_row(item.id, values, item.num_correct))
            accurate[row] = rows[-1].accurate
        elif judged[row]:
            credit[row] = _credit(item, outcome, atol)
    groups = [_unit(item) for item in items]
    special = {TIES: _ties_special(rows, accurate)} if rows else {}
    return Credits([item.subset for item in items], groups, credit, special)


def _credit(item: BestOfKItem, outcome: RowOutcome, atol: float) -> float:
    if outcome.choice is not None:
        return float(outcome.choice < item.num_correct)
    return float(best_of_k_credit(outcome.values, item.num_correct, atol=atol))


def _ties_special(rows: list[TiesRow], accurate: NDArray[np.float64]) -> Special:
    prompts, _ = ties_terms(rows)
    return Special(lambda counts: ties_draws(rows, counts), len(prompts), accurate)


def _weights(credits: Credits) -> Weights:
    names = credits.names()
    whole = [name for name in REWARDBENCH_2_SUBSETS if name in names]
    if len(whole) == len(REWARDBENCH_2_SUBSETS):
        return {HEADLINE: {name: 1 / len(whole) for name in whole}}
    if len(names) < 2:
        return {}
    return {f"mean of {len(names)} subsets": {name: 1 / len(names) for name in names}}


def _graded(
    subject: Subject,
    items: Sequence[BestOfKItem],
    questions: Sequence[Question],
    outcomes: Sequence[RowOutcome],
    credits: Credits,
    weights: Weights,
    atol: float,
    seed: int,
) -> SubjectScores:
    chance = {}
    for name in credits.names():
        shares = {chance_credit(len(items[row].answers), items[row].num_correct) for row in credits.rows(name)}
        if name != TIES and len(shares) == 1:
            chance[name] = shares.pop()
    scores, draws = subset_scores(credits, chance=chance, seed=seed)
    values = {one.name: one.score.value for one in scores}
    ties = [
        ties_row(item.id, outcome.values, item.num_correct)
        for item, outcome in zip(items, outcomes, strict=True)
        if item.subset == TIES
    ]
    plain = [
        (item, outcome)
        for item, outcome in zip(items, outcomes, strict=True)
        if item.subset != TIES and outcome.complete and outcome.choice is None
    ]
    pairs = [
        (right, wrong, _unit(item))
        for item, outcome in plain
        for right in outcome.values[: item.num_correct]
        for wrong in outcome.values[item.num_correct :]
    ]
    equal = [
        float(outcome.values[: item.num_correct].max() == outcome.values[item.num_correct :].max())
        for item, outcome in plain
    ]
    modes = sorted(subject.modes)
    return SubjectScores(
        subject.name, subject.identity, " and ".join(modes), scores, totals(values, draws, weights),
        counted_problems(outcomes), _published(items, outcomes, subject, weights, atol),
        calibration_of([one[0] for one in pairs], [one[1] for one in pairs], [one[2] for one in pairs]),
        ties_score(ties) if ties else None, float(np.mean(equal)) if equal else float("nan"),
    )  # fmt: skip


def _published(
    items: Sequence[BestOfKItem], outcomes: Sequence[RowOutcome], subject: Subject, weights: Weights, atol: float
) -> dict[str, float] | None:
    """Scores by the published rule for judges: a rating that cannot be read is -1, a row without any judgement chance.

    None where every row was judged, and for subjects other than judges, for which nothing is published.
    """
    if not subject.modes & {"rate", "rank"} or all(outcome.complete for outcome in outcomes):
        return None
    filled = [
        replace(outcome, values=np.where(np.isnan(outcome.values), UNRATED, outcome.values), problems={})
        if not outcome.complete
        else outcome
        for outcome in outcomes
    ]
    # A row without any judgement is a tie of all its answers by this, and so earns what chance would.
    scores, draws = subset_scores(_credits(items, filled, atol))
    found = {one.name: one.score.value for one in scores}
    return found | {name: total.value for name, total in totals(found, draws, weights).items()}


def _notes(kept: Sequence[BestOfKItem], items: Sequence[BestOfKItem], credits: Credits) -> list[str]:
    names = credits.names()
    notes = [MANY_SUBSETS.replace("{count}", str(len(names)))] if len(names) > 1 else []
    missing = [name for name in REWARDBENCH_2_SUBSETS if name not in names]
    if missing:
        notes.append(f"Not the {TITLE} score: the rows lack {', '.join(missing)}.")
    own = [name for name in names if name not in REWARDBENCH_2_SUBSETS]
    if own and not missing:
        notes.append(f"Not counted in the {TITLE} score: {', '.join(own)}.")
    if len(kept) < len(items):
        notes.append(f"A sample of {len(kept)} of {len(items)} rows.")
    if TIES in names:
        notes.append("A perfect model scores 1.01 on Ties, as published; the value is not clipped.")
    return notes
