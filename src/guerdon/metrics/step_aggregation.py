"""From the scores of a solution's steps to one score: the eight reducers in use for process reward models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from guerdon.core.errors import GuerdonError, unknown

__all__ = ["REDUCERS", "Reducer", "StepAggregator", "aggregate_steps"]

Reducer = Literal["min", "max", "prod", "geometric_mean", "mean", "mean_logit", "mean_odd", "last"]
REDUCERS: tuple[Reducer, ...] = get_args(Reducer)

Steps = NDArray[np.float64]


def _log_mean(steps: Steps) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(steps).mean())


_REDUCE: dict[str, Callable[[Steps, float], float]] = {
    "min": lambda p, _: float(p.min()),
    "max": lambda p, _: float(p.max()),
    "prod": lambda p, _: float(np.exp(len(p) * _log_mean(p))),
    "geometric_mean": lambda p, _: float(np.exp(_log_mean(p))),
    "mean": lambda p, _: float(p.mean()),
    "mean_logit": lambda p, eps: float(expit(logit(p.clip(eps, 1 - eps)).mean())),
    "mean_odd": lambda p, eps: float(np.exp(logit(p.clip(eps, 1 - eps))).mean()),
    "last": lambda p, _: float(p[-1]),
}


def aggregate_steps(steps: ArrayLike, how: Reducer = "min", *, eps: float = 1e-6, log: bool = False) -> float:
    """One score of a solution from the scores p_1..p_L of its steps.

    min, max, mean, last as they say; prod = p_1 ... p_L; geometric_mean = prod^(1/L);
    mean_logit = sigmoid(mean log(p / (1 - p))); mean_odd = mean p / (1 - p), the one that is not in [0, 1].

    Args:
        steps: [L] in [0, 1]. NaN, a step without a score, gives NaN; so does L = 0.
        how: one of ``REDUCERS``. Choosing it after the test results are known decides who wins: fix it before.
        eps: for mean_logit and mean_odd p is held in [eps, 1 - eps], or a saturated step would make them infinite.
            UNVERIFIED: the released code does not clip.
        log: the logarithm of the score, which orders solutions alike; by it the product of thousands of steps is still
            told from another, where the product itself is 0. -inf for 0.
    Returns:
        float.
    Raises:
        GuerdonError: a step outside [0, 1], an unknown reducer, an eps outside (0, 1/2).
    Source: RewardMATH (arXiv 2410.01729), its evaluation of process reward models.
    """
    if how not in _REDUCE:
        raise unknown("step reducer", how, REDUCERS)
    if not 0 < eps < 0.5:
        raise GuerdonError(f"eps must lie in (0, 0.5), got {eps}")
    p = np.asarray(steps, dtype=np.float64)
    if p.ndim != 1:
        raise GuerdonError(f"steps of one solution must be [L], got {list(p.shape)}")
    if ((p < 0) | (p > 1)).any():
        raise GuerdonError(f"step scores must lie in [0, 1]; got {p[(p < 0) | (p > 1)][0]:g}")
    if not p.size or np.isnan(p).any():
        return float("nan")
    if log and how == "prod":
        return len(p) * _log_mean(p)
    value = _REDUCE[how](p, eps)
    with np.errstate(divide="ignore"):
        return float(np.log(value)) if log else value


class StepAggregator:
    """`aggregate_steps` with its choices made: ``StepAggregator("prod")(solutions) -> float64 [N]``.

    empty:  the score of a solution without steps; NaN (no score) by default. RewardMATH's best-of-n gives 0.5.
    """

    def __init__(
        self, how: Reducer = "min", *, eps: float = 1e-6, log: bool = False, empty: float = float("nan")
    ) -> None:
        aggregate_steps([0.5], how, eps=eps)  # a wrong name is said here, not after a model has run
        self.how, self.eps, self.log, self.empty = how, eps, log, float(empty)

    def __call__(self, solutions: Sequence[ArrayLike]) -> NDArray[np.float64]:
        """Scores [N] of N solutions, each the scores of its steps."""
        return np.array(
            [
                aggregate_steps(steps, self.how, eps=self.eps, log=self.log) if np.size(steps) else self.empty  # type: ignore[arg-type]
                for steps in solutions
            ],
            dtype=np.float64,
        )
