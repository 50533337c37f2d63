"""What a subject said to rows, one value each or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed

__all__ = ["DOES_NOT_APPLY", "Outcomes", "problem_kind", "problem_of"]

DOES_NOT_APPLY = "does not apply"


def problem_kind(problem: str) -> str:
    """The kind of a problem: "unparsable" of "unparsable: no rating in the reply"."""
    return problem.partition(":")[0].strip() or "failed"


def problem_of(failure: Failed) -> str:
    """A failure in the words of `Outcomes`: "unparsable" for replies that cannot be read, "failed" for all else."""
    return f"unparsable: {failure.cause}" if failure.kind == "unparseable" else f"failed: {failure.cause}"


@dataclass(frozen=True)
class Outcomes:
    """What a subject said to N rows.

    values:    float64 [N], NaN exactly where there is none.
    problems:  row -> why there is none: "unparsable: ...", "failed: ...", or "does not apply".
    details:   row -> what else is worth keeping, such as a judge's reply.

    A value that is not finite and comes without a problem is given one: it is never counted as a number.
    """

    values: NDArray[np.float64]
    problems: Mapping[int, str] = field(default_factory=dict)
    details: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64, copy=True)
        if values.ndim != 1:
            raise GuerdonError(f"outcomes are one value a row, got an array of shape {list(values.shape)}")
        problems = {int(row): str(problem) for row, problem in self.problems.items()}
        for row in problems:
            if not 0 <= row < len(values):
                raise GuerdonError(f"outcomes of {len(values)} rows name a problem of row {row}")
        for row in map(int, np.flatnonzero(~np.isfinite(values))):
            problems.setdefault(row, f"failed: the score is {values[row]:g}")
        values[list(problems)] = np.nan
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "problems", problems)

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @classmethod
    def of(cls, entries: Iterable[Any], details: Mapping[int, Mapping[str, Any]] | None = None) -> Outcomes:
        """From one entry a row: a number, None (does not apply) or Failed."""
        listed = list(entries)
        problems: dict[int, str] = {}
        for row, entry in enumerate(listed):
            if entry is None:
                problems[row] = DOES_NOT_APPLY
            elif isinstance(entry, Failed):
                problems[row] = problem_of(entry)
        values = [np.nan if row in problems else float(entry) for row, entry in enumerate(listed)]
        return cls(np.array(values, dtype=np.float64), problems, details or {})

    def count(self, kind: str) -> int:
        """How many rows have a problem of this kind."""
        return self.counts().get(kind, 0)

    def counts(self) -> dict[str, int]:
        """Rows without a value, by kind of problem."""
        return dict(Counter(problem_kind(problem) for problem in self.problems.values()))
