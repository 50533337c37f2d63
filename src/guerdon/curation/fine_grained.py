"""Fine-grained feedback: marked errors in answers, made into labels of segments and pairs for completeness.

The format is that of qa-feedback: a question with passages, up to four predictions, spans of errors in the first of
them, what it misses, a corrected prediction, and six preferences between the predictions.
Source: Fine-Grained RLHF (arXiv 2306.01693), section 4 and its released data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any, Literal, get_args

from guerdon.core.data import find_source
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.segments import Segmenter, Span, sentences, sub_sentences

__all__ = [
    "FACTUAL", "RELEVANCE", "ErrorSpan", "Feedback", "Kind", "completeness_pairs", "feedback_of", "feedback_prompt",
    "load_feedback", "preference_pairs", "segment_labels", "segment_rows",
]  # fmt: skip

RELEVANCE = ("Irrelevant", "Redundant", "Incoherent")
FACTUAL = ("Wrong-Grounding", "Unverifiable")
MISSING = ("Missing-Answer", "Missing-Major-Auxiliary", "Missing-Minor-Auxiliary")
Kind = Literal["relevance", "factuality"]
_PAIRS = tuple(combinations(range(1, 5), 2))
_COLUMNS = ("question", "passages", "feedback", "preference", *(f"prediction {place}" for place in range(1, 5)))
_FEWEST_WORDS, _ALIKE = 5, 0.85


@dataclass(frozen=True)
class ErrorSpan:
    """Characters of the first prediction that somebody marked, and as what."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Feedback:
    """One row: the question, its passages (title and sentences), predictions, and what was said of the first.

    preferences: (first, second, which is better: 1, 2 or 0 for a tie), by the predictions' numbers from 1.
    missing:     (type, passage, sentence) that the first prediction lacks.
    """

    question: str
    passages: tuple[tuple[str, ...], ...]
    predictions: tuple[str, ...]
    errors: tuple[ErrorSpan, ...] = ()
    missing: tuple[tuple[str, int, int], ...] = ()
    corrected: str = ""
    preferences: tuple[tuple[int, int, int], ...] = ()
    where: str = field(default="", compare=False)


def load_feedback(path: str) -> list[Feedback]:
    """The rows of a file (jsonl, parquet, csv; a JSON list is one too) or a hub id.

    Raises GuerdonError that lists the rows which are not of the format, with the reason for each.
    """
    rows, bad = [], []
    for one in find_source(path).rows(_COLUMNS):
        if not isinstance(one, tuple):
            bad.append(f"{one.where}: {one.reason}")
            continue
        where, values = one
        try:
            rows.append(feedback_of(values, where))
        except GuerdonError as error:
            bad.append(str(error))
    if bad:
        raise GuerdonError(f"{len(bad)} rows of {path} are no fine-grained feedback: {'; '.join(bad[:5])}")
    return rows


def feedback_of(row: Mapping[str, Any], where: str = "row") -> Feedback:
    """One row of the format, checked: spans must lie in the first prediction, the only one that they mark.

    Raises GuerdonError naming ``where`` and the key.
    """
    try:
        texts = tuple(str(row[f"prediction {place}"]) for place in range(1, 5) if f"prediction {place}" in row)
        said = row["feedback"]
        errors = tuple(ErrorSpan(int(e["start"]), int(e["end"]), str(e["error type"])) for e in said["errors"])
        missing = tuple(
            (str(m["error type"]), int(m["passage_id"]), int(sentence))
            for m in said.get("missing-info", ())
            for sentence in m["sentence_id"]
        )
        given = [int(one) for one in row.get("preference", ())]
        found = Feedback(
            str(row["question"]), tuple(tuple(map(str, one)) for one in row.get("passages", ())), texts, errors,
            missing, str(said.get("corrected-prediction", "")),
            tuple((a, b, one) for (a, b), one in zip(_PAIRS, given)), where,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise GuerdonError(f"{where}: {type(error).__name__} {error} in fine-grained feedback") from None
    if not texts:
        raise GuerdonError(f"{where}: there is no 'prediction 1', which the spans mark")
    if given and (len(given) != len(_PAIRS) or len(texts) < 4 or not set(given) <= {0, 1, 2}):
        raise GuerdonError(f"{where}: 'preference' needs six of 0, 1, 2 over four predictions, got {given}")
    for one in errors:
        if one.kind not in RELEVANCE + FACTUAL:
            raise GuerdonError(f"{where}: {unknown('error type', one.kind, RELEVANCE + FACTUAL)}")
        if not 0 <= one.start < one.end <= len(texts[0]):
            raise GuerdonError(
                f"{where}: span {one.start}:{one.end} is not in prediction 1, of {len(texts[0])} characters"
            )
    return found


def feedback_prompt(row: Feedback, *, context: bool = True) -> str:
    """ "question: ... context: wikipage: TITLE text: ... | wikipage: ...", or the question alone."""
    if not context:
        return f"question: {row.question}"
    told = " | ".join(f"wikipage: {title} text: {' '.join(text)}" for title, *text in row.passages)
    return f"question: {row.question} context: {told}"


def segment_labels(
    text: str, errors: Iterable[ErrorSpan], kind: Kind, cut: Segmenter | None = None
) -> tuple[list[Span], list[bool | None]]:
    """(segments, whether each is right) for one kind of error; None where nobody judged it.

    "relevance": sub-sentences; wrong where a character lies in an irrelevant, redundant or incoherent span of at least
    5 words. "factuality": sentences; wrong where one lies in a wrongly grounded or unverifiable span; a sentence with
    other errors only was not checked for facts: None.

    Source: arXiv 2306.01693, its script for these labels. Raises GuerdonError for another kind.
    """
    if kind not in get_args(Kind):
        raise unknown("kind of segment label", kind, get_args(Kind))
    marked = list(errors)
    own = RELEVANCE if kind == "relevance" else FACTUAL
    wrong = [one for one in marked if one.kind in own]
    if kind == "relevance":
        wrong = [one for one in wrong if len(text[one.start : one.end].split()) >= _FEWEST_WORDS]
    other = [one for one in marked if one.kind in RELEVANCE] if kind == "factuality" else []
    spans = (cut or (sub_sentences if kind == "relevance" else sentences))(text)
    labels: list[bool | None] = []
    for span in spans:
        if any(_touch(span, one) for one in wrong):
            labels.append(False)
        else:
            labels.append(None if any(_touch(span, one) for one in other) else True)
    return spans, labels


def segment_rows(rows: Sequence[Feedback], kind: Kind, cut: Segmenter | None = None) -> list[dict[str, Any]]:
    """Rows {"prompt", "completions", "labels"} of stepwise supervision, from the first predictions.

    The prompt shows the passages for factuality only, as published. An empty prediction gives no row.
    """
    found = []
    for row in rows:
        text = row.predictions[0]
        spans, labels = segment_labels(text, row.errors, kind, cut)
        if spans:
            prompt = f"{feedback_prompt(row, context=kind == 'factuality')} answer:"
            found.append({"prompt": prompt, "completions": [span.of(text) for span in spans], "labels": labels})
    return found


def preference_pairs(rows: Sequence[Feedback]) -> list[dict[str, str]]:
    """Rows {"prompt", "chosen", "rejected"} of the preferences between predictions; ties are left out.

    In the released development set the first prediction is favoured in 1,577 of 2,616 decided pairs: check for it.
    """
    found = []
    for row in rows:
        for first, second, better in row.preferences:
            if better:
                good, bad = (first, second) if better == 1 else (second, first)
                found.append(_pair(row, good - 1, bad - 1))
    return found


def completeness_pairs(rows: Sequence[Feedback], *, alike: float = _ALIKE) -> list[dict[str, str]]:
    """Rows {"prompt", "chosen", "rejected"} between predictions that cover unequal shares of what is needed.

    What is needed are the sentences of the passages that a sub-sentence of the corrected prediction says
    (`difflib` quick ratio of at least ``alike``), less those marked as a missing minor auxiliary. A prediction covers a
    sentence where one of its own sub-sentences says it. Ties, and rows of which nothing is needed, are left out.

    Source: arXiv 2306.01693, its script for these pairs; there both orders of a pair are written.
    """
    found = []
    for row in rows:
        told = {(p, s): text for p, passage in enumerate(row.passages) for s, text in enumerate(passage[1:], start=1)}
        minor = {(p, s) for kind, p, s in row.missing if kind == MISSING[2]}
        needed = _said(row.corrected, told, alike) - minor
        if not needed:
            continue
        shares = [len(_said(text, told, alike) & needed) / len(needed) for text in row.predictions]
        for a, b in combinations(range(len(shares)), 2):
            if shares[a] != shares[b]:
                found.append(_pair(row, a, b) if shares[a] > shares[b] else _pair(row, b, a))
    return found


def _said(text: str, told: Mapping[tuple[int, int], str], alike: float) -> set[tuple[int, int]]:
    pieces = [span.of(text) for span in sub_sentences(text)]
    return {
        key
        for key, sentence in told.items()
        if any(SequenceMatcher(None, piece, sentence).quick_ratio() >= alike for piece in pieces)
    }


def _pair(row: Feedback, good: int, bad: int) -> dict[str, str]:
    prompt = feedback_prompt(row)
    return {"prompt": prompt, "chosen": row.predictions[good], "rejected": row.predictions[bad]}


def _touch(span: Span, error: ErrorSpan) -> bool:
    return span.start < error.end and error.start < span.end
