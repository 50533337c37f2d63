"""Judges of segments by rule, for data without a judge of their own: is the calculation right, is it said again.

They stand for the error types of Fine-Grained RLHF (arXiv 2306.01693), factuality and relevance, on arithmetic; on
other texts they see little, and a trained `guerdon.models.step_scorer.StepScorer` takes their place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from guerdon.core.preferences import as_messages, text_of

__all__ = ["calculation_judge", "news_judge"]

_NUMBER = r"-?\d{1,15}(?:,\d{3})*(?:\.\d{1,9})?"
_CALCULATION = re.compile(rf"(?<![\w.])({_NUMBER})\s*([-+*/x×÷])\s*({_NUMBER})\s*=\s*\$?({_NUMBER})(?!\d)", re.ASCII)
_ASKED = re.compile(_NUMBER, re.ASCII)
_WORDS = re.compile(r"\w+")


def calculation_judge(prompts: Any, segments: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
    """0.0 for a segment with a false ``a op b = c``, or one over numbers that came neither in the prompt nor before.

    1.0 for every other segment, those without a calculation too. A number that was only claimed counts as known from
    then on, so that one slip is one error and not all that follow from it.
    """
    found = []
    for row, parts in enumerate(segments):
        known = set(map(_value, _ASKED.findall(_asked(prompts, row))))
        asked, scores = bool(known), []
        for part in parts:
            right = True
            for left, operation, other, claimed in _CALCULATION.findall(part):
                a, b, c = _value(left), _value(other), _value(claimed)
                right &= _computed(a, operation, b) == c and (not asked or {a, b} <= known)
                known.add(c)
            scores.append(float(right))
        found.append(scores)
    return found


def news_judge(prompts: Any, segments: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
    """0.0 for a segment whose words were all said before in the same order, or that has no words; else 1.0."""
    found = []
    for parts in segments:
        seen: set[str] = set()
        scores = []
        for part in parts:
            said = " ".join(_WORDS.findall(part.casefold()))
            scores.append(float(bool(said) and said not in seen))
            seen.add(said)
        found.append(scores)
    return found


def _asked(prompts: Any, row: int) -> str:
    if prompts is None:
        return ""
    return prompts[row] if isinstance(prompts[row], str) else text_of(as_messages(prompts[row], "user"))


def _value(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _computed(a: Fraction, operation: str, b: Fraction) -> Fraction | None:
    if operation in "/÷":
        return a / b if b else None
    return {"+": a + b, "-": a - b}.get(operation, a * b)
