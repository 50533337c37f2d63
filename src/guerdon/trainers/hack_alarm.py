"""Is a proxy being hacked? It rises while the judge that is no part of it falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError

__all__ = ["HackAlarm", "hack_alarm"]

FALL, RISE = 3.0, 1.645


@dataclass(frozen=True)
class HackAlarm:
    """What was found at the last look.

    best: the look at which the judge stood highest. fallen, risen: how far the judge has fallen and the proxy has risen
    since, means over problems.
    """

    best: int
    fallen: float
    risen: float


def hack_alarm(
    proxy: ArrayLike,
    judge: ArrayLike,
    *,
    least: float = 0.02,
    patience: int = 2,
    fall: float = FALL,
    rise: float = RISE,
) -> HackAlarm | None:
    """`HackAlarm` where the judge has fallen since its best look while the proxy has risen, else None.

    Args:
        proxy, judge: [L, N] means over the samples of N problems, the same ones, at each of L looks; nan where there is
            none, which leaves the problem out of that comparison.
        least: a smaller fall is none, in the judge's unit.
        patience: looks in a row, the last one among them, at which both must be so.
        fall, rise: standard errors (of the paired differences over problems) that the changes must exceed. The best
            look is the largest of several, so that its lead is partly luck: hence three and not two.

    No published rule: `scripts/measure_alarm.py` measures how often it rings in clean runs, and how soon in hacked
    ones. Raises GuerdonError for shapes, or a patience below 1.
    """
    proxies, judged = np.asarray(proxy, np.float64), np.asarray(judge, np.float64)
    if proxies.ndim != 2 or proxies.shape != judged.shape or patience < 1:
        raise GuerdonError(
            f"an alarm needs proxy and judge of one shape [looks, problems] and patience >= 1; got "
            f"{list(proxies.shape)}, {list(judged.shape)} and {patience}"
        )
    if len(judged) <= patience:
        return None
    means = np.array([_mean(row) for row in judged])
    if np.isnan(means).all():
        return None
    best = int(np.nanargmax(means))
    if len(judged) - 1 - best < patience:
        return None
    fallen = risen = float("nan")
    for look in range(len(judged) - patience, len(judged)):
        fallen, fallen_error = _difference(judged[best], judged[look])
        risen, risen_error = _difference(proxies[look], proxies[best])
        if not (fallen > max(least, fall * fallen_error) and risen > rise * risen_error and risen > 0):
            return None
    return HackAlarm(best, fallen, risen)


def _mean(row: NDArray[np.float64]) -> float:
    known = row[~np.isnan(row)]
    return float(known.mean()) if known.size else float("nan")


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of first - second over the problems that have both, and its standard error."""
    gaps = first - second
    gaps = gaps[~np.isnan(gaps)]
    if gaps.size < 2:
        return float("nan"), float("nan")
    return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(gaps.size))
