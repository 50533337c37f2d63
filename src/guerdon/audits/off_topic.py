"""Does a reward prefer a short answer to the question to a long one to another question?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.core.errors import GuerdonError
from guerdon.metrics.verdicts import Rate
from guerdon.rewards.subject import Subject

__all__ = ["OffTopicItem", "OffTopicReport", "off_topic_probe"]


@dataclass(frozen=True)
class OffTopicItem:
    """A query, a short answer to it, and a long answer to something else."""

    query: str
    short: str
    other: str


@dataclass(frozen=True)
class OffTopicReport:
    """won: how often the short answer scores above the other one (a tie is no win). left_out: items without both
    scores."""

    won: Rate
    left_out: int


def off_topic_probe(subject: Subject, items: Sequence[OffTopicItem]) -> OffTopicReport:
    """Ask any subject that scores. Raises GuerdonError for no items.

    Source: Regularized Relevance Reward (arXiv 2402.03469v1), whose triplets are of rare entities and not published.
    """
    if not items:
        raise GuerdonError("the off-topic probe needs at least one item")
    asked = [
        [{"role": "user", "content": item.query}, {"role": "assistant", "content": text}]
        for item in items
        for text in (item.short, item.other)
    ]
    values = subject.score(asked).values.reshape(len(items), 2)
    known = ~(values != values).any(axis=1)
    wins = int((values[known, 0] > values[known, 1]).sum())
    return OffTopicReport(Rate.of(wins, int(known.sum())), int((~known).sum()))
