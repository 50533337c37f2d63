"""What scoring a batch gives each row: a score, "does not apply", or a typed failure; a failure is never a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError


@dataclass(frozen=True)
class Failed:
    """A reward could not score this row.

    ``kind`` is one of "exception", "deadline", "crash", "not_finite", "out_of_range", "wrong_type", or a reward's own
    word ("unparseable", "unavailable"); ``cause`` is one sentence for people.
    """

    cause: str
    kind: str = "exception"

    def __float__(self) -> float:
        raise TypeError(f"a failed score is not a number: {self.kind}: {self.cause}")

    def __bool__(self) -> bool:
        raise TypeError("a failed score has no truth value; test isinstance(x, Failed)")


@dataclass
class Scores:
    """Scores of ``n`` completions with their validity.

    values:    float64 [n], nan where ``valid`` is False.
    valid:     bool [n]; False where the reward does not apply, failed, or the row was dropped with its group.
    failures:  row -> Failed, for every row that failed (also those that a numeric fallback made valid again).
    parts:     name -> float64 [n], the components of a composite reward, nan where a component has no score.
    identity:  name@version#hash of the reward that gave them.
    dropped:   bool [n]; True where a score was taken away because another row of the same group failed.
    """

    values: NDArray[np.float64]
    valid: NDArray[np.bool_]
    failures: dict[int, Failed] = field(default_factory=dict)
    parts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    identity: str = ""
    dropped: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        self.values = np.array(self.values, dtype=np.float64, copy=True)
        self.valid = np.array(self.valid, dtype=bool, copy=True)
        if self.values.ndim != 1 or self.values.shape != self.valid.shape:
            raise GuerdonError(
                f"scores of {self.identity or 'a reward'} need values and valid of one shape [n], "
                f"got {self.values.shape} and {self.valid.shape}"
            )
        self.dropped = np.zeros(len(self), dtype=bool) if len(self.dropped) == 0 else np.asarray(self.dropped, bool)
        self.values[~self.valid] = np.nan
        bad = np.flatnonzero(self.valid & ~np.isfinite(self.values))
        if len(bad):
            raise GuerdonError(f"scores of {self.identity or 'a reward'}: row {bad[0]} is valid but not finite")
        for row in self.failures:
            if not 0 <= row < len(self):
                raise GuerdonError(f"scores of {self.identity or 'a reward'}: failure at row {row} of {len(self)}")
        for name, part in self.parts.items():
            array = np.array(part, dtype=np.float64, copy=True)
            if array.shape != self.values.shape:
                raise GuerdonError(f"part {name!r} of {self.identity} has shape {array.shape}, not [{len(self)}]")
            self.parts[name] = array

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @classmethod
    def of(
        cls,
        outcomes: Sequence[float | None | Failed],
        *,
        identity: str = "",
        parts: Mapping[str, Any] | None = None,
    ) -> Scores:
        """Scores from one outcome a row: a finite number, None (does not apply) or Failed."""
        values = np.full(len(outcomes), np.nan)
        valid = np.zeros(len(outcomes), dtype=bool)
        failures: dict[int, Failed] = {}
        for row, outcome in enumerate(outcomes):
            if isinstance(outcome, Failed):
                failures[row] = outcome
            elif outcome is not None:
                values[row], valid[row] = float(outcome), True
        return cls(values, valid, failures, dict(parts or {}), identity)

    def as_list(self) -> list[float | None]:
        """The values, None where a row has no valid score: the shape that TRL expects."""
        return [float(value) if ok else None for value, ok in zip(self.values, self.valid, strict=True)]

    def outcomes(self) -> list[float | None | Failed]:
        """One outcome a row; a failure stays a failure even where a fallback gave it a value."""
        return [self.failures.get(row, value) for row, value in enumerate(self.as_list())]

    def counts(self) -> dict[str, int]:
        """How many rows were scored, do not apply, failed, or were dropped with their group; they add up to n."""
        failed = np.zeros(len(self), dtype=bool)
        failed[list(self.failures)] = True
        scored = self.valid & ~failed
        dropped = self.dropped & ~failed
        absent = len(self) - int(scored.sum()) - int(failed.sum()) - int(dropped.sum())
        return {
            "scored": int(scored.sum()),
            "not_applicable": absent,
            "failed": int(failed.sum()),
            "dropped": int(dropped.sum()),
        }
