"""Where the parts of a text begin and end, and on which of a policy's tokens each of them ends.

Segments are spans of characters, so that the reward, which reads text, and the trainer, which has tokens, need not
share a tokenizer. Sources: Fine-Grained RLHF (arXiv 2306.01693) for sub-sentences and for one reward a segment;
Clip and Delta (arXiv 2410.15115) for steps, whose separator the paper leaves open.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from guerdon.core.errors import GuerdonError, unknown

__all__ = [
    "SEGMENTERS", "RegexSegmenter", "Segmenter", "Span", "SpanScore", "TokenSegmenter", "segmenter", "sentences",
    "step_lines", "sub_sentences", "token_ends", "token_offsets",
]  # fmt: skip


@dataclass(frozen=True, order=True)
class Span:
    """Characters ``start`` up to, not including, ``end`` of a text."""

    start: int
    end: int

    def of(self, text: str) -> str:
        """The characters themselves."""
        return text[self.start : self.end]


@dataclass(frozen=True, order=True)
class SpanScore(Span):
    """A finite reward for one span of a completion. Spans of one ``aspect`` are one way of cutting the text."""

    value: float
    aspect: str = ""


Segmenter = Callable[[str], list[Span]]
"""Text to spans: in order, not empty, without overlap, and nothing but white space outside of them."""

_STOP = re.compile(r"[.!?…]+[\"')\]»”’]*(?=\s|$)|\n+")
# A stop behind these is no end of a sentence. Single letters (initials) are seen to apart.
_SHORTENED = frozenset(
    "mr mrs ms dr prof st jr sr vs etc e.g i.e cf al no fig eq dept approx inc ltd co jan feb mar apr jun jul aug sep "
    "sept oct nov dec".split()
)
_WORD = re.compile(r"\S+")
_PAUSES = ",;!?"
_AHEAD, _LEAST = 6, 5


def sentences(text: str) -> list[Span]:
    """The sentences: they end in ``.``, ``!``, ``?`` or ``…`` before white space, or at a line's end. Linear.

    Not behind a common abbreviation or an initial, nor where the next word begins in a small letter; a stop inside a
    number is none. Ours: the reference uses spaCy's parser, which is no dependency here, so its sentences may differ.
    """
    found: list[Span] = []
    start = 0
    for stop in _STOP.finditer(text):
        if stop[0][0] != "\n" and not _ends(text, stop.start(), stop.end(), start):
            continue
        _keep(text, start, stop.end(), found)
        start = stop.end()
    _keep(text, start, len(text), found)
    return found


def sub_sentences(text: str) -> list[Span]:
    """Pieces of sentences between pauses, as Fine-Grained RLHF cuts them for its relevance reward.

    Over the words of a sentence: a new piece starts behind a word that ends in ``,``, ``;``, ``!`` or ``?`` if 6 or
    more words are left; where the piece since the last such start has fewer than 5 words, that start is moved here
    instead (at the beginning of the sentence: nothing is cut).

    Source: arXiv 2306.01693, the rule of its released code; on `sentences` in place of spaCy's.
    """
    found: list[Span] = []
    for sentence in sentences(text):
        words = [
            Span(sentence.start + one.start(), sentence.start + one.end()) for one in _WORD.finditer(sentence.of(text))
        ]
        starts = [0]
        for place, word in enumerate(words, start=1):
            if text[word.end - 1] not in _PAUSES or len(words) - place < _AHEAD:
                continue
            if place - starts[-1] >= _LEAST:
                starts.append(place)
            elif len(starts) > 1:
                starts[-1] = place
        found += [Span(words[a].start, words[b - 1].end) for a, b in zip(starts, [*starts[1:], len(words)])]
    return found


class RegexSegmenter:
    """Segments between matches of ``pattern``, a Python regular expression; segments of white space are left out.

    pattern:  the separator, such as ``\\n\\n``. With ``leading`` it opens a segment and belongs to it (``Step \\d+``).

    Raises GuerdonError for a pattern that is none, or that matches nothing at all (it would cut everywhere).
    """

    def __init__(self, pattern: str, *, leading: bool = False) -> None:
        try:
            self._cut = re.compile(pattern)
        except re.error as error:
            raise GuerdonError(f"segments are cut by a regular expression; {pattern!r} is none: {error}") from None
        if self._cut.match(""):
            raise GuerdonError(f"the separator {pattern!r} matches the empty text and would cut everywhere")
        self.pattern, self.leading = pattern, leading

    def __call__(self, text: str) -> list[Span]:
        found: list[Span] = []
        start = 0
        for cut in self._cut.finditer(text):
            _keep(text, start, cut.start(), found)
            start = cut.start() if self.leading else cut.end()
        _keep(text, start, len(text), found)
        return found


class TokenSegmenter:
    """One segment a token of ``tokenizer`` (a fast one of transformers); tokens of white space are left out."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise GuerdonError("cutting a text into tokens needs a fast tokenizer, which knows the tokens' characters")
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> list[Span]:
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        found: list[Span] = []
        for start, end in read["offset_mapping"]:
            # The pieces of one character share its offsets; it is one segment.
            _keep(text, max(start, found[-1].end if found else 0), end, found)
        return found


step_lines: RegexSegmenter = RegexSegmenter(r"\n+")
"""One step a line: the separator of most process reward data. UNVERIFIED for arXiv 2410.15115."""

SEGMENTERS: dict[str, Segmenter] = {
    "sentence": sentences, "sub_sentence": sub_sentences, "step": step_lines,
    "paragraph": RegexSegmenter(r"\n\s*\n"), "numbered_step": RegexSegmenter(r"(?m)^\s*Step \d+", leading=True),
    "whole": lambda text: [Span(0, len(text.rstrip()))] if text.strip() else [],
}  # fmt: skip
"""Segmenters by name."""


def segmenter(choice: str | Segmenter) -> Segmenter:
    """The segmenter of a name in ``SEGMENTERS``, of "regex:PATTERN", or the callable itself.

    Raises GuerdonError for an unknown name.
    """
    if callable(choice):
        return choice
    if choice.startswith("regex:"):
        return RegexSegmenter(choice.removeprefix("regex:"))
    if choice not in SEGMENTERS:
        raise unknown("segmenter", choice, [*SEGMENTERS, "regex:PATTERN"])
    return SEGMENTERS[choice]


def token_offsets(tokenizer: Any, ids: Sequence[int], text: str | None = None) -> tuple[str, list[Span]]:
    """(text, the characters of each token) of sampled ``ids``; special tokens have none (an empty span).

    The tokenizer's own offsets where it would have written the text in these tokens; a policy may also sample a text in
    other tokens than its tokenizer would, and then the lengths of the decoded beginnings say it.

    text:  where given, what the reward was shown. It must stand in the decoded tokens, at its last place there.
    Raises GuerdonError where it does not (a parser changed it): nothing can then be aligned.
    """
    ids = list(ids)
    special = set(getattr(tokenizer, "all_special_ids", ()))
    plain = [place for place, one in enumerate(ids) if one not in special]
    kept = [ids[place] for place in plain]
    decoded = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    inner = _own_offsets(tokenizer, kept, decoded)
    if inner is None:
        ends = list(accumulate((len(_whole(tokenizer, kept[: place + 1])) for place in range(len(kept))), max))
        inner = [Span(start, end) for start, end in zip([0, *ends], ends)]
    shift = 0
    if text is not None:
        shift = decoded.rfind(text)
        if shift < 0:
            raise GuerdonError(f"the text that was scored, {text[:60]!r}, is not in the tokens that were sampled")
    spans, at = [], 0
    by_place = dict(zip(plain, inner))
    for place in range(len(ids)):
        span = by_place.get(place)
        at = at if span is None else span.end - shift
        spans.append(Span(at, at) if span is None else Span(span.start - shift, span.end - shift))
    return (decoded if text is None else text), spans


def token_ends(spans: Sequence[Span], text: str, offsets: Sequence[Span]) -> list[int]:
    """The token on which each span ends -> indices into ``offsets``, one a span.

    That is the first token that reaches the span's last character. A span with nothing but white space behind it ends
    on the very last token, the end-of-sequence token included: so a reward for a whole text is a reward of all tokens.

    Raises GuerdonError where there is no token, or a span does not lie in the text.
    """
    if spans and not offsets:
        raise GuerdonError("a completion without tokens cannot have segments")
    reached = list(accumulate((one.end for one in offsets), max))
    full = len(text.rstrip())
    found = []
    for span in spans:
        if not 0 <= span.start < span.end <= len(text):
            raise GuerdonError(f"span {span.start}:{span.end} does not lie in a text of {len(text)} characters")
        last = len(offsets) - 1
        found.append(last if span.end >= full else min(bisect_left(reached, span.end), last))
    return found


def _keep(text: str, start: int, end: int, found: list[Span]) -> None:
    """Append the part between ``start`` and ``end`` without the white space around it, if anything is left."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        found.append(Span(start, end))


def _ends(text: str, stop: int, behind: int, start: int) -> bool:
    following = text[behind : behind + 40].lstrip()
    if following and following[0].islower():
        return False
    if text[stop] != ".":
        return True
    word = (text[max(start, stop - 12) : stop].split() or [""])[-1].lstrip("(\"'“‘[")
    initial = len(word) == 1 and word.isupper() and word != "I"
    return not (word.casefold() in _SHORTENED or initial and bool(following))


def _own_offsets(tokenizer: Any, ids: list[int], decoded: str) -> list[Span] | None:
    if not getattr(tokenizer, "is_fast", False):
        return None
    read = tokenizer(decoded, add_special_tokens=False, return_offsets_mapping=True)
    return [Span(*one) for one in read["offset_mapping"]] if list(read["input_ids"]) == ids else None


def _whole(tokenizer: Any, ids: list[int]) -> str:
    """The text of a beginning, without a character that is only half there."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).rstrip("\ufffd")
