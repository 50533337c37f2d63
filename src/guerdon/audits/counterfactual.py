"""Does a judgement change with a name? The same texts with names exchanged, which should change nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.metrics.verdicts import Rate

__all__ = ["Counterfactuals", "counterfactual_names", "exchanged"]


@dataclass(frozen=True)
class Counterfactuals:
    """changed: texts whose judgement differs. pairs: (place, judgement as given, judgement with names exchanged) of
    those that changed. left_out: texts without any of the names."""

    changed: Rate
    pairs: tuple[tuple[int, Any, Any], ...]
    left_out: int


def exchanged(text: str, names: Sequence[tuple[str, str]]) -> str:
    """``text`` with each name as a whole word replaced by the other of its pair, both ways, in upper case and lower."""
    other = {one.casefold(): two for pair in names for one, two in (pair, pair[::-1])}
    words = "|".join(re.escape(name) for name in sorted(other, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda found: other[found[0].casefold()], text, flags=re.IGNORECASE)


def counterfactual_names(
    judge: Callable[[list[str]], Sequence[Any]], texts: Sequence[str], names: Sequence[tuple[str, str]], *,
    within: float = 1e-6,
) -> Counterfactuals:  # fmt: skip
    """Ask ``judge`` (scores or decisions of texts) with the names as they are and exchanged.

    names: pairs that should not matter, such as ("Anna", "Ahmed"). within: two numbers no further apart are the same.
    A small rate shows that these names make no difference, not that a judge is fair. Suggested by the resume rewards of
    arXiv 2511.16073, whose published prompt holds the candidate's name. Raises GuerdonError where no text has a name,
    or for judgements of another number than the texts.
    """
    turned = [exchanged(text, names) for text in texts]
    places = [place for place, (one, two) in enumerate(zip(texts, turned)) if one != two]
    if not places:
        raise GuerdonError(f"none of {len(texts)} texts holds any of the names")
    as_given, otherwise = (list(judge([some[place] for place in places])) for some in (texts, turned))
    if len(as_given) != len(places) or len(otherwise) != len(places):
        raise GuerdonError(f"the judge gave {len(as_given)} and {len(otherwise)} judgements of {len(places)} texts")
    pairs = tuple(
        (place, one, two)
        for place, one, two in zip(places, as_given, otherwise)
        if not (abs(one - two) <= within if _numbers(one, two) else one == two)
    )
    return Counterfactuals(Rate.of(len(pairs), len(places)), pairs, len(texts) - len(places))


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
