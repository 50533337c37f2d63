"""A number as people write one, read exactly by a small grammar: no evaluator, nothing that grows without bound.

    sum     := product (("+" | "-") product)*
    product := signed (("*" | "/") signed)*
    signed  := ("-" | "+")? power
    power   := atom ("^" signed)?
    atom    := number | number number "/" number (a mixed number) | "(" sum ")" | "{" sum "}"
             | "\\frac{" sum "}{" sum "}" | "\\sqrt{" sum "}" (of perfect squares)
    number  := digits, with thousands in groups of three, a decimal part, an exponent

Marks of multiplication and division in LaTeX and Unicode are read as * and /. Words for numbers below a thousand are
read. What the grammar does not hold is no number; what it holds but would be too large to write down is none either.
"""

from __future__ import annotations

import math
import re
import unicodedata
from fractions import Fraction

from guerdon.core.number_words import from_words

__all__ = ["MOST_CHARACTERS", "plain_text", "read_number"]

MOST_CHARACTERS = 200
_MOST_DIGITS = 60
_MOST_BITS = 2048  # of a numerator or denominator, also on the way
_DEEPEST = 20

_SUPERSCRIPTS = {ord(mark): f"^{digit}" for digit, mark in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_FRACTION = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
_TABLE = {
    **_SUPERSCRIPTS,
    **{ord(mark): f" {text}" for mark, text in _FRACTION.items()},
    **dict.fromkeys(map(ord, "−﹣－–‐‑‒"), "-"),
    **dict.fromkeys(map(ord, "×⋅·∙"), "*"),
    **dict.fromkeys(map(ord, "÷∕⁄"), "/"),
}
_COMMANDS = (
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-z])"), "*"),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (re.compile(r"\\(?:left|right|displaystyle)(?![a-z])"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:! ]|~"), ""),  # thin spaces, which LaTeX writers put between thousands
)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?![\d.,]*\d)|\.\d+(?![\d.,]*\d))"
    r"|(?P<name>\\frac|\\sqrt)|(?P<mark>\*\*|[-+*/^(){}]))",
    re.ASCII,
)


class _NoNumber(Exception):
    pass


def plain_text(text: str) -> str:
    """``text`` with full-width and other compatible characters in their plain form, invisible marks dropped, Unicode's
    minus, times, division and superscripts as ASCII. Superscripts keep their meaning: "2³" becomes "2^3"."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    return plain.translate(_VISIBLE)


class _Visible(dict[int, int | None]):
    """For ``str.translate``: drops invisible marks (category Cf). Each character is looked up once, since one may stand
    for eighteen and a long text of them would take seconds otherwise."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code)) == "Cf" else code
        return self[code]


_VISIBLE = _Visible()


def read_number(text: str) -> Fraction | None:
    """The exact value of ``text``, or None where it is no number by the grammar above.

    Linear in the length; texts over 200 characters, numbers over 60 digits and values over 2,048 bits are None, so that
    9^9^9^9 costs nothing. The whole text must be the number: "18 eggs" is None.
    """
    if len(text) > MOST_CHARACTERS:
        return None
    plain = plain_text(text).strip()
    if (named := from_words(plain)) is not None:
        return Fraction(named)
    for command, written in _COMMANDS:
        plain = command.sub(written, plain)
    try:
        return _Reader(plain).whole()
    except _NoNumber:
        return None


class _Reader:
    """Recursive descent over the tokens of one short text."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            found = _TOKEN.match(text, place)
            if found is None:
                raise _NoNumber
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind]))
            place = found.end()
        self.place = 0

    def whole(self) -> Fraction:
        value = self.sum(0)
        if self.place != len(self.tokens):
            raise _NoNumber
        return value

    def peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def take(self, mark: str) -> bool:
        if self.peek() != mark:
            return False
        self.place += 1
        return True

    def sum(self, depth: int) -> Fraction:
        if depth > _DEEPEST:
            raise _NoNumber
        value = self.product(depth)
        while (mark := self.peek()) in ("+", "-"):
            self.place += 1
            term = self.product(depth)
            value = _bounded(value + term if mark == "+" else value - term)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.signed(depth)
        while (mark := self.peek()) in ("*", "/"):
            self.place += 1
            factor = self.signed(depth)
            value = _bounded(value * factor if mark == "*" else _divided(value, factor))
        return value

    def signed(self, depth: int) -> Fraction:
        sign = -1 if self.take("-") else 1
        if sign > 0:
            self.take("+")
        return sign * self.power(depth)

    def power(self, depth: int) -> Fraction:
        base = self.atom(depth)
        if not (self.take("^") or self.take("**")):
            return base
        if depth >= _DEEPEST:
            raise _NoNumber
        exponent = self.signed(depth + 1)
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) * size > _MOST_BITS or (not base and exponent < 0):
            raise _NoNumber
        return Fraction(base ** int(exponent))

    def atom(self, depth: int) -> Fraction:
        if self.place >= len(self.tokens):
            raise _NoNumber
        kind, text = self.tokens[self.place]
        self.place += 1
        if kind == "number":
            return self.mixed(_digits(text))
        if text == "\\frac":
            return _bounded(_divided(self.braced(depth), self.braced(depth)))
        if text == "\\sqrt":
            return _root(self.braced(depth))
        if text in ("(", "{"):
            value = self.sum(depth + 1)
            if not self.take(")" if text == "(" else "}"):
                raise _NoNumber
            return value
        raise _NoNumber

    def mixed(self, whole: Fraction) -> Fraction:
        """``whole``, or with the a/b that follows it without a sign: 1 1/2."""
        ahead = self.tokens[self.place : self.place + 3]
        if [kind if kind == "number" else text for kind, text in ahead] != ["number", "/", "number"]:
            return whole
        upper, lower = _digits(ahead[0][1]), _digits(ahead[2][1])
        if whole.denominator != 1 or not 0 < upper < lower:
            raise _NoNumber
        self.place += 3
        return whole + upper / lower

    def braced(self, depth: int) -> Fraction:
        if not self.take("{"):
            raise _NoNumber
        value = self.sum(depth + 1)
        if not self.take("}"):
            raise _NoNumber
        return value


def _digits(text: str) -> Fraction:
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    if len(mantissa) > _MOST_DIGITS or abs(int(exponent or 0)) > _MOST_DIGITS:
        raise _NoNumber
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


def _divided(value: Fraction, by: Fraction) -> Fraction:
    if not by:
        raise _NoNumber
    return value / by


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise _NoNumber
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root != value:
        raise _NoNumber
    return root


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise _NoNumber
    return value
