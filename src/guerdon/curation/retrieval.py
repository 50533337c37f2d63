"""Which labelled or unlabelled pairs are like a given one, and how many of them a reward model's error calls for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.curation.attributes import Attributes

__all__ = ["Embed", "PairRetriever", "adaptive_k", "retrieval_text"]

Embed = Callable[[list[str]], NDArray[Any]]
"""Texts -> float [N, d]."""


def adaptive_k(p: float, k_max: int = 8) -> int:
    """How many neighbours a pair calls for: k_max if p <= 1/2, else ceil(k_max (1 - p)).

    p:  sigmoid(r(chosen) - r(rejected)) in [0, 1], under the reward model whose errors are sought.

    The number falls by half at p = 1/2 and is 0 at p = 1. Source: Skywork-Reward-V2 (arXiv 2507.01352), section 3.
    Raises ValueError for p outside [0, 1] or k_max < 0.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability, got {p}")
    if k_max < 0:
        raise ValueError(f"k_max must be at least 0, got {k_max}")
    if p <= 0.5:
        return k_max
    # 10 (1 - 0.7) is 3 and a bit in floating point, and its ceiling would be 4.
    return math.ceil(round(k_max * (1 - p), 9))


def retrieval_text(pair: Pair, attributes: Attributes | None = None) -> str:
    """What stands for a pair in retrieval: its conversation, without the answers, and its attributes where known."""
    turns = [f"{message['role']}: {text_of([message])}" for message in pair.prompt]
    return "\n".join([*turns, *([attributes.text] if attributes is not None else [])])


class PairRetriever:
    """The pairs of a pool that are nearest to a given one in an embedding of (x, attributes).

    embed:   texts -> [N, d] (`guerdon.models.embedding`). The paper's is jina-embeddings-v3 (UNVERIFIED).
    metric:  any that scikit-learn's ``NearestNeighbors`` knows; the paper names none, cosine is ours.

    Source: Skywork-Reward-V2 (arXiv 2507.01352), section 3.
    """

    def __init__(self, embed: Embed, metric: str = "cosine") -> None:
        self.embed, self.metric = embed, metric
        self._pool: NDArray[Any] | None = None

    def fit(self, pairs: Sequence[Pair], attributes: Sequence[Attributes | None] | None = None) -> PairRetriever:
        """Embed the pool, once; ``attributes`` are one entry a pair, None where unknown."""
        self._pool = self._embedded(pairs, attributes)
        return self

    def nearest(
        self,
        pairs: Sequence[Pair],
        k: int | Sequence[int],
        attributes: Sequence[Attributes | None] | None = None,
        *,
        among: NDArray[np.bool_] | None = None,
    ) -> list[list[int]]:
        """Places in the pool of the nearest ones to each of ``pairs``, nearest first; fewer where the pool is smaller.

        k:      how many, for all or for each of them (`adaptive_k`); 0 gives an empty list.
        among:  bool [pool], the part of the pool that may be returned; default all of it.

        Raises GuerdonError without a pool, and for as many k, attributes or mask entries as do not fit.
        """
        from sklearn.neighbors import NearestNeighbors

        if self._pool is None:
            raise GuerdonError("nothing to retrieve from: call fit with a pool first")
        wanted = [k] * len(pairs) if isinstance(k, int) else list(k)
        if len(wanted) != len(pairs):
            raise GuerdonError(f"{len(pairs)} pairs need as many k; got {len(wanted)}")
        if attributes is not None and len(attributes) != len(pairs):
            raise GuerdonError(f"{len(pairs)} pairs need as many attributes; got {len(attributes)}")
        if among is not None and among.shape != (len(self._pool),):
            raise GuerdonError(f"among must mark each of the {len(self._pool)} pairs of the pool; got {among.shape}")
        places = np.arange(len(self._pool)) if among is None else np.flatnonzero(among)
        most = min(max(wanted, default=0), len(places))
        if most < 1:
            return [[] for _ in pairs]
        index = NearestNeighbors(n_neighbors=most, metric=self.metric).fit(self._pool[places])
        rows = [row for row, count in enumerate(wanted) if count > 0]
        given = None if attributes is None else [attributes[row] for row in rows]
        found = index.kneighbors(self._embedded([pairs[row] for row in rows], given), return_distance=False)
        result: list[list[int]] = [[] for _ in pairs]
        for row, near in zip(rows, found, strict=True):
            result[row] = places[near[: wanted[row]]].tolist()
        return result

    def _embedded(self, pairs: Sequence[Pair], attributes: Sequence[Attributes | None] | None) -> NDArray[Any]:
        known = [None] * len(pairs) if attributes is None else attributes
        if len(known) != len(pairs):
            raise GuerdonError(f"{len(pairs)} pairs need as many attributes; got {len(known)}")
        made = np.asarray(self.embed([retrieval_text(p, a) for p, a in zip(pairs, known, strict=True)]))
        if made.ndim != 2 or len(made) != len(pairs) or not np.isfinite(made).all():
            raise GuerdonError(f"the embedding of {len(pairs)} texts must be finite and [N, d]; got shape {made.shape}")
        return made
