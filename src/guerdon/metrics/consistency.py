"""Does a reward tell similar instructions apart, each with its own answer? Consistency on contrast pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean

__all__ = ["Consistency", "consistency", "consistency_by_task"]


@dataclass(frozen=True)
class Consistency:
    """Shares in [0, 1] of ``rows`` contrast pairs, with bootstrap intervals.

    c_res, c_ins:          response and instruction consistency; a judge that tosses coins has 1/2. A tie is not won.
    joint:                 all four inequalities hold; for independent noise 1/6.
    ties_res, ties_ins:    shares of the comparisons behind c_res and c_ins that are ties.
    """

    c_res: Interval
    c_ins: Interval
    joint: Interval
    ties_res: float
    ties_ins: float
    rows: int


def consistency(
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    symmetric: bool = False,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Consistency:
    """C_res = mean 1[s00 > s01], C_ins = mean 1[s00 > s10], joint = mean 1[min(s00, s11) > max(s01, s10)].

    Args:
        scores: [P, 2, 2], R(instruction i, answer j) of P pairs of similar instructions; the diagonal is right.
        groups: [P], what pairs are not independent of each other, such as the first instruction.
        symmetric: count C_res and C_ins from the second instruction's side too, 1[s11 > s10] and 1[s11 > s01]; for
            pairs that are stored once. The published rows are ordered: one side each.
        resamples, level, seed: of the bootstrap over groups.
    Returns:
        `Consistency`. Ties lose under the strict > of the paper and are told apart: a constant judge has
        C_res = C_ins = 0 and all ties, one that does not read the instruction C_ins = 0 and, from both sides,
        C_res = 1/2 less half its ties.
    Raises:
        GuerdonError: not [P, 2, 2] with P > 0, or a score that is nan.
    Source: Contrast Instructions (arXiv 2309.16155), section 2; its fusion script counts ties as won, the others do
    not. Joint and symmetric use are ours.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 3 or table.shape[1:] != (2, 2) or not len(table):
        raise GuerdonError(f"consistency needs scores [P, 2, 2] of at least one pair; got shape {list(table.shape)}")
    if np.isnan(table).any():
        raise GuerdonError(f"contrast pair {int(np.isnan(table).any((1, 2)).argmax())} has a score that is nan")
    own = np.stack([table[:, 0, 0], table[:, 1, 1]], axis=1)
    other_answer = np.stack([table[:, 0, 1], table[:, 1, 0]], axis=1)
    other_instruction = other_answer[:, ::-1]
    sides = slice(0, 2 if symmetric else 1)

    def share(rows: np.ndarray) -> Interval:
        return bootstrap_mean(rows.astype(float), groups=groups, resamples=resamples, level=level, seed=seed)

    return Consistency(
        c_res=share((own > other_answer)[:, sides].mean(1)),
        c_ins=share((own > other_instruction)[:, sides].mean(1)),
        joint=share(own.min(1) > other_answer.max(1)),
        ties_res=float((own == other_answer)[:, sides].mean()),
        ties_ins=float((own == other_instruction)[:, sides].mean()),
        rows=len(table),
    )


def consistency_by_task(
    scores: ArrayLike, tasks: Sequence[str], groups: ArrayLike | None = None, *, symmetric: bool = False, seed: int = 0
) -> dict[str, Consistency]:
    """`consistency` of each task's rows; ``tasks`` names one a row. Raises GuerdonError for another number of names."""
    table, names = np.asarray(scores, dtype=np.float64), np.asarray(tasks)
    if names.shape != (len(table),):
        raise GuerdonError(f"{len(table)} contrast pairs need as many task names; got {len(names)}")
    labels = None if groups is None else np.asarray(groups)
    return {
        str(name): consistency(
            table[names == name], None if labels is None else labels[names == name], symmetric=symmetric, seed=seed
        )
        for name in dict.fromkeys(names.tolist())
    }
