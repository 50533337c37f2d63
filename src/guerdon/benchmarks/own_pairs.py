"""A person's own preference pairs as a benchmark: pair accuracy by subset, against the truth where it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from guerdon.benchmarks.credits import Weights
from guerdon.benchmarks.graded import MANY_SUBSETS, BenchmarkResult, misjudged
from guerdon.benchmarks.pairs import Grade, grade
from guerdon.benchmarks.protocol import Question, RowOutcome
from guerdon.benchmarks.published_rows import sampled
from guerdon.benchmarks.rewardbench_1 import graded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, prompt_key
from guerdon.rewards.subject import Subject

__all__ = ["own_pairs", "pair_questions"]

TITLE = "Own pairs"
ALL = "all pairs"


def pair_questions(pairs: Sequence[Pair]) -> list[Question]:
    """Pairs as questions, the chosen answer first; the columns of a pair's row go with it.

    Ids are the column "id" where it names every row once, else the row's number from 0; the column "subset" groups,
    and rows without it are "other" where some have it.
    """
    absent = "other" if any(pair.row.get("subset") for pair in pairs) else ALL
    ids = [str(pair.row.get("id", "")) for pair in pairs]
    named = all(ids) and len(set(ids)) == len(ids)
    questions = []
    for number, pair in enumerate(pairs):
        columns = {name: value for name, value in pair.row.items() if name not in ("id", "subset")}
        if pair.images:
            columns["images"] = list(pair.images)
        subset = str(pair.row.get("subset") or absent)
        answers = (list(pair.chosen), list(pair.rejected))
        questions.append(Question(ids[number] if named else str(number), list(pair.prompt), answers, subset, columns))
    return questions


def own_pairs(
    subject: Subject,
    pairs: Sequence[Pair],
    *,
    against: Subject | None = None,
    out: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    data: str = "",
    progress: bool = True,
) -> BenchmarkResult:
    """Grade a subject, or two and their difference, by pairs; equal scores count half, intervals resample prompts.

    The total is over all pairs alike. limit: a sample of about so many, whole prompts, drawn by ``seed``. Beside the
    accuracy: how the score goes with the answers' length, and the accuracy against "truth" where the data know it
    (`benchmarks.pairs.grade`). Raises GuerdonError for no pairs.
    """
    if not pairs:
        raise GuerdonError(f"{data or 'the data'} hold no pairs")
    keys = {id(pair): prompt_key(pair) or f"row {row}" for row, pair in enumerate(pairs)}
    kept = sampled(pairs, limit, lambda pair: keys[id(pair)], seed=seed)
    questions = pair_questions(kept)
    shares = Counter(question.subset for question in questions)

    def weights(names: Collection[str]) -> Weights:
        return {ALL: {name: shares[name] / len(questions) for name in names}}

    subjects, paired, outcomes, seconds = graded_pairs(
        subject, questions, against=against, out=out, seed=seed, benchmark="pairs", weights=weights,
        groups=[keys[id(pair)] for pair in kept], tie=0.5, progress=progress,
    )  # fmt: skip
    found = _grade(kept, outcomes, seed)
    notes = [MANY_SUBSETS.replace("{count}", str(len(shares)))] if len(shares) > 1 else []
    if len(kept) < len(pairs):
        notes.append(f"A sample of {len(kept)} of {len(pairs)} pairs.")
    notes.append("Equal scores count half.")
    settings: dict[str, object] = {"seed": seed}
    if found is not None:
        settings["score and log length"] = f"{found.length:+.3f} ({found.length_partial:+.3f} at equal label)"
        if found.true_accuracy is not None:
            settings["accuracy against the truth"] = str(found.true_accuracy)
    return BenchmarkResult(
        TITLE, "", data, len(kept), 2 * len(kept), ALL, subjects, paired, seconds, settings,
        misjudged(questions, outcomes, [1] * len(kept)), notes,
    )  # fmt: skip


def _grade(pairs: Sequence[Pair], outcomes: Sequence[RowOutcome], seed: int) -> Grade | None:
    """What `grade` says of the pairs that were scored; None where there are none."""
    rows = [row for row, outcome in enumerate(outcomes) if outcome.complete and outcome.choice is None]
    if not rows:
        return None
    scores = np.array([outcomes[row].values for row in rows])
    return grade({"": (scores[:, 0], scores[:, 1])}, [pairs[row] for row in rows], seed=seed)[""]
