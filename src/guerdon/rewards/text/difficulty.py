"""How much a rare or hard target counts: factors for the scaled nodes of `guerdon.rewards.text.hierarchical`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from guerdon.core.errors import GuerdonError
from guerdon.metrics.rouge_l import words

__all__ = ["ConstantDifficulty", "Difficulty", "FailureRate", "InverseFrequency", "TargetLength"]


class Difficulty(Protocol):
    """A factor of at least 0 for each wanted action, at most ``highest``."""

    highest: float

    def __call__(self, wanted: Mapping[str, Any]) -> float: ...


class ConstantDifficulty:
    """The same factor for all: Shop-R1's DARS, 1000 by default.

    In a group-relative advantage with unit deviation a factor of this size does not enlarge the update. It makes every
    group in which one scaled node differs forget all other components (their share of the deviation is 1/1000).
    """

    def __init__(self, factor: float = 1000.0) -> None:
        if not (factor >= 0 and math.isfinite(factor)):
            raise GuerdonError(f"a difficulty is a finite factor of at least 0, got {factor}")
        self.factor = self.highest = float(factor)

    def __call__(self, wanted: Mapping[str, Any]) -> float:
        return self.factor


class InverseFrequency:
    """base * N / (K n_k), at most ``cap``: rare kinds of action count more, the mean over N examples is ``base``.

    counts: how often each kind occurs in the data, all above 0; K kinds, n_k of kind k. field: the field of the action
    that names the kind. A kind that the counts do not know counts as a rarest one.
    """

    def __init__(self, counts: Mapping[str, int], *, field: str = "type", base: float = 1.0, cap: float = 1000) -> None:
        if not counts or min(counts.values()) < 1:
            raise GuerdonError(f"counts of kinds of action must be at least 1 each, got {dict(counts)}")
        if not (base > 0 and cap > 0):
            raise GuerdonError(f"base and cap of a difficulty must be above 0, got {base} and {cap}")
        total, kinds = sum(counts.values()), len(counts)
        self.field, self.base, self.cap = field, float(base), float(cap)
        self.factors = {kind: min(self.cap, base * total / (kinds * seen)) for kind, seen in counts.items()}
        self.highest = max(self.factors.values())

    @classmethod
    def of(cls, actions: Sequence[Mapping[str, Any]], *, field: str = "type", **settings: Any) -> InverseFrequency:
        """From the wanted actions of a data set."""
        counts: dict[str, int] = {}
        for action in actions:
            kind = str(action.get(field))
            counts[kind] = counts.get(kind, 0) + 1
        return cls(counts, field=field, **settings)

    def __call__(self, wanted: Mapping[str, Any]) -> float:
        return self.factors.get(str(wanted.get(self.field)), self.highest)


class FailureRate:
    """base * max(floor, 1 - running share of successes of the kind): what the policy cannot do yet counts more.

    momentum: weight of the past in the running share, which starts at 0 (all is hard). The reward tells it after each
    call, so that the scores of one call do not depend on their order; between calls the same answer may change worth.
    """

    def __init__(self, *, field: str = "type", base: float = 1.0, momentum: float = 0.99, floor: float = 0.05) -> None:
        if not (0 <= momentum < 1 and 0 <= floor <= 1 and base > 0):
            raise GuerdonError(
                "a failure rate needs momentum in [0, 1), floor in [0, 1] and base above 0, "
                f"got {momentum}, {floor} and {base}"
            )
        self.field, self.base, self.momentum, self.floor = field, float(base), float(momentum), float(floor)
        self.highest = self.base
        self._success: dict[str, float] = {}

    def __call__(self, wanted: Mapping[str, Any]) -> float:
        return self.base * max(self.floor, 1 - self._success.get(str(wanted.get(self.field)), 0.0))

    def observe(self, wanted: Sequence[Mapping[str, Any]], succeeded: Sequence[bool]) -> None:
        """Take in how one batch went."""
        for action, success in zip(wanted, succeeded, strict=True):
            kind = str(action.get(self.field))
            self._success[kind] = self.momentum * self._success.get(kind, 0.0) + (1 - self.momentum) * float(success)

    def state_dict(self) -> dict[str, float]:
        """The running shares, for a checkpoint."""
        return dict(self._success)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint."""
        self._success = {str(kind): float(share) for kind, share in state.items()}


class TargetLength:
    """base * min(cap, words of the wanted field / typical): long texts count more.

    field: of the wanted action. typical: the number of words that counts ``base``. A target without the field: 1 word.
    """

    def __init__(self, *, field: str = "text", base: float = 1.0, typical: float = 4.0, cap: float = 4.0) -> None:
        if not (base > 0 and typical > 0 and cap > 0):
            raise GuerdonError(f"base, typical and cap must be above 0, got {base}, {typical} and {cap}")
        self.field, self.base, self.typical, self.cap = field, float(base), float(typical), float(cap)
        self.highest = self.base * self.cap

    def __call__(self, wanted: Mapping[str, Any]) -> float:
        count = max(1, len(words(str(wanted.get(self.field) or ""))))
        return self.base * min(self.cap, count / self.typical)
