"""How alike a completion and its reference are, by an encoder of sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash, identity
from guerdon.metrics.character_overlap import character_f_score
from guerdon.models.embedding import HashingEmbedder, TextEmbedder

__all__ = ["EmbeddingSimilarityReward", "ReferenceMatch"]


class EmbeddingSimilarityReward:
    """max(floor, cos(e(completion), e(reference))), the largest over several references.

    encoder:   texts -> rows [N, d]; a folder or hub id of a sentence encoder; None: hashed character n-grams.
    column:    the reference of each row, a text or a list of texts; None there: the reward does not apply.
    floor:     lowest score. Without one a negative cosine counts.

    An empty completion is alike to nothing: it gets the floor (0 without one). Cosine to a reference can be had by
    copying the question and stuffing its words: log what the completion shares with its prompt beside it.
    Source: HARMO (arXiv 2510.05283), the surrogate for a reward model; encoder and clipping are UNVERIFIED.
    """

    groupwise = False
    on_failure = "raise"
    version = "1"
    __name__ = "embedding_similarity"

    def __init__(
        self,
        encoder: str | Callable[[Sequence[str]], NDArray[Any]] | None = None,
        *,
        column: str = "reference",
        floor: float | None = 0.0,
    ) -> None:
        if floor is not None and not -1 <= floor <= 1:
            raise GuerdonError(f"the floor of a cosine lies in [-1, 1], got {floor}")
        self.encoder: Any = HashingEmbedder() if encoder is None else encoder
        if isinstance(encoder, str):
            self.encoder = TextEmbedder(encoder)
        self.column, self.floor = column, floor
        self.range = (-1.0 if floor is None else floor, 1.0)

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One score a completion. Raises GuerdonError without the column of references."""
        given = columns.get(self.column)
        if given is None or isinstance(given, str) or len(given) != len(completions):
            raise GuerdonError(f"reward {self.__name__!r} needs the column {self.column!r}, one entry a completion")
        wanted = [[one] if isinstance(one, str) else list(one or []) for one in given]
        rows = [row for row, references in enumerate(wanted) if references]
        texts = [completion_text(completions[row]) for row in rows]
        unique = list(dict.fromkeys([*texts, *(one for row in rows for one in wanted[row])]))
        place = {text: number for number, text in enumerate(unique)}
        made = self._unit(unique)
        found: list[float | None] = [None] * len(completions)
        for row, text in zip(rows, texts, strict=True):
            best = max(float(made[place[text]] @ made[place[one]]) for one in wanted[row])
            found[row] = min(1.0, best if self.floor is None else max(self.floor, best))
        return found

    def identity(self) -> str:
        """Name, version and a hash of encoder and settings."""
        encoder = identity(self.encoder) if hasattr(self.encoder, "identity") else repr(type(self.encoder))
        return f"{self.__name__}@{self.version}#{config_hash([encoder, self.column, self.floor])}"

    def _unit(self, texts: list[str]) -> NDArray[np.float64]:
        made = np.asarray(self.encoder(texts), np.float64)
        return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)


class ReferenceMatch:
    """How a completion, or what follows its thought, compares with the row's reference: a judge, not to be climbed.

    exact: 1.0 where both are the same up to white space, else 0.0; otherwise chrF in [0, 1]. column: the references,
    one text a row; None there: the score does not apply.
    """

    groupwise = False
    on_failure = "raise"
    range = (0.0, 1.0)
    version = "1"

    def __init__(self, *, exact: bool = True, column: str = "reference", name: str = "reference_match") -> None:
        self.exact, self.column, self.__name__ = exact, column, name

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One score a completion. Raises GuerdonError without the column of references."""
        given = columns.get(self.column)
        if given is None or isinstance(given, str) or len(given) != len(completions):
            raise GuerdonError(f"reward {self.__name__!r} needs the column {self.column!r}, one entry a completion")
        said = [completion_text(one).rpartition("</think>")[2] for one in completions]
        return [None if wanted is None else self._score(text, wanted) for text, wanted in zip(said, given)]

    def identity(self) -> str:
        """Name, version and the settings."""
        return f"{self.__name__}@{self.version}#{config_hash([self.exact, self.column])}"

    def _score(self, text: str, wanted: str) -> float:
        return float(text.split() == wanted.split()) if self.exact else character_f_score(text, wanted)
