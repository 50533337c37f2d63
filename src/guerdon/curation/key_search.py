"""Where known master keys are, others are near: neighbours of a key in an embedding of short sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.curation.mixture import sentences

__all__ = ["LONGEST", "Neighbour", "nearest_key_search", "short_sentences"]

LONGEST = 30
"""Characters of a sentence that may be a key, as in the paper."""


@dataclass(frozen=True)
class Neighbour:
    """A candidate key: its text, the known key it is near, and their cosine similarity in [-1, 1]."""

    text: str
    seed: str
    similarity: float


def short_sentences(texts: Iterable[str], *, longest: int = LONGEST) -> list[str]:
    """The sentences of ``texts`` of at most ``longest`` characters, each once, in order of appearance."""
    found = (part.strip() for text in texts for part in sentences(text))
    return list(dict.fromkeys(part for part in found if part and len(part) <= longest))


def nearest_key_search(
    embed: Callable[[list[str]], NDArray[Any]],
    corpus: Sequence[str],
    seeds: Sequence[str],
    k: int = 5,
    *,
    longest: int = LONGEST,
) -> list[Neighbour]:
    """The ``k`` nearest texts of ``corpus`` to each known key, nearest first, key by key.

    Args:
        embed: texts -> float [N, d] (`guerdon.models.embedding`; the paper's is all-MiniLM-L6-v2).
        corpus: candidates; those longer than ``longest`` characters, and the seeds themselves, are left out.
        seeds: known keys.
    Raises:
        GuerdonError: no seeds, k < 1, no candidate left, or an embedding that is not finite and [N, d].
    Source: One Token to Fool (arXiv 2507.08794), appendix D: 1.5 million sentences, k = 5, of which two were chosen by
    hand. Whether a neighbour is a key only a judge can tell (`guerdon audit`).
    """
    from sklearn.neighbors import NearestNeighbors

    if not seeds or k < 1:
        raise GuerdonError(f"a search for keys needs known keys and k of at least 1, got {len(seeds)} and {k}")
    known = {_folded(seed) for seed in seeds}
    kept = [text for text in dict.fromkeys(corpus) if 0 < len(text) <= longest and _folded(text) not in known]
    if not kept:
        raise GuerdonError(f"of {len(corpus)} sentences none has at most {longest} characters and is no known key")
    rows, asked = (_embedded(embed, texts) for texts in (kept, list(seeds)))
    index = NearestNeighbors(n_neighbors=min(k, len(kept)), metric="cosine").fit(rows)
    far, near = index.kneighbors(asked)
    return [
        Neighbour(kept[place], seed, 1.0 - float(distance))
        for seed, places, distances in zip(seeds, near, far, strict=True)
        for place, distance in zip(places, distances, strict=True)
    ]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _embedded(embed: Callable[[list[str]], NDArray[Any]], texts: list[str]) -> NDArray[Any]:
    made = np.asarray(embed(texts))
    if made.ndim != 2 or len(made) != len(texts) or not np.isfinite(made).all():
        raise GuerdonError(f"the embedding of {len(texts)} texts must be finite and [N, d]; got shape {made.shape}")
    return made
