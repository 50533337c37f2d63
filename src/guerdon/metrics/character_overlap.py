"""Character n-gram F-score of a text against a reference: a translation metric that needs no model and no words."""

from __future__ import annotations

from collections import Counter

from guerdon.core.errors import GuerdonError

__all__ = ["character_f_score"]


def character_f_score(text: str, reference: str, *, order: int = 6, beta: float = 2.0) -> float:
    """chrF in [0, 1]: F_beta of precision and recall averaged over character n-grams of length 1 to ``order``.

    White space is left out. Lengths longer than either text are skipped; two empty texts are equal (1), one empty text
    is worth 0. Source: Popovic 2015, chrF. Raises GuerdonError for order < 1 or beta <= 0.
    """
    if order < 1 or not beta > 0:
        raise GuerdonError(f"order must be at least 1 and beta above 0, got {order} and {beta}")
    said, wanted = "".join(text.split()), "".join(reference.split())
    if not said or not wanted:
        return float(said == wanted)
    precision = recall = 0.0
    used = 0
    for size in range(1, order + 1):
        ours, theirs = (_grams(one, size) for one in (said, wanted))
        if not ours or not theirs:
            continue
        shared = sum((ours & theirs).values())
        precision, recall, used = precision + shared / ours.total(), recall + shared / theirs.total(), used + 1
    precision, recall = precision / used, recall / used
    if not precision + recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def _grams(text: str, size: int) -> Counter[str]:
    return Counter(text[place : place + size] for place in range(len(text) - size + 1))
