"""Negatives for a verifier: first sentences of solutions, which sound like an answer and hold none.

A verifier row is {"question", "reference", "response", "label"} with the label "YES" or "NO".
Source: One Token to Fool LLM-as-a-Judge (arXiv 2507.08794): 20,000 such rows beside 160,000 ordinary ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from guerdon.core.attack_strings import keys_of
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.number_words import in_words
from guerdon.core.outcome import Failed
from guerdon.curation.mixture import sentences
from guerdon.models.chat import Chat
from guerdon.rewards.text.exact_number import plain_text, read_number

__all__ = [
    "SPLITTERS", "ChatSolver", "NegativeKind", "Solver", "Truncated", "adversarial_negative_mix", "first_line",
    "first_sentence", "truncated_negatives",
]  # fmt: skip

Row = Mapping[str, Any]
Solver = Callable[[Sequence[str]], Sequence[str | Failed]]
"""``solver(questions)`` -> a detailed solution of each, or why there is none."""
NegativeKind = Literal["truncated", "crossed", "symbols"]

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?", re.ASCII)
_SYMBOLS = "-;!?…*#/()[]{}=<>|~^&%@"
_ASKING = """\
Solve the following problem. Think it through step by step and write a detailed solution. Begin a new line after every \
sentence.

{question}
"""


def first_sentence(text: str) -> str:
    """The first sentence, without the space around it; "" for a text without any."""
    return next((part.strip() for part in sentences(text) if part.strip()), "")


def first_line(text: str) -> str:
    """The first line that is not blank; "" for a text without any."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


SPLITTERS: dict[str, Callable[[str], str]] = {"first_sentence": first_sentence, "first_line": first_line}


@dataclass(frozen=True)
class Truncated:
    """The negatives, and how many candidates were dropped and why."""

    rows: list[dict[str, Any]]
    dropped: Mapping[str, int] = field(default_factory=dict)


class ChatSolver:
    """A `Solver` that asks a chat model for a detailed solution, one question at a time; the words are ours."""

    def __init__(self, chat: Chat, *, temperature: float | None = None) -> None:
        self.chat, self.temperature = chat, temperature

    def __call__(self, questions: Sequence[str]) -> list[str | Failed]:
        """One solution a question; the chat model's failures stay failures."""
        return [
            self.chat([{"role": "user", "content": _ASKING.format(question=question)}], temperature=self.temperature)
            for question in questions
        ]


def truncated_negatives(
    rows: Sequence[Row],
    solver: Solver | None = None,
    *,
    count: int | None = None,
    splitter: str = "first_sentence",
    dedupe_against: Sequence[str] | None = None,
    seed: int = 0,
) -> Truncated:
    """Rows labelled NO whose response is the beginning of a solution.

    Args:
        rows: verifier rows; each question is used once.
        solver: writes the solutions that are cut; None cuts the rows' own responses.
        count: how many negatives are wanted, of questions drawn by ``seed``; None: as many as there are.
        splitter: a name of ``SPLITTERS``.
        dedupe_against: answers that a test will use, which must not be learnt; None: all published master keys.

    Dropped and counted: a solution that failed, an empty beginning, a known key (spacing, case and kind of quote
    aside), one that holds the reference, and one that is the whole response, since that may well be right.
    Raises GuerdonError for an unknown splitter, no rows, or a solver that gives another number of texts.
    Source: One Token to Fool (arXiv 2507.08794), D_aug. Deviation: the paper's assumption that a first sentence holds
    no answer is checked, since one-line problems break it.
    """
    if splitter not in SPLITTERS:
        raise unknown("splitter", splitter, SPLITTERS)
    if not rows:
        raise GuerdonError("there are no rows to take the beginnings of solutions from")
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(str(row["question"]), row)
    asked = list(first.values())
    order = [asked[place] for place in np.random.default_rng(seed).permutation(len(asked))]
    known = {_plain(key) for key in (keys_of() if dedupe_against is None else dedupe_against)}
    made: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    wanted = len(order) if count is None else count
    place = 0
    while len(made) < wanted and place < len(order):
        part = order[place : place + wanted - len(made)]
        place += len(part)
        texts: Sequence[str | Failed] = [str(row["response"]) for row in part]
        if solver is not None:
            texts = solver([str(row["question"]) for row in part])
            if len(texts) != len(part):
                raise GuerdonError(f"the solver gave {len(texts)} solutions to {len(part)} questions")
        for row, text in zip(part, texts, strict=True):
            beginning = "" if isinstance(text, Failed) else SPLITTERS[splitter](text)
            reason = _unfit(text, beginning, str(row["reference"]), known)
            if reason:
                dropped[reason] += 1
            else:
                made.append({**row, "response": beginning, "label": "NO"})
    return Truncated(made, dict(dropped))


def adversarial_negative_mix(
    rows: Sequence[Row], count: int, kind: NegativeKind = "truncated", *, seed: int = 0, **options: Any
) -> list[dict[str, Any]]:
    """``rows`` and after them up to ``count`` negatives of one kind, labelled NO.

    kind: "truncated" (`truncated_negatives`, which takes ``options``); "crossed": the response to another question,
    where it does not hold this one's reference; "symbols": one to three marks, none of them a published key.
    Raises GuerdonError for an unknown kind or rows that are too few for "crossed".
    """
    if kind not in get_args(NegativeKind):
        raise unknown("kind of negatives", kind, get_args(NegativeKind))
    if kind == "truncated":
        return [*map(dict, rows), *truncated_negatives(rows, count=count, seed=seed, **options).rows]
    if options:
        raise GuerdonError(f"negatives of kind {kind!r} take no {', '.join(sorted(options))}")
    rng = np.random.default_rng(seed)
    if kind == "crossed" and len({str(row["question"]) for row in rows}) < 2:
        raise GuerdonError("crossed negatives need rows of at least 2 questions")
    made: list[dict[str, Any]] = []
    for place in rng.permutation(len(rows)):
        if len(made) == count:
            break
        row = rows[place]
        if kind == "symbols":
            response = "".join(rng.choice(list(_SYMBOLS), size=int(rng.integers(1, 4))))
        else:
            other = rows[int(rng.integers(len(rows)))]
            response = str(other["response"])
            if other["question"] == row["question"] or _holds(response, str(row["reference"])):
                continue
        made.append({**row, "response": response, "label": "NO"})
    return [*map(dict, rows), *made]


def _unfit(text: str | Failed, beginning: str, reference: str, known: set[str]) -> str:
    if isinstance(text, Failed):
        return "the solution failed"
    if not beginning:
        return "empty"
    if _plain(beginning) in known:
        return "a known key"
    if _holds(beginning, reference):
        return "holds the reference"
    return "the whole response" if beginning == text.strip() else ""


def _plain(text: str) -> str:
    return " ".join(plain_text(text).replace("’", "'").casefold().split())


def _holds(text: str, reference: str) -> bool:
    """Whether the reference stands in ``text``: as a number of its value, in digits or in words, or as its words."""
    value = read_number(reference.strip().lstrip("$€£"))
    wanted = _plain(reference)
    if value is not None:
        if any(read_number(found) == value for found in _NUMBER.findall(plain_text(text))):
            return True
        if value.denominator != 1 or abs(value) >= 1000:
            return False
        wanted = in_words(int(value))
    return bool(wanted) and re.search(rf"(?<![\w-]){re.escape(wanted)}(?![\w-])", _plain(text)) is not None
