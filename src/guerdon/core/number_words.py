"""Whole numbers below a thousand in English words, written and read."""

from __future__ import annotations

from guerdon.core.errors import GuerdonError

__all__ = ["from_words", "in_words"]

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUE = {word: number for number, word in enumerate(_ONES)}
_VALUE_OF_TENS = {word: 10 * number for number, word in enumerate(_TENS, start=2)}


def in_words(number: int) -> str:
    """ "two hundred and five" for 205; "minus ..." below 0. Raises GuerdonError for a thousand and more."""
    if abs(number) >= 1000:
        raise GuerdonError(f"numbers are written in words below a thousand, got {number}")
    if number < 0:
        return f"minus {in_words(-number)}"
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_ONES[rest]}" if rest else "")
    hundreds, rest = divmod(number, 100)
    return f"{_ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")


def from_words(text: str) -> int | None:
    """The number that ``text`` names, in any case, with or without hyphens and "and"; None where it names none."""
    words = text[:100].casefold().replace("-", " ").split()
    sign = 1
    if words[:1] in (["minus"], ["negative"]):
        sign, words = -1, words[1:]
    if not words or len(words) > 5 or len(text) > 100:
        return None
    total = 0
    if words[1:2] == ["hundred"] and 1 <= _VALUE.get(words[0], 0) <= 9:
        total, words = 100 * _VALUE[words[0]], words[2:]
        if not words:
            return sign * total
        words = words[1:] if words[0] == "and" else words
    if len(words) == 2 and words[0] in _VALUE_OF_TENS and 1 <= _VALUE.get(words[1], 0) <= 9:
        return sign * (total + _VALUE_OF_TENS[words[0]] + _VALUE[words[1]])
    if len(words) == 1 and words[0] in _VALUE_OF_TENS | _VALUE:
        return sign * (total + (_VALUE_OF_TENS | _VALUE)[words[0]])
    return None
