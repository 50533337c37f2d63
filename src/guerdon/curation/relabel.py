"""What to do with labels that an ensemble does not believe: turn them round, soften them, or set a margin.

Source: Secrets of RLHF II (arXiv 2401.06080), sections 2.4 and 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Pair

Strategy = Literal["none", "flip", "soft", "margin", "flip+margin", "soft+margin"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
FLIPPED = "flipped"
"""Column that says whether a pair's label is the other way round than in its source."""


def relabel(
    pairs: Sequence[Pair],
    mean: ArrayLike,
    *,
    strategy: Strategy,
    quantile: float | None = None,
    threshold: float | None = None,
    alpha: float = 0.2,
) -> list[Pair]:
    """The pairs, in their order, with labels, margins and smoothing made from their strength.

    ============  ==================================================  =============================
    strategy      pairs that it picks if neither limit is given       margin, of all pairs
    ============  ==================================================  =============================
    none          -                                                   as it was
    flip          the weakest tenth, chosen and rejected swapped      as it was; -margin if flipped
    soft          all, label smoothing ``alpha``                      as it was
    margin        -                                                   mu
    flip+margin   as flip                                             mu; -mu if flipped
    soft+margin   those with mu < 0, label smoothing ``alpha``        mu
    ============  ==================================================  =============================

    Args:
        mean: mu [N], the mean strength of the pairs as they come in (`Strength.mean`). The margin is mu itself; the
            authors advise small margins, and a multiple of mu picks the same pairs with "quantile" or a limit of 0.
        quantile: share in (0, 1] of the pairs to pick, the weakest first, rounded down.
        threshold: pick the pairs with mu < threshold instead.
        alpha: in [0, 0.5], the probability that a picked label is wrong. With margin m the best gap is then
            m + ln((1 - alpha) / alpha).
    Returns:
        New pairs; ``row`` gains "flipped". A flipped pair's columns are turned with it: the judge's label, mu, "truth",
        and every pair of columns named alike but for "chosen" and "rejected" (score lists and the like).
    Raises:
        GuerdonError: unknown strategy, both limits or one that the strategy does not read, a number out of range.
        ValueError: mean is not [N] finite numbers.
    Source: Secrets of RLHF II (arXiv 2401.06080), sections 2.4.1 (flip, soft), 2.4.2 (margin on all pairs), 2.5 (the
    mixtures; smoothing where mu < 0) and figure 8 (a tenth flipped). UNVERIFIED: alpha, which is not printed (0.2
    fits the entropy at which figure 6 settles), and the margin of a flipped pair (-mu is the swapped pair's strength).
    A wrong pair that is not flipped gets a negative margin: it is trained to stay wrong by no more than that.
    """
    if strategy not in STRATEGIES:
        raise unknown("relabelling strategy", strategy, STRATEGIES)
    if not 0 <= alpha <= 0.5:
        raise GuerdonError(f"alpha must lie in [0, 0.5], got {alpha}; more than 0.5 is a flip")
    mu = np.asarray(mean, dtype=np.float64)
    if mu.shape != (len(pairs),) or not np.isfinite(mu).all():
        raise ValueError(f"mean must hold a finite number for each of the {len(pairs)} pairs, got {list(mu.shape)}")
    picked = _picked(mu, strategy, quantile, threshold)
    flips, softens, margins = (word in strategy for word in ("flip", "soft", "margin"))
    made = []
    for pair, strength, weak in zip(pairs, mu.tolist(), picked.tolist()):
        if margins:
            pair = replace(pair, margin=strength)
        if softens and weak:
            pair = replace(pair, smoothing=alpha)
        if flips and weak:
            pair = pair.swapped()
        turned = bool(pair.row.get(FLIPPED, False)) != bool(flips and weak)
        made.append(replace(pair, row={**pair.row, FLIPPED: turned}))
    return made


def _picked(
    mu: NDArray[np.float64], strategy: str, quantile: float | None, threshold: float | None
) -> NDArray[np.bool_]:
    """Which pairs to flip or soften: bool [N]."""
    given = [name for name, limit in (("quantile", quantile), ("threshold", threshold)) if limit is not None]
    if given and strategy in ("none", "margin"):
        raise GuerdonError(f"strategy {strategy!r} picks no pairs, so {given[0]} would do nothing; leave it out")
    if len(given) == 2:
        raise GuerdonError("give a quantile or a threshold, not both")
    if not given:
        if strategy == "soft":
            return np.ones(mu.shape, dtype=bool)
        quantile, threshold = (None, 0.0) if strategy == "soft+margin" else (0.1, None)
    if threshold is not None:
        return mu < threshold
    if quantile is None or not 0 < quantile <= 1:
        raise GuerdonError(f"quantile must lie in (0, 1], got {quantile}")
    picked = np.zeros(mu.shape, dtype=bool)
    # The tolerance: 0.1 * 30 is a little more than 3, and 0.3 * 10 a little less.
    picked[np.argsort(mu, kind="stable")[: int(quantile * mu.size + 1e-9)]] = True
    return picked
