"""Several reward models as one: a weighted mean of their scores, or one for text and another for pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.preferences import Pair
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.models.scalar.model import Conversation

Weighting = Literal["mean", "accuracy", "confidence"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)


class Scorable(Protocol):
    """What a member must have: `ScalarRewardModel`, and the two classes here, so that they nest."""

    name: str

    def encode(self, conversation: Conversation, images: Sequence[Any] = ()) -> Any: ...
    def score_encoded(self, encoded: Sequence[Any], **batching: Any) -> Tensor: ...
    def report_cuts(self, encoded: Sequence[Any]) -> int: ...
    def identity(self) -> str: ...


class _Scoring:
    """``score``, ``scores``, ``compare`` and ``rank`` of anything that can encode and score what it encoded."""

    def encode(self, conversation: Conversation, images: Sequence[Any] = ()) -> Any:
        raise NotImplementedError

    def score_encoded(self, encoded: Sequence[Any], **batching: Any) -> Tensor:
        raise NotImplementedError

    def report_cuts(self, encoded: Sequence[Any]) -> int:
        raise NotImplementedError

    def score(
        self,
        conversations: Sequence[Conversation],
        *,
        images: Sequence[Sequence[Any]] | None = None,
        progress: str | None = None,
        **batching: Any,
    ) -> Tensor:
        """Rewards of conversations -> float32 [N] on the CPU; as `ScalarRewardModel.score`."""
        if isinstance(conversations, str):
            raise GuerdonError("score takes a list of conversations, got a single string")
        shown = images if images is not None else [()] * len(conversations)
        if len(shown) != len(conversations):
            raise GuerdonError(f"{len(conversations)} conversations come with pictures for {len(shown)}")
        encoded = [self.encode(one, pictures or ()) for one, pictures in zip(conversations, shown)]
        self.report_cuts(encoded)
        return self.score_encoded(encoded, progress=progress, **batching)

    def scores(self, conversations: Sequence[Conversation], images: Any = None) -> list[float]:
        """`score` as a list of floats."""
        return self.score(conversations, images=images).tolist()

    def compare(self, first: Conversation, second: Conversation, images: Sequence[Any] = ()) -> bool:
        """Whether the first conversation scores strictly higher than the second."""
        one, other = self.scores([first, second], [images, images])
        return one > other

    def rank(self, conversations: Sequence[Conversation], images: Any = None) -> list[int]:
        """The rank of each conversation, 0 = best; equal scores keep their order."""
        order = torch.argsort(self.score(conversations, images=images), descending=True, stable=True)
        return torch.argsort(order, stable=True).tolist()


class EnsembleReward(_Scoring):
    """r(y) = sum_k w_k r_k(y), the weights summing to 1; unbounded, in the members' units, which must be alike.

    models:      two or more `ScalarRewardModel`s, or others of the same methods.
    weights:     "mean"; "accuracy" or "confidence": in proportion to a member's accuracy, or to its mean margin (chosen
                 less rejected), on ``validation``; or one number >= 0 a member.
    validation:  pairs held out from all members' training (the paper uses 1,000).

    Scores are averaged as they are, without standardising: a member of larger scale has more say. A member of negative
    mean margin gets weight 0 under "confidence" (ours; the paper has no such member).
    Source: BaseReward (arXiv 2509.16127), section 4.7: the plain mean is at least as good as both others.
    """

    def __init__(
        self,
        models: Sequence[Scorable],
        weights: Weighting | Sequence[float] = "mean",
        validation: Sequence[Pair] | None = None,
        *,
        name: str = "ensemble",
    ) -> None:
        if len(models) < 2:
            raise GuerdonError(f"an ensemble needs at least 2 models, got {len(models)}")
        self.models, self.name = list(models), name
        self.weights = self._weights(weights, validation)

    def _weights(self, weights: Weighting | Sequence[float], validation: Sequence[Pair] | None) -> tuple[float, ...]:
        if isinstance(weights, str) and weights not in WEIGHTINGS:
            raise unknown("weighting", weights, WEIGHTINGS)
        learnt = weights in ("accuracy", "confidence") if isinstance(weights, str) else False
        if learnt != (validation is not None):
            raise GuerdonError("validation pairs go with weights 'accuracy' and 'confidence', and with no others")
        if isinstance(weights, str):
            raw = [1.0] * len(self.models)
            if validation is not None:
                raw = [self._merit(model, validation, weights) for model in self.models]
        else:
            raw = [float(weight) for weight in weights]
        if len(raw) != len(self.models) or not np.isfinite(raw).all() or min(raw) < 0 or sum(raw) <= 0:
            raise GuerdonError(
                f"an ensemble of {len(self.models)} needs as many weights >= 0, not all of them 0; got {raw}"
            )
        return tuple(weight / sum(raw) for weight in raw)

    @staticmethod
    def _merit(model: Any, pairs: Sequence[Pair], weights: str) -> float:
        if not pairs:
            raise GuerdonError("weights from validation pairs need at least one pair")
        images = [pair.images for pair in pairs]
        chosen, rejected = (
            np.asarray(model.score([pair.conversation(side) for pair in pairs], images=images))
            for side in ("chosen", "rejected")  # type: ignore[arg-type]
        )
        if weights == "accuracy":
            return pair_accuracy(chosen, rejected)
        return max(0.0, float((chosen - rejected).mean()))

    def encode(self, conversation: Conversation, images: Sequence[Any] = ()) -> tuple[Any, ...]:
        """A conversation as each member takes it."""
        return tuple(model.encode(conversation, images) for model in self.models)

    def score_encoded(self, encoded: Sequence[Any], **batching: Any) -> Tensor:
        """Weighted mean of the members' scores -> float32 [N], summed in float64."""
        parts = self.parts(encoded, **batching)
        return (parts.double() * torch.tensor(self.weights, dtype=torch.float64)[:, None]).sum(0).float()

    def parts(self, encoded: Sequence[Any], **batching: Any) -> Tensor:
        """The members' own scores, float32 [K, N]."""
        columns: Iterator[tuple[Any, ...]] = zip(*encoded) if encoded else iter([()] * len(self.models))
        return torch.stack(
            [model.score_encoded(list(rows), **batching) for model, rows in zip(self.models, columns, strict=True)]
        )

    def report_cuts(self, encoded: Sequence[Any]) -> int:
        """The largest number of conversations that a member had to cut; each logs its own."""
        return max((model.report_cuts(list(rows)) for model, rows in zip(self.models, zip(*encoded))), default=0)

    def identity(self) -> str:
        """name@version#hash of the members and their weights."""
        return f"{self.name}@1#{config_hash([[model.identity() for model in self.models], list(self.weights)])}"


class RoutedReward(_Scoring):
    """One reward model for conversations with pictures and another for those without.

    Their scales have nothing to do with each other: compare answers to one prompt, which go to one of them, never
    answers across the two.
    Source: BaseReward (arXiv 2509.16127): text pairs help on pictures, pairs with pictures do not help on text.
    """

    def __init__(self, text: Scorable, multimodal: Scorable, *, name: str = "routed") -> None:
        self.routes, self.name = {"text": text, "multimodal": multimodal}, name

    def encode(self, conversation: Conversation, images: Sequence[Any] = ()) -> tuple[str, Any]:
        """(route, the conversation as that model takes it)."""
        route = "multimodal" if len(images) or _shows_pictures(conversation) else "text"
        return route, self.routes[route].encode(conversation, images)

    def score_encoded(self, encoded: Sequence[Any], **batching: Any) -> Tensor:
        """Each conversation's score by the model of its route -> float32 [N]."""
        scores = torch.zeros(len(encoded))
        for route, rows in self._by_route(encoded):
            scores[rows] = self.routes[route].score_encoded([encoded[row][1] for row in rows], **batching)
        return scores

    def report_cuts(self, encoded: Sequence[Any]) -> int:
        """How many conversations were cut."""
        return sum(
            self.routes[route].report_cuts([encoded[row][1] for row in rows]) for route, rows in self._by_route(encoded)
        )

    def _by_route(self, encoded: Sequence[Any]) -> Iterator[tuple[str, list[int]]]:
        for route in self.routes:
            rows = [row for row, (taken, _) in enumerate(encoded) if taken == route]
            if rows:
                yield route, rows

    def identity(self) -> str:
        """name@version#hash of both models."""
        return f"{self.name}@1#{config_hash([model.identity() for model in self.routes.values()])}"


def _shows_pictures(conversation: Conversation) -> bool:
    if isinstance(conversation, str):
        return False
    return any(
        isinstance(part, dict) and (part.get("type") == "image" or part.get("image") is not None)
        for message in conversation
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
