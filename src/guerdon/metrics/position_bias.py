"""Whether a judge that compares two answers goes by the place in which it is shown them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean, bootstrap_two_sample, group_index

__all__ = ["PositionBias", "position_bias", "swap_consistency"]


@dataclass(frozen=True)
class PositionBias:
    """Accuracy by the place of the right answer.

    accuracy:    of comparisons with the right answer in each place, unreadable ones counting as wrong.
    counts:      comparisons with the right answer there. unparsable: those whose word could not be read.
    chosen:      share of readable comparisons in which the judge named this place, right or wrong.
    gap:         accuracy of the first place less that of the second; 0 without a bias.
    """

    accuracy: dict[str, Interval]
    counts: dict[str, int]
    unparsable: dict[str, int]
    chosen: dict[str, float]
    gap: Interval


def position_bias(
    right: ArrayLike,
    place: Sequence[Hashable],
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PositionBias:
    """Accuracy of a pairwise judge by the place of the right answer.

    Args:
        right: [N], 1 where the judge chose the right answer, 0 where not, NaN where its word could not be read.
        place: [N], where the right answer stood: exactly two names, "A" and "B" say; sorted, the first comes first.
        groups: [N], prompts, resampled as a whole. resamples, seed: of the bootstrap.
    Raises:
        GuerdonError: shapes, another value, not exactly two places.
    Source: RewardMATH's pairwise judges (arXiv 2410.01729), whose right answers change places.
    """
    won, where = np.asarray(right, dtype=np.float64), [str(one) for one in place]
    if won.ndim != 1 or len(where) != won.size:
        raise GuerdonError(f"right and place must be the same [N]; got {list(won.shape)} and [{len(where)}]")
    if not np.isin(won[~np.isnan(won)], (0.0, 1.0)).all():
        raise GuerdonError("right must be 1, 0 or nan (unreadable) for every comparison")
    names = sorted(set(where))
    if len(names) != 2:
        raise GuerdonError(f"a right answer stands in one of two places; got {len(names)}: {', '.join(names)}")
    index = group_index(groups, won.size)
    here = {name: np.flatnonzero([one == name for one in where]) for name in names}
    lost_if_unread = np.nan_to_num(won, nan=0.0)
    columns = {name: lost_if_unread[rows] for name, rows in here.items()}
    read = ~np.isnan(won)
    # The judge named place A where A is right and it was right, or B is right and it was wrong.
    named_first = np.where(np.array(where) == names[0], won, 1 - won)[read]
    share = float(named_first.mean()) if named_first.size else math.nan
    first, second = (columns[name] for name in names)
    return PositionBias(
        accuracy={
            name: bootstrap_mean(columns[name], groups=index[rows], resamples=resamples, seed=seed)
            for name, rows in here.items()
        },
        counts={name: int(rows.size) for name, rows in here.items()},
        unparsable={name: int((~read[rows]).sum()) for name, rows in here.items()},
        chosen={names[0]: share, names[1]: 1 - share},
        gap=bootstrap_two_sample(
            lambda a, b: float(first[a].mean() - second[b].mean()),
            (first.size, second.size),
            groups=(index[here[names[0]]], index[here[names[1]]]),
            resamples=resamples,
            seed=seed,
        ),
    )


def swap_consistency(right: ArrayLike, right_swapped: ArrayLike) -> dict[str, float]:
    """What became of comparisons asked twice, the second time with the two answers exchanged.

    Args:
        right, right_swapped: [N], 1 where the judge chose the right answer, 0 where not, NaN where unreadable; in the
            first order the right answer stood where it did not in the second.
    Returns:
        Shares of the comparisons that were readable both times: ``consistent`` (the same answer chosen), ``right``
        (both times right); and ``measured``, the share of all that were readable. NaN without any.
    Raises:
        GuerdonError: shapes.
    """
    first, second = (np.asarray(given, dtype=np.float64) for given in (right, right_swapped))
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise GuerdonError(f"both orders need the same non-empty [N]; got {list(first.shape)} and {list(second.shape)}")
    read: NDArray[np.bool_] = ~np.isnan(first) & ~np.isnan(second)
    a, b = first[read], second[read]
    return {
        "consistent": float((a == b).mean()) if a.size else math.nan,
        "right": float(((a == 1) & (b == 1)).mean()) if a.size else math.nan,
        "measured": float(read.mean()),
    }
