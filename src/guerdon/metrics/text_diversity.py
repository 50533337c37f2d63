"""Do rewritten prompts still differ from one another, or has the writer found one phrase that pays?"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from guerdon.core.errors import GuerdonError

__all__ = ["commonest_tail", "commonest_tail_share", "distinct_n"]

_WORD = re.compile(r"\w+(?:['’.-]\w+)*")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _checked(texts: Iterable[str], n: int) -> list[list[str]]:
    if isinstance(texts, str):
        raise GuerdonError("texts must be a list of strings, not one string")
    if n < 1:
        raise GuerdonError(f"n must be at least 1; got {n}")
    return [_words(text) for text in texts]


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Different word n-grams over all word n-grams of ``texts``, in (0, 1]; nan when no text has n words.

    Words are lower-cased runs of letters, digits and underscores; no n-gram crosses texts. Falls as texts get longer or
    more, so compare equal amounts. Source: Li et al. 2016, section 5.1 (distinct-1, distinct-2).
    """
    grams = [tuple(words[i : i + n]) for words in _checked(texts, n) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def commonest_tail(texts: Sequence[str], n: int = 5) -> tuple[str, float]:
    """The commonest last ``n`` words of ``texts`` and the share of texts that end so, in (0, 1]; ("", nan) for no text.

    A text of fewer words is its own tail; texts without a word have the tail "". Source: RealGen card, section 1: a
    prompt rewriter trained on detector scores ended 19% of its prompts with one invented camera file name.
    """
    tails = Counter(" ".join(words[-n:]) for words in _checked(texts, n))
    if not tails:
        return "", math.nan
    tail, count = min(tails.items(), key=lambda item: (-item[1], item[0]))
    return tail, count / tails.total()


def commonest_tail_share(texts: Sequence[str], n: int = 5) -> float:
    """Share of ``texts`` that end with the commonest last ``n`` words (see `commonest_tail`), in (0, 1]."""
    return commonest_tail(texts, n)[1]
