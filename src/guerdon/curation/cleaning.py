"""What is taken out of preference data before anything is learnt: empty answers, repeats, benchmark prompts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Sequence
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Message, Pair, text_of

__all__ = ["decontaminate", "dedup_pairs", "drop_empty", "pair_key"]

NGRAM = 13
Split = tuple[list[Pair], list[Pair]]
"""(kept, dropped), both in the order of the input."""

_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BITS = 24
_ROWS = 20_000


def drop_empty(pairs: Sequence[Pair]) -> Split:
    """Pairs of which both answers hold text, and the others. Source: Skywork-Reward-V2 (arXiv 2507.01352), appendix C.

    A message without content (None) counts as empty.
    """
    return _split(pairs, [bool(text_of(p.chosen).strip() and text_of(p.rejected).strip()) for p in pairs])


def dedup_pairs(pairs: Sequence[Pair]) -> Split:
    """The first of each set of pairs with equal (history, chosen, rejected), and the repeats.

    Exact equality of roles and contents, and of pictures pixel by pixel; a pair and its swap are two. Source:
    Skywork-Reward-V2 (arXiv 2507.01352), appendix C.
    """
    seen: set[Hashable] = set()
    keep = []
    for pair in pairs:
        key = _exact(pair)
        keep.append(key not in seen)
        seen.add(key)
    return _split(pairs, keep)


def decontaminate(pairs: Sequence[Pair], benchmark: Sequence[str], *, n: int = NGRAM) -> Split:
    """Pairs that share no ``n`` words in a row with a benchmark's prompt, and those that do.

    Words are runs of letters and digits, case ignored. Of a pair its prompt counts; of one without a prompt both
    answers. Prompts of a benchmark shorter than ``n`` words, which hold no n-gram, must be equal as a whole: ours, the
    paper is silent. Source: Skywork-Reward-V2 (arXiv 2507.01352), appendix C, n = 13. Raises GuerdonError for n < 1.
    """
    if n < 1:
        raise GuerdonError(f"n must be at least 1 word; got {n}")
    vocabulary: dict[str, int] = {}
    grams: set[tuple[str, ...]] = set()
    short: set[tuple[str, ...]] = set()
    for text in benchmark:
        words = _words(text)
        for word in words:
            vocabulary.setdefault(word, len(vocabulary) + 1)
        grams.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        if 0 < len(words) < n:
            short.add(tuple(words))
    table = np.zeros(1 << _BITS, dtype=bool)
    table[_slots([_words(text) for text in benchmark], vocabulary, n)] = True
    keep: list[bool] = []
    for start in range(0, len(pairs), _ROWS):
        keep += _clean(pairs[start : start + _ROWS], vocabulary, table, grams, short, n)
    return _split(pairs, keep)


def _clean(
    pairs: Sequence[Pair],
    vocabulary: dict[str, int],
    table: NDArray[np.bool_],
    grams: set[tuple[str, ...]],
    short: set[tuple[str, ...]],
    n: int,
) -> list[bool]:
    """Hashes of all n-grams at once find the few rows that are then compared word by word."""
    rows = [_words(text_of(pair.prompt or [*pair.chosen, *pair.rejected])) for pair in pairs]
    hits = np.flatnonzero(table[_slots(rows, vocabulary, n)])
    ends = np.cumsum([len(words) for words in rows])
    suspects = set(np.searchsorted(ends, hits, side="right").tolist())
    keep = []
    for row, words in enumerate(rows):
        found = len(words) < n and tuple(words) in short
        if row in suspects:
            found = found or any(tuple(words[i : i + n]) in grams for i in range(len(words) - n + 1))
        keep.append(not found)
    return keep


def _slots(rows: Sequence[Sequence[str]], vocabulary: dict[str, int], n: int) -> NDArray[np.uint64]:
    """A slot of the hash table for every run of ``n`` words of the rows one after another."""
    words = chain.from_iterable(rows)
    ids = np.fromiter(map(vocabulary.get, words, repeat(0)), dtype=np.uint64)
    total = np.zeros(max(len(ids) - n + 1, 0), dtype=np.uint64)
    for place in range(n):
        total = total * _BASE + ids[place : place + len(total)]  # modulo 2^64
    return total >> np.uint64(64 - _BITS)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def pair_key(pair: Pair) -> str:
    """16 hex digits that stand for (history, chosen, rejected) and pictures; the same in every process."""
    return hashlib.sha256(repr(_exact(pair)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _exact(pair: Pair) -> Hashable:
    sides = tuple(_turns(messages) for messages in (pair.prompt, pair.chosen, pair.rejected))
    if not pair.images:
        return sides
    return (*sides, *(hashlib.sha256(repr(p.size).encode() + p.tobytes()).hexdigest() for p in pair.images))


def _turns(messages: Sequence[Message]) -> Hashable:
    return tuple(
        (m["role"], m["content"] if isinstance(m["content"], str) else json.dumps(m["content"], default=str))
        for m in messages
    )


def _split(pairs: Sequence[Pair], keep: Sequence[bool]) -> Split:
    kept = [pair for pair, wanted in zip(pairs, keep, strict=True) if wanted]
    return kept, [pair for pair, wanted in zip(pairs, keep, strict=True) if not wanted]
