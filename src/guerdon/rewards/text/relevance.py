"""Regularized relevance: a reward without preference data, of terms that each close a hole of the one before.

r_x = M(x) . M(y)                     relevance to the query: climbed alone, it copies the query
r_x LI                                times the length: repeats the query
r_x LI RP                             times the share of trigrams that are new: long, diverse, relevant
R^3 = r_x LI RP or F(r_y) RP          open queries or closed ones, whose reference y* decides; F maps onto one scale

Source: Preference-free Alignment Learning with Regularized Relevance Reward (arXiv 2402.03469v1). Deviations: the
encoders here give unit rows, so that relevance is a cosine, the default range of F begins and ends at 0 and 1 (raw
Contriever: 0 and 3.5), and a negative one is 0, since times a length it would pay for brevity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash, name_of
from guerdon.core.outcome import Scores
from guerdon.core.reward import Reward
from guerdon.metrics.repetition import ngram_repetition
from guerdon.models.query_type import query_of
from guerdon.rewards.composite import UNBOUNDED, Combined, Composite, bounds_of, broken, numbers
from guerdon.rewards.routing import RewardRouter
from guerdon.rewards.text.similarity import EmbeddingSimilarityReward

__all__ = ["LengthIncentive", "LinearMap", "Product", "Relevance", "TrigramDiversity", "regularized_relevance", "words"]

Unit = Literal["word", "token"]
_WORDS = re.compile(r"\w+|[^\w\s]+")


def words(text: str) -> list[str]:
    """Runs of letters and digits, and runs of other marks, as nltk's wordpunct does it: "!!!!" is one word."""
    return _WORDS.findall(text)


class Relevance:
    """max(0, cos(M(query), M(completion))): the query is what the user said, turns joined.

    encoder: as of `EmbeddingSimilarityReward`. A completion that copies its query has relevance 1: never climb this
    alone.
    """

    groupwise = False
    on_failure = "raise"
    range = (0.0, 1.0)
    version = "1"
    __name__ = "relevance"

    def __init__(self, encoder: str | Callable[[Sequence[str]], NDArray[Any]] | None = None) -> None:
        self._similar = EmbeddingSimilarityReward(encoder, column="query")

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One score a completion."""
        return self._similar(None, completions, query=[_query(prompt) for prompt in prompts])

    def identity(self) -> str:
        """Name, version and the encoder."""
        return f"{self.__name__}@{self.version}#{self._similar.identity().rpartition('#')[2]}"


class LengthIncentive:
    """Length / ``scale``, at most ``cap``. unit: "word" (`words`), or "token" where ``completion_ids`` are passed.

    It has no end by itself: cap it where many tokens may be generated.
    """

    groupwise = False
    on_failure = "raise"
    version = "1"
    __name__ = "length_incentive"

    def __init__(self, unit: Unit = "word", *, scale: float = 100.0, cap: float | None = None) -> None:
        if unit not in get_args(Unit):
            raise unknown("unit of a length", unit, get_args(Unit))
        if not scale > 0 or cap is not None and not cap > 0:
            raise GuerdonError(f"scale and cap of a length must be above 0, got {scale} and {cap}")
        self.unit, self.scale, self.cap = unit, float(scale), cap
        self.range = (0.0, float(cap)) if cap is not None else None

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float]:
        """One score a completion. Raises GuerdonError for tokens that were not passed."""
        if self.unit == "token":
            ids = columns.get("completion_ids")
            if ids is None:
                raise GuerdonError(f"reward {self.__name__!r} counts tokens, but no completion_ids were passed")
            lengths = [len(one) for one in ids]
        else:
            lengths = [len(words(completion_text(one))) for one in completions]
        return [min(one / self.scale, self.cap or np.inf) for one in lengths]

    def identity(self) -> str:
        """Name, version and settings."""
        return f"{self.__name__}@{self.version}#{config_hash([self.unit, self.scale, self.cap])}"


class TrigramDiversity:
    """Different ``n``-grams over all of them, in (0, 1]; 1 where there is none."""

    groupwise = False
    on_failure = "raise"
    range = (0.0, 1.0)
    version = "1"
    __name__ = "trigram_diversity"

    def __init__(self, n: int = 3) -> None:
        if n < 1:
            raise GuerdonError(f"n must be at least 1, got {n}")
        self.n = n

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float]:
        """One score a completion."""
        return [1.0 - ngram_repetition(" ".join(words(completion_text(one))), self.n) for one in completions]

    def identity(self) -> str:
        """Name, version and n."""
        return f"{self.__name__}@{self.version}#{config_hash([self.n])}"


class LinearMap(Composite):
    """o0 + (v - i0) / (i1 - i0) (o1 - o0), beyond the ranges too unless ``clamp``."""

    def __init__(
        self,
        reward: Reward,
        given: tuple[float, float] = (0.0, 1.0),
        wanted: tuple[float, float] = (0.0, 5.12),
        *,
        clamp: bool = False,
        name: str | None = None,
    ) -> None:
        if given[0] == given[1]:
            raise GuerdonError(f"a linear map needs two different ends, got {given}")
        self.given, self.wanted, self.clamp = given, wanted, clamp
        ends = np.array(bounds_of(reward))
        known = bool(np.isfinite(ends).all())
        low, high = sorted(self._mapped(ends).tolist()) if known else UNBOUNDED
        super().__init__(
            name or f"mapped_{name_of(reward)}", {name_of(reward): reward},
            {"given": list(given), "wanted": list(wanted), "clamp": clamp},
            bounds=(low, high),
        )  # fmt: skip

    def _mapped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        share = (values - self.given[0]) / (self.given[1] - self.given[0])
        if self.clamp:
            share = share.clip(0, 1)
        return self.wanted[0] + share * (self.wanted[1] - self.wanted[0])

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        (part,) = scored.values()
        return Combined(self._mapped(numbers(part)), part.valid, broken(part))


class Product(Composite):
    """The product of rewards; a sample has one where every factor has."""

    def __init__(self, factors: Sequence[Reward], *, name: str = "product") -> None:
        if not factors:
            raise GuerdonError(f"product '{name}' has no factors")
        low, high = 1.0, 1.0
        for factor in factors:
            bottom, top = bounds_of(factor)
            low, high = (low * bottom, high * top) if bottom >= 0 and np.isfinite([bottom, top]).all() else UNBOUNDED
            if not np.isfinite([low, high]).all():
                break
        bounds = (low, high) if np.isfinite([low, high]).all() else UNBOUNDED
        super().__init__(name, {name_of(factor): factor for factor in factors}, {}, bounds=bounds)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        parts = list(scored.values())
        values = np.prod([numbers(part) for part in parts], axis=0)
        valid = np.logical_and.reduce([part.valid for part in parts])
        return Combined(values, valid, np.logical_or.reduce([broken(part) for part in parts]))


def regularized_relevance(
    encoder: str | None = None,
    *,
    max_new_tokens: int = 512,
    most: float = 1.0,
    key: str = "qtype",
    name: str = "regularized_relevance",
) -> RewardRouter:
    """R^3 of rows whose column ``qtype`` is OPENENDED or CONSTRAINED, the latter with a column ``reference``.

    encoder: a sentence encoder's folder or hub id (the paper's is facebook/contriever); None: hashed n-grams. most:
    the relevance that F maps to ``max_new_tokens`` / 100. The length is capped there, too (ours).
    """
    longest = max_new_tokens / 100
    similar = EmbeddingSimilarityReward(encoder)
    opened = Product([Relevance(similar.encoder), LengthIncentive(cap=longest), TrigramDiversity()], name="open")
    closed = Product([LinearMap(similar, (0.0, most), (0.0, longest)), TrigramDiversity()], name="closed")
    return RewardRouter({"OPENENDED": opened, "CONSTRAINED": closed}, key=key, mixed_scales=True, name=name)


def _query(prompt: Any) -> str:
    return query_of(prompt).replace("### Input:", "").strip()
