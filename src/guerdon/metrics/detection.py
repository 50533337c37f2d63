"""How well scores tell positives from negatives, with and without a threshold.

"Positive" is what the score is meant to be high for. To grade a detector that returns P(real), take the generated
images as positives and score them by 1 - P(real).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from guerdon.core.errors import GuerdonError

__all__ = ["auroc", "balanced_accuracy", "pass_rate", "tpr_at_fpr"]


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise GuerdonError(f"{name} scores must be a non-empty [N] array; got shape {list(array.shape)}")
    if np.isnan(array).any():
        raise GuerdonError(f"{name} scores hold a nan at index {int(np.isnan(array).argmax())}; drop failures first")
    return array


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """P(a positive scores above a negative) + half P(tie), in [0, 1]; 0.5 = indistinguishable. ``[N]``, ``[M]``.

    Source: Hanley and McNeil 1982 (area under the ROC curve = Mann-Whitney U / NM). Raises GuerdonError for a nan.
    """
    above, below = _scores(positive, "positive"), _scores(negative, "negative")
    ranks = rankdata(np.concatenate([above, below]))
    u = ranks[: above.size].sum() - above.size * (above.size + 1) / 2
    return float(u / (above.size * below.size))


def tpr_at_fpr(positive: ArrayLike, negative: ArrayLike, *, fpr: float = 0.01) -> float:
    """Largest share of positives flagged by any threshold that flags at most a share ``fpr`` of negatives, in [0, 1].

    ``[N]``, ``[M]``; no interpolation between thresholds, so with M < 1/fpr negatives none may be flagged. A blind
    detector reads about ``fpr``. Source: Carlini et al. 2022, "Membership inference attacks from first principles",
    section IV (why the low-false-positive end of the ROC curve is what counts).
    """
    if not 0 <= fpr <= 1:
        raise GuerdonError(f"fpr must lie in [0, 1]; got {fpr}")
    flagged, spared = _scores(positive, "positive"), np.sort(_scores(negative, "negative"))[::-1]
    # The nudge keeps 0.07 * 100 = 7.000000000000001 and 0.29 * 100 = 28.999999999999996 at 7 and 29.
    allowed = math.floor(fpr * spared.size + 1e-9)
    if allowed >= spared.size:
        return 1.0
    return float((flagged > spared[allowed]).mean())


def balanced_accuracy(positive: ArrayLike, negative: ArrayLike, *, threshold: float = 0.5) -> float:
    """Mean of the share of positives above ``threshold`` and of negatives not above it, in [0, 1]; chance is 0.5.

    ``[N]``, ``[M]``. Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution".
    """
    above, below = _scores(positive, "positive"), _scores(negative, "negative")
    return float(((above > threshold).mean() + (below <= threshold).mean()) / 2)


def pass_rate(scores: ArrayLike, *, threshold: float = 0.5) -> float:
    """Share of ``scores`` [N] above ``threshold``, in [0, 1]. Source: RealGen, RealBench's P(real) > 0.5."""
    return float((_scores(scores, "the") > threshold).mean())
