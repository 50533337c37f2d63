"""A reward for each kind of task: rules where an answer can be checked, models where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.outcome import Scores
from guerdon.core.reward import Reward
from guerdon.rewards.composite import UNBOUNDED, Combined, Composite, Floats, bounds_of, broken, numbers

__all__ = ["Calibrator", "Quantiles", "RewardRouter", "logistic"]

Calibrator = Callable[[Floats], Floats]
"""Scores [n] of one reward -> numbers [n] in [0, 1] that may stand beside a rule's; it grows with the score. The
``predict`` of a fitted calibrator of ``metrics/score_calibration.py`` is one."""
OTHERWISE = "otherwise"


def logistic(scale: float = 1.0, centre: float = 0.0) -> Calibrator:
    """1 / (1 + exp(-(score - centre) / scale)). Raises GuerdonError unless ``scale`` is above 0."""
    if not scale > 0:
        raise GuerdonError(f"the scale of a logistic calibrator is above 0, got {scale}")
    return lambda scores: expit((scores - centre) / scale)


class Quantiles:
    """The share of ``reference`` scores (of answers seen before) that lie below a score, ties counted half."""

    def __init__(self, reference: Sequence[float]) -> None:
        self.reference = np.sort(np.asarray(reference, np.float64))
        if not self.reference.size or not np.isfinite(self.reference).all():
            raise GuerdonError("quantiles need at least one reference score, all of them finite")

    def __call__(self, scores: Floats) -> Floats:
        """[n] in [0, 1]."""
        below, above = (np.searchsorted(self.reference, scores, side=side) for side in ("left", "right"))  # type: ignore[call-overload]
        return np.asarray((below + above) / (2 * self.reference.size), np.float64)


class RewardRouter(Composite):
    """The reward that belongs to a row's task: ``routes[task_type]``.

    routes:       task type -> reward; each sees its own rows only.
    key:          the column that names the task type. It is a property of the prompt and never of the response.
    otherwise:    the reward of other task types; None: they are an error.
    calibrators:  task type -> `Calibrator`, so that a reward model's scores lie on a rule's scale; a reward without a
                  range and without a calibrator is refused, since the widest scale would rule the batch.
    mixed_scales: allow it all the same, where the scales are known to meet.

    The parts are named by task type, and a row has a number only in its own: that tells where it came from. Raises
    GuerdonError for a missing column, an unknown task type, or a calibrator that leaves [0, 1].
    Source: HARMO (arXiv 2510.05283), eq. 1. How prompts are labelled and how scales are matched is not published
    (UNVERIFIED).
    """

    def __init__(
        self,
        routes: Mapping[str, Reward],
        *,
        key: str = "task_type",
        otherwise: Reward | None = None,
        calibrators: Mapping[str, Calibrator] | None = None,
        mixed_scales: bool = False,
        name: str = "router",
    ) -> None:
        parts = {**routes, **({OTHERWISE: otherwise} if otherwise is not None else {})}
        if not parts:
            raise GuerdonError(f"router '{name}' has no routes")
        self.key, self.calibrators = key, dict(calibrators or {})
        for place in self.calibrators:
            if place not in parts:
                raise unknown("route of a calibrator", place, parts)
        bounds = {}
        for place, reward in parts.items():
            bounds[place] = (0.0, 1.0) if place in self.calibrators else bounds_of(reward)
            if bounds[place] == UNBOUNDED and len(parts) > 1 and not mixed_scales:
                raise GuerdonError(
                    f"router '{name}': the reward of {place!r} declares no range; give it a calibrator, so that its "
                    "scores may stand beside the others'"
                )
        lows, highs = zip(*bounds.values(), strict=True)
        settings = {"key": key, "calibrated": sorted(self.calibrators)}
        super().__init__(name, parts, settings, bounds=(min(lows), max(highs)))

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        kinds = columns.get(self.key)
        if kinds is None or isinstance(kinds, str) or len(kinds) != len(prompts):
            raise GuerdonError(f"router '{self.__name__}' needs the column {self.key!r}, one entry a completion")
        places = [kind if kind in self.parts else OTHERWISE for kind in kinds]
        if OTHERWISE in places and OTHERWISE not in self.parts:
            stranger = next(kind for kind, place in zip(kinds, places) if place == OTHERWISE)
            raise unknown("task type", str(stranger), self.parts)
        at = np.array(places)
        return {
            place: self._scorers.score_some(place, prompts, completions, columns, np.flatnonzero(at == place))
            for place in self.parts
        }

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        values, valid = np.zeros(len(prompts)), np.zeros(len(prompts), dtype=bool)
        failed = np.zeros(len(prompts), dtype=bool)
        for place, part in scored.items():
            said = numbers(part)
            if place in self.calibrators and part.valid.any():
                said = said.copy()
                said[part.valid] = self.calibrators[place](said[part.valid])
                if not ((said[part.valid] >= 0) & (said[part.valid] <= 1)).all():
                    raise GuerdonError(f"router '{self.__name__}': the calibrator of {place!r} leaves [0, 1]")
            values = np.where(part.valid, said, values)
            valid |= part.valid
            failed |= broken(part)
        return Combined(values, valid, failed)
