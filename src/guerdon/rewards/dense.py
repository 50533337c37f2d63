"""Dense rewards: rewards that say which part of a completion earned what, and their mixture of aspects.

A dense reward is an ordinary reward, whose score is the sum of its parts, with a method ``dense`` besides. A trainer
that knows dense rewards (`guerdon.trainers.dense_grpo`) asks for the parts; every other trainer sees the sum.

Source: Fine-Grained RLHF (arXiv 2306.01693): r_t = sum_k sum_j 1(t = T_j^k) w_k R_k(x, y, j).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, Protocol, TypeGuard, runtime_checkable

from guerdon.core.answer import completion_text
from guerdon.core.batch import Batch, call_now, read_result
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash, identity, name_of
from guerdon.core.outcome import Failed
from guerdon.core.reward import FailurePolicy, is_groupwise
from guerdon.core.segments import SpanScore

__all__ = ["CompositeAspects", "Dense", "DenseOutcomes", "DenseReward", "dense_scores", "is_dense", "total"]

DenseOutcomes = list[list[SpanScore] | None | Failed]
"""One entry a completion: the scored spans (none: nothing to score, worth 0), "does not apply", or a failure."""


@runtime_checkable
class Dense(Protocol):
    """What a trainer asks of a dense reward, besides the contract of every reward."""

    def dense(self, prompts: Any, completions: Any, **columns: Any) -> DenseOutcomes: ...


def is_dense(reward: Any) -> TypeGuard[Dense]:
    """Whether the reward has a callable ``dense``."""
    return callable(getattr(reward, "dense", None))


def total(outcome: list[SpanScore] | None | Failed) -> float | None | Failed:
    """The sum of the spans of one completion; what is no list of spans stays what it is."""
    return sum((one.value for one in outcome), 0.0) if isinstance(outcome, list) else outcome


class DenseReward(ABC):
    """A reward that scores spans: a subclass gives ``dense``; a call gives the sums."""

    groupwise = False
    range: tuple[float, float] | None = None
    on_failure: FailurePolicy = "drop_sample"
    version = "1"
    __name__: str

    @abstractmethod
    def dense(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> DenseOutcomes:
        """The scored spans of each completion's text, in order."""

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None | Failed]:
        """One outcome a completion: the sum of its spans."""
        return [total(one) for one in self.dense(prompts, completions, **columns)]


def dense_scores(reward: Any, prompts: Any, completions: Sequence[Any], columns: Mapping[str, Any]) -> DenseOutcomes:
    """The spans of any reward: of one that is not dense, its score on a span that is the whole completion.

    A completion without text has no span to carry such a score; its span is then 0:0, which ends on the last token.
    Raises GuerdonError where a dense reward gives another number of rows than there are completions, or what are no
    spans of the text.
    """
    name = name_of(reward)
    texts = [completion_text(one) for one in completions]
    if is_dense(reward):
        found = reward.dense(prompts=prompts, completions=completions, **columns)
        if len(found) != len(texts):
            raise GuerdonError(f"reward {name!r} returned {len(found)} rows for {len(texts)} completions")
        return [_checked(one, text, name) for one, text in zip(found, texts)]
    batch = Batch.of(prompts, completions, columns, name)
    scores = read_result(call_now(reward, batch), len(texts), name).outcomes()
    return [[SpanScore(0, len(text), one)] if isinstance(one, float) else one for one, text in zip(scores, texts)]


def _checked(outcome: Any, text: str, name: str) -> list[SpanScore] | None | Failed:
    if outcome is None or isinstance(outcome, Failed):
        return outcome
    for one in outcome:
        if not isinstance(one, SpanScore):
            raise GuerdonError(f"reward {name!r}: a dense reward gives SpanScores, got {type(one).__name__}")
        if not isfinite(one.value):
            return Failed(f"scored characters {one.start}:{one.end} with {one.value}", "not_finite")
        if not 0 <= one.start <= one.end <= len(text):
            raise GuerdonError(f"reward {name!r}: span {one.start}:{one.end} is not in {len(text)} characters")
    return list(outcome)


def _path(key: str, inner: str) -> str:
    return f"{key}/{inner}" if inner else key


class CompositeAspects(DenseReward):
    """Several dense or ordinary rewards, each an aspect with a weight: sum_k w_k R_k, every part where it belongs.

    aspects:  name -> (reward, weight). An ordinary reward scores the whole text, at its end.
    name:     of the composed reward.

    A completion has spans only where every aspect has an outcome: a failure of one is a failure, and so with "does not
    apply". With ``log_metric`` among the columns the weighted mean of each aspect and its segments a completion are
    logged: correct segments pay, so longer answers may earn more, and this is where it shows.

    Raises GuerdonError for no aspects or a weight that is not finite. Source: arXiv 2306.01693; its weights for long
    answers are 0.3 (relevance), 0.5 (factuality) and 0.3 (completeness), held in the parts there.
    """

    def __init__(self, aspects: Mapping[str, tuple[Any, float]], *, name: str = "aspects") -> None:
        if not aspects:
            raise GuerdonError("a composite of aspects needs at least one aspect")
        for key, (_, weight) in aspects.items():
            if not isfinite(weight):
                raise GuerdonError(f"the weight of aspect {key!r} must be finite, got {weight}")
        self.aspects = {key: (reward, float(weight)) for key, (reward, weight) in aspects.items()}
        self.groupwise = any(is_groupwise(reward) for reward, _ in self.aspects.values())
        self.__name__ = name

    def dense(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> DenseOutcomes:
        """The spans of all aspects, each span's ``aspect`` set and its value weighted."""
        log = columns.get("log_metric")
        found: DenseOutcomes = [[] for _ in completions]
        for key, (reward, weight) in self.aspects.items():
            outcomes = dense_scores(reward, prompts, completions, columns)
            scored = [one for one in outcomes if isinstance(one, list)]
            if callable(log) and scored:
                log(f"{self.__name__}/{key}", weight * sum(one.value for row in scored for one in row) / len(scored))
                log(f"{self.__name__}/{key}/segments", sum(map(len, scored)) / len(scored))
            for row, outcome in enumerate(outcomes):
                before = found[row]
                if isinstance(before, Failed) or isinstance(outcome, Failed):
                    found[row] = before if isinstance(before, Failed) else outcome
                elif before is None or outcome is None:
                    found[row] = None
                else:
                    before += [replace(one, value=weight * one.value, aspect=_path(key, one.aspect)) for one in outcome]
        return found

    def identity(self) -> str:
        """Name, version, and a hash of the parts and their weights."""
        parts = {key: [identity(reward), weight] for key, (reward, weight) in self.aspects.items()}
        return f"{self.__name__}@{self.version}#{config_hash(parts)}"
