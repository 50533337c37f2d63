"""Whether a reward model tells which of two similar instructions an answer belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.metrics.intervals import Interval, bootstrap_mean

__all__ = ["Consistency", "consistency", "consistent"]


@dataclass(frozen=True)
class Consistency:
    """Shares in [0, 1] with their intervals; a tie is never consistent.

    c_res:     own answer above the other's, for one instruction. c_ins: own instruction above the other, for one
               answer. Chance is 0.5 for both.
    joint:     own above crossed in all four comparisons; 1/6 by chance, since two of four scores must be the largest.
    res_ties, ins_ties:  shares of equal scores among the comparisons behind c_res and c_ins.
    rows:      how many quadruples. per_task: the same for the rows of each task, where tasks are given.
    """

    c_res: Interval
    c_ins: Interval
    joint: Interval
    res_ties: float
    ins_ties: float
    rows: int
    per_task: dict[str, Consistency] = field(default_factory=dict)


def consistent(scores: ArrayLike, *, symmetric: bool = False) -> dict[str, NDArray[np.float64]]:
    """ "c_res", "c_ins", "joint", "res_ties" and "ins_ties" of each quadruple, [P] in [0, 1].

    scores:     [P, 2, 2], R(instruction i, answer j); own answers on the diagonal.
    symmetric:  the mean over both instructions' sides instead of the first's. "joint" has both in any case.

    Source: Contrast Instructions (arXiv 2309.16155), strict inequalities; symmetric and joint are ours. Raises
    ValueError for another shape, no quadruple, or a nan.
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 3 or s.shape[1:] != (2, 2) or not len(s) or np.isnan(s).any():
        raise ValueError(f"scores must be [P, 2, 2] with P >= 1 and without nan, got {list(s.shape)}")
    own = np.stack([s[:, 0, 0], s[:, 1, 1]])
    answers, instructions = np.stack([s[:, 0, 1], s[:, 1, 0]]), np.stack([s[:, 1, 0], s[:, 0, 1]])
    sides = 2 if symmetric else 1
    return {
        "c_res": (own > answers)[:sides].mean(0),
        "c_ins": (own > instructions)[:sides].mean(0),
        "joint": (own.min(0) > answers.max(0)).astype(np.float64),
        "res_ties": (own == answers)[:sides].mean(0),
        "ins_ties": (own == instructions)[:sides].mean(0),
    }


def consistency(
    scores: ArrayLike,
    *,
    symmetric: bool = False,
    tasks: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Consistency:
    """`Consistency` of a judge's scores [P, 2, 2]; see `consistent`, whose means these are.

    tasks:   a name a row. groups: [P]; intervals resample whole groups: rows that share an instruction, or the two
             orders of one pair. By default every row is a group.

    Raises ValueError as `consistent`, and for tasks that do not fit.
    """
    found = consistent(scores, symmetric=symmetric)
    count = len(found["joint"])
    if tasks is not None and len(tasks) != count:
        raise ValueError(f"{count} quadruples need as many tasks, got {len(tasks)}")
    names = np.arange(count) if groups is None else np.asarray(groups)

    def of(rows: NDArray[np.int64]) -> Consistency:
        shares: dict[str, Any] = {
            name: bootstrap_mean(found[name][rows], groups=names[rows], level=level, seed=seed)
            for name in ("c_res", "c_ins", "joint")
        }
        ties: dict[str, Any] = {name: float(found[name][rows].mean()) for name in ("res_ties", "ins_ties")}
        return Consistency(**shares, **ties, rows=len(rows))

    whole = of(np.arange(count))
    for task in dict.fromkeys(tasks or ()):
        whole.per_task[task] = of(np.flatnonzero(np.asarray(tasks) == task))
    return whole
