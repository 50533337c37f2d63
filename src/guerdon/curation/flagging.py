"""Cleaning training data with a reward: the rows that score lowest are set aside, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError
from guerdon.core.reward import is_groupwise
from guerdon.core.scorer import Scorer
from guerdon.curation.sanity import sanity_fault
from guerdon.rewards.model import ModelReward


@dataclass(frozen=True)
class Flagged:
    """``scores`` [N] (nan where there is none), ``reasons`` row -> why it is flagged, and the ``threshold`` below or at
    which a score is."""

    scores: NDArray[np.float64]
    reasons: dict[int, list[str]]
    threshold: float

    @property
    def rows(self) -> list[int]:
        """The rows flagged for their score, an answer that is broken, or because they could not be scored."""
        return sorted(self.reasons)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """bool [N], False where flagged."""
        mask = np.ones(len(self.scores), dtype=bool)
        mask[self.rows] = False
        return mask


def score_dataset(
    rm: Any, rows: Sequence[Mapping[str, Any]], *, q: float = 0.1, out: str | Path | None = None
) -> Flagged:
    """Score every row and flag the lowest share ``q``, broken answers, and what cannot be scored.

    rm:    a reward of TRL's contract, or a reward model (`ScalarRewardModel`, `EnsembleReward`, ...). Its scores are
           compared across prompts, for which it was not trained: read what is flagged before it is thrown away.
    rows:  each with "prompt" and "completion", as text or messages; other columns are passed to the reward.
    q:     in (0, 1). No more than q N rows are flagged for their score: where equal scores straddle the limit, none of
           them is (a constant reward flags nothing).
    out:   a file for the flagged rows as JSON lines, with "row", "score" and "reasons" beside their columns.

    Source: IXC-2.5-Reward (arXiv 2501.12368), data cleaning; its evidence is examples. Raises GuerdonError for q, no
    rows, a missing column, or a groupwise reward.
    """
    if not 0 < q < 1:
        raise GuerdonError(f"q must lie in (0, 1), got {q}")
    if not rows:
        raise GuerdonError("there are no rows to score")
    for number, row in enumerate(rows):
        for column in ("prompt", "completion"):
            if column not in row:
                raise GuerdonError(f"row {number} has no column {column!r}; columns: {', '.join(map(str, row))}")
    reward = ModelReward(rm) if hasattr(rm, "score_encoded") else rm
    if is_groupwise(reward):
        raise GuerdonError("rows of a data set cannot be scored by a groupwise reward")
    prompts, completions = ([row[column] for row in rows] for column in ("prompt", "completion"))
    names = set.intersection(*(set(row) for row in rows)) - {"prompt", "completion"}
    # Every row is to be looked at, whatever share of them fails.
    scorer = Scorer(reward, on_failure="drop_sample", max_failure_rate=1.0)
    found = scorer.score(prompts, completions, **{name: [row[name] for row in rows] for name in sorted(names)})
    threshold = _threshold(found.values[found.valid], q)
    reasons: dict[int, list[str]] = {}
    for number, completion in enumerate(completions):
        why = []
        if not found.valid[number]:
            failed = found.failures.get(number)
            why.append(f"not scored: {failed.cause if failed is not None else 'the reward does not apply'}")
        elif found.values[number] <= threshold:
            why.append(f"score {found.values[number]:.4g} among the lowest {q:.0%} (at most {threshold:.4g})")
        fault = sanity_fault(completion_text(completion))
        why += [f"the completion {fault}"] if fault else []
        if why:
            reasons[number] = why
    flagged = Flagged(found.values, reasons, threshold)
    if out is not None:
        _write(Path(out), rows, flagged)
    return flagged


def _threshold(scores: NDArray[np.float64], q: float) -> float:
    """The highest score at or below which no more than q N scores lie; -inf where there is none."""
    count = int(q * len(scores) + 1e-9)
    if count == 0:
        return -np.inf
    ordered = np.sort(scores)
    if count < len(scores) and ordered[count] == ordered[count - 1]:
        below = ordered[ordered < ordered[count]]
        return float(below[-1]) if len(below) else -np.inf
    return float(ordered[count - 1])


def _write(path: Path, rows: Sequence[Mapping[str, Any]], flagged: Flagged) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number in flagged.rows:
            score = flagged.scores[number]
            told = {"row": number, "score": None if np.isnan(score) else float(score)}
            line = {**rows[number], **told, "reasons": flagged.reasons[number]}
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
