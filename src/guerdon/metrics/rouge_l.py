"""How much of one text stands in another in the same order: ROUGE-L over words."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

__all__ = ["longest_common_subsequence", "rouge_l", "words"]

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits: ``refinements.customer_reviews`` is three words."""
    return _WORD.findall(text.lower())


def longest_common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest sequence that stands in both, in order but not necessarily together.

    Source: bit-parallel, one machine word for many rows (Hyyro 2004, "Bit-parallel LCS-length computation revisited").
    """
    if len(first) > len(second):
        first, second = second, first
    if not first:
        return 0
    places: dict[Hashable, int] = {}
    for place, one in enumerate(first):
        places[one] = places.get(one, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for one in second:
        hits = row & places.get(one, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(first) - row.bit_count()


def rouge_l(said: str, wanted: str, *, beta: float = 1.0) -> float:
    """F of the longest common subsequence of words, in [0, 1].

    P = LCS / words of ``said``, R = LCS / words of ``wanted``, F = (1 + beta^2) P R / (R + beta^2 P). Equal texts are 1
    whatever they hold, signs alone and nothing at all included; else a text without words is 0.
    Raises ValueError for beta that is not above 0. Source: Lin 2004, ROUGE, section 3; beta = 1 as packages have it.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    if said == wanted:
        return 1.0
    first, second = words(said), words(wanted)
    common = longest_common_subsequence(first, second)
    if not common:
        return 0.0
    precision, recall = common / len(first), common / len(second)
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
