"""Which part of a completion a reward reads: all of it, its thought, or its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from guerdon.core.answer import completion_text, parse_answer
from guerdon.core.errors import unknown
from guerdon.core.identity import name_of
from guerdon.core.outcome import Scores
from guerdon.core.reward import Reward
from guerdon.rewards.composite import Combined, Composite, bounds_of, broken, numbers

__all__ = ["Region", "ReadingRegion", "region_text"]

Region = Literal["all", "think", "answer"]
_THOUGHT = re.compile(r"<(/?)think>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>", re.IGNORECASE)


def region_text(text: str, region: Region) -> str:
    """The part of a completion that is its "answer", its "think"ing, or "all" of it.

    answer: what the last ``<answer>`` span holds (`parse_answer`); "" without one. think: from ``<think>``, or from the
    beginning where the prompt opened it, to ``</think>``; where that is missing, to the first ``<answer>``, else to the
    end: a completion without tags is all thought. Raises GuerdonError for another region.
    """
    if region not in get_args(Region):
        raise unknown("region of a completion", region, get_args(Region))
    if region == "all":
        return text
    if region == "answer":
        return parse_answer(text) or ""
    tags = list(_THOUGHT.finditer(text))
    start = tags[0].end() if tags and not tags[0][1] else 0
    closing = next((tag.start() for tag in tags if tag[1] and tag.start() >= start), None)
    if closing is None:
        answer = _ANSWER.search(text, start)
        closing = answer.start() if answer is not None else len(text)
    return text[start:closing]


class ReadingRegion(Composite):
    """A reward that is shown one region of each completion, as a string, instead of the whole.

    A reward model that was trained on answers is to be shown the answer alone: ``ReadingRegion(rm, "answer")``. A
    completion without that region is shown as "". Source: arXiv 2505.22653, section 3.3 (the reward model reads the
    answer, the pattern reward the thought).
    """

    def __init__(self, reward: Reward, region: Region, *, name: str | None = None) -> None:
        region_text("", region)
        self.region, self._inner = region, name_of(reward)
        label = name or f"{self._inner}_{region}"
        super().__init__(label, {self._inner: reward}, {"region": region}, bounds=bounds_of(reward))

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        shown = [region_text(completion_text(one), self.region) for one in completions]
        # The trainer's token ids are those of the whole completion, and would contradict what is shown.
        kept = {key: value for key, value in columns.items() if key != "completion_ids"}
        return super()._score_parts(prompts, shown, kept)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        (part,) = scored.values()
        return Combined(np.asarray(numbers(part)), part.valid, broken(part))
