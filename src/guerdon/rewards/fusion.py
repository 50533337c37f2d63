"""RewardFusion: a text's reward averaged with those of its nearest neighbours among known texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash, name_of
from guerdon.core.preferences import text_of
from guerdon.models.scalar.model import Conversation

__all__ = ["FusionCost", "RewardFusion", "fuse"]

Embed = Callable[[list[str]], NDArray[Any]]
"""Texts -> float [N, d]."""


def fuse(scores: ArrayLike, neighbours: ArrayLike, similarities: ArrayLike) -> NDArray[np.float64]:
    """(R(t) + sum_i s_i R(n_i)) / (1 + sum_i s_i).

    Args:
        scores: R(t), [N].
        neighbours: R(n_i), [N, k]. similarities: s_i >= 0, [N, k]; 0 where there is no neighbour.
    Returns:
        float64 [N]; R(t) where there is no neighbour. Independent noise of equal variance falls to sum w^2 of it, with
        the weights w = (1, s) / (1 + sum s): 1/5 for five equal ones.
    Raises:
        ValueError: shapes do not fit, or a similarity below 0.
    Source: The Trickle-down Impact of Reward (In-)consistency on RLHF (arXiv 2309.16155), RewardFusion.
    """
    own, near, weight = (np.asarray(given, dtype=np.float64) for given in (scores, neighbours, similarities))
    if own.ndim != 1 or near.shape != weight.shape or near.shape[:1] != own.shape or near.ndim != 2:
        raise ValueError(f"fuse needs [N], [N, k] and [N, k], got {own.shape}, {near.shape} and {weight.shape}")
    if (weight < 0).any():
        raise ValueError("similarities must be >= 0")
    return (own + (weight * near).sum(1)) / (1 + weight.sum(1))


@dataclass
class FusionCost:
    """What fusion has cost so far: conversations asked for, scored by the reward model, and fused with a neighbour."""

    asked: int = 0
    scored: int = 0
    fused: int = 0

    @property
    def factor(self) -> float:
        """Scorings a conversation; 1 without fusion, up to 1 + k."""
        return self.scored / self.asked if self.asked else 1.0


class RewardFusion:
    """A reward model whose score of a text is averaged with those of up to ``k`` neighbours of cosine >= ``threshold``.

    rm:         anything with ``score(conversations)`` -> [N]. As a reward by TRL's contract: ``ModelReward(fusion)``.
    index:      known texts or conversations; the paper's are training instructions with their preferred answers.
                Repeats are taken once, and a text is not its own neighbour.
    embed:      texts -> [N, d], of instruction and answer together; the paper's is SimCSE.
    threshold:  in (0, 1], so that weights are positive.

    ``cost`` counts scorings. Each neighbour is scored once a call, whoever it is a neighbour of, and none is
    remembered: the model may be in training. A conversation with pictures keeps its own score, the index has none.
    True differences between near neighbours are smoothed away: it helps where noise is what separates them.

    Source: arXiv 2309.16155 and its released script, whose de-duplication of one side compares with the wrong list;
    that is not copied. Raises GuerdonError for k < 1, a threshold outside (0, 1], an empty index.
    """

    def __init__(
        self,
        rm: Any,
        index: Sequence[Conversation],
        embed: Embed,
        k: int = 5,
        threshold: float = 0.9,
        *,
        name: str = "fusion",
    ) -> None:
        from sklearn.neighbors import NearestNeighbors

        if k < 1:
            raise GuerdonError(f"reward {name!r}: fusion needs k of at least 1, got {k}")
        if not 0 < threshold <= 1:
            raise GuerdonError(f"reward {name!r}: the threshold of similarity must lie in (0, 1], got {threshold}")
        if isinstance(index, str) or not len(index):
            raise GuerdonError(f"reward {name!r}: fusion needs a list of texts or conversations as its index")
        self.rm, self.embed, self.k, self.threshold, self.name = rm, embed, k, threshold, name
        self.index: dict[str, Conversation] = {}
        for one in index:
            self.index.setdefault(_key(one), one)
        self._keys = list(self.index)
        # One more than k: the text itself may be among them.
        self._search = NearestNeighbors(n_neighbors=min(k + 1, len(self._keys)), metric="cosine", algorithm="brute")
        self._search.fit(np.asarray(embed([text_of(one) for one in self.index.values()])))
        self.cost = FusionCost()

    def neighbours(self, conversations: Sequence[Conversation]) -> list[list[tuple[int, float]]]:
        """(place in the index, cosine) of each conversation's neighbours, nearest first; at most ``k``."""
        if not len(conversations):
            return []
        away, places = self._search.kneighbors(np.asarray(self.embed([text_of(one) for one in conversations])))
        return [
            [
                (int(place), min(1.0, 1.0 - float(far)))
                for place, far in zip(row, distances)
                if 1.0 - far >= self.threshold - 1e-6 and self._keys[place] != _key(one)
            ][: self.k]
            for one, row, distances in zip(conversations, places, away)
        ]

    def score(
        self,
        conversations: Sequence[Conversation],
        *,
        images: Sequence[Sequence[Any]] | None = None,
        progress: str | None = None,
        **batching: Any,
    ) -> Tensor:
        """Fused rewards -> float32 [N] on the CPU; the arguments of the model's ``score``."""
        if isinstance(conversations, str):
            raise GuerdonError("score takes a list of conversations, got a single string")
        options: dict[str, Any] = batching | ({} if progress is None else {"progress": progress})
        shown = list(images) if images is not None else [()] * len(conversations)
        found = self.neighbours(conversations)
        found = [[] if pictures else near for near, pictures in zip(found, shown, strict=True)]
        needed = sorted({place for near in found for place, _ in near})
        values = list(self.index.values())
        asked = [*conversations, *(values[place] for place in needed)]
        if any(shown):
            options["images"] = [*shown, *([()] * len(needed))]
        scores = torch.as_tensor(self.rm.score(asked, **options)).double().cpu().numpy()
        self.cost.asked += len(conversations)
        self.cost.scored += len(asked)
        self.cost.fused += sum(bool(near) for near in found)
        known = dict(zip(needed, scores[len(conversations) :]))
        near_scores, weights = np.zeros((2, len(conversations), self.k))
        for row, near in enumerate(found):
            for column, (place, similarity) in enumerate(near):
                near_scores[row, column], weights[row, column] = known[place], similarity
        return torch.from_numpy(fuse(scores[: len(conversations)], near_scores, weights)).float()

    # What `ModelReward` and `EnsembleReward` ask of a model

    def encode(self, conversation: Conversation, images: Sequence[Any] = ()) -> tuple[Conversation, Sequence[Any]]:
        """The conversation itself, after the model has taken it: what it refuses fails alone and not with its batch."""
        if hasattr(self.rm, "encode"):
            self.rm.encode(conversation, images)
        return conversation, images

    def score_encoded(self, encoded: Sequence[tuple[Conversation, Sequence[Any]]], **batching: Any) -> Tensor:
        """`score` of what `encode` gave -> float32 [N]."""
        pictures = [shown for _, shown in encoded]
        return self.score([one for one, _ in encoded], images=pictures if any(pictures) else None, **batching)

    def report_cuts(self, encoded: Sequence[Any]) -> int:
        """0: the model itself reports what it cuts."""
        return 0

    def identity(self) -> str:
        """name@version#hash of the model, the index, the embedder and the settings."""
        parts = [getattr(one, "identity", lambda one=one: name_of(one))() for one in (self.rm, self.embed)]
        return f"{self.name}@1#{config_hash([*parts, self._keys, self.k, self.threshold])}"


def _key(conversation: Conversation) -> str:
    """What equal texts have in common."""
    return " ".join(text_of(conversation).split())
