"""Answers that no reward model should learn from or be trusted on: markup that leaked, nothing at all, broken text."""

from __future__ import annotations

from collections.abc import Sequence

from guerdon.core.preferences import Message, Pair, text_of

MARKERS = ("<|im_start|>", "<|im_end|>")
LONG_TEXT, LONG_WORD = 500, 100


def sanity_fault(answer: Sequence[Message] | str) -> str | None:
    """What is wrong with an answer, in words, or None.

    A chat marker in it, nothing but white space, or more than 500 characters with a word of more than 100 among them
    (words end at spaces and line breaks only). Source: the data check of IXC-2.5-Reward's training code.
    """
    text = text_of(answer)
    for marker in MARKERS:
        if marker in text:
            return f"holds the chat marker {marker}"
    words = [word for word in text.replace("\n", " ").split(" ") if word]
    if not text.strip() or not words:
        return "is empty"
    longest = max(map(len, words))
    if len(text) > LONG_TEXT and longest > LONG_WORD:
        return f"holds a word of {longest} characters"
    return None


def sane_pairs(pairs: Sequence[Pair]) -> tuple[list[Pair], list[str]]:
    """(pairs both of whose answers are sane, what is wrong with the others: "where: chosen is empty")."""
    kept, reasons = [], []
    for number, pair in enumerate(pairs):
        faults = [(side, sanity_fault(getattr(pair, side))) for side in ("chosen", "rejected")]
        found = [f"{side} {fault}" for side, fault in faults if fault]
        if found:
            reasons.append(f"{pair.where or f'pair {number}'}: {', '.join(found)}")
        else:
            kept.append(pair)
    return kept, reasons
