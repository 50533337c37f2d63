"""Every answer beside every row: what a reward pays for each, and what a policy earns that always says the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed, Scores

__all__ = ["AnswerTable", "ConstantAnswer", "answer_table", "constant_answers"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AnswerTable:
    """values [rows, answers], NaN where there is no score; parts: the same for each part of the reward, by name."""

    answers: tuple[str, ...]
    values: Floats
    parts: dict[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.values.shape[0])


@dataclass(frozen=True)
class ConstantAnswer:
    """What one answer to everything earns: ``mean`` over the rows, ``by_label`` over the rows of each label."""

    answer: str
    mean: float
    by_label: Mapping[str, float]

    def at(self, prior: Mapping[str, float]) -> float:
        """What it earns where the labels have these shares (summing to 1)."""
        return float(sum(share * self.by_label[label] for label, share in prior.items() if share > 0))


def answer_table(reward: Any, answers: Sequence[str], *, prompts: Sequence[Any], **columns: Any) -> AnswerTable:
    """Score each of C answers for each of R rows; one call, each row's answers together as a group.

    prompts: R. columns: those of the reward, R entries each; anything else is passed on as it is.
    Raises GuerdonError without rows or answers.
    """
    rows, count = len(prompts), len(answers)
    if not rows or not count:
        raise GuerdonError(f"a table of answers needs rows and answers, got {rows} and {count}")
    spread = {
        key: [one for one in values for _ in range(count)]
        if isinstance(values, list | tuple) and len(values) == rows
        else values
        for key, values in columns.items()
    }
    asked = [prompt for prompt in prompts for _ in range(count)]
    groups = [row for row in range(rows) for _ in range(count)]
    said = list(answers) * rows
    scored = getattr(reward, "scores", None)
    if callable(scored):
        found = scored(asked, said, group_ids=groups, **spread)
    else:
        outcomes: list[float | None | Failed] = list(reward(prompts=asked, completions=said, **spread))
        found = Scores.of(outcomes)
    parts = {name: part.reshape(rows, count) for name, part in found.parts.items()}
    return AnswerTable(tuple(answers), found.values.reshape(rows, count), parts)


def constant_answers(table: AnswerTable, labels: Sequence[str] | None = None) -> list[ConstantAnswer]:
    """What always giving each answer earns, best first: the baseline that every trained policy has to beat.

    labels:  the class of each row, for the means by class. Answers without any score are left out.
    A policy that collapses does so onto one of these. On Shop-R1's data (arXiv 2507.17842) always saying "terminate" is
    right in 27.2% of the rows, where the paper's headline is 27.7%.
    """
    if labels is not None and len(labels) != len(table):
        raise GuerdonError(f"there are {len(labels)} labels for {len(table)} rows")
    given = [] if labels is None else list(labels)
    kinds = sorted(set(given))
    found = []
    for place, answer in enumerate(table.answers):
        column = table.values[:, place]
        if not np.isfinite(column).any():
            continue
        by_label = {kind: _mean(column[[one == kind for one in given]]) for kind in kinds}
        found.append(ConstantAnswer(answer, _mean(column), by_label))
    return sorted(found, key=lambda one: -one.mean)


def _mean(values: Floats) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")
