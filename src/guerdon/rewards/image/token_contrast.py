"""A vision-language model as a reward: how much more the next token says "real" than "fake"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash
from guerdon.models.vision_language import VisionLanguageModel
from guerdon.rewards.image.completions import pil_images

Reduce = Literal["mean_logit", "logsumexp", "max"]
REALISM_PROMPT = (
    "Look closely at the picture above and examine it for traces of synthesis. "
    "Then judge whether a camera took it or a model made it: is it a real photograph or an AI-generated image? "
    "Begin your reply with one word, which has to be 'real' or 'fake'."
)


def token_contrast(
    logits: Tensor, positive: Sequence[int], negative: Sequence[int], reduce: Reduce = "mean_logit"
) -> Tensor:
    """P(positive) = sigmoid(r - f), r and f the reduced logits of the positive and negative tokens.

    Args:
        logits: [..., vocabulary], unnormalised.
        positive, negative: token ids, at least one each.
        reduce: "mean_logit" averages raw logits (a geometric mean of probabilities; the published choice), "logsumexp"
            adds probabilities, "max" takes the likeliest spelling.
    Returns:
        [...] in [0, 1].
    Source: RealGen, semantic detector (Forensic-Chat). Positive logits (4, 1), negative (2, 1): 0.7311, 0.8501, 0.8808.
    """
    if not positive or not negative:
        raise GuerdonError("token_contrast needs at least one positive and one negative token")

    def reduced(ids: Sequence[int]) -> Tensor:
        chosen = logits[..., list(ids)].float()
        if reduce == "mean_logit":
            return chosen.mean(-1)
        if reduce == "logsumexp":
            return chosen.logsumexp(-1)
        if reduce == "max":
            return chosen.amax(-1)
        raise GuerdonError(f"reduce must be 'mean_logit', 'logsumexp' or 'max', got {reduce!r}")

    return torch.sigmoid(reduced(positive) - reduced(negative))


class TokenContrastScorer:
    """Reward in [0, 1] of each image: P(positive word) against the negative ones as the model's first answer token.

    `model` is a transformers image-text-to-text model with its `processor`, or a hub id or folder (then loaded at the
    first call). One image a forward, so a picture's score never depends on its batch. Every word has to be a single
    vocabulary entry. The prompt's published wording is not licensed for copying; the default is our own, with the same
    three clauses, so a fine-tuned detector should be given the prompt that it was trained with.
    Source: RealGen V1, semantic detector; hub id of its weights: lokiz666/Realgen-detection-models.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "raise"
    version = "1"

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        prompt: str = REALISM_PROMPT,
        positive: Sequence[str] = ("real", "Real"),
        negative: Sequence[str] = ("fake", "Fake"),
        reduce: Reduce = "mean_logit",
        name: str = "token_contrast",
        **loading: Any,
    ) -> None:
        if reduce not in ("mean_logit", "logsumexp", "max"):
            raise GuerdonError(f"reduce must be 'mean_logit', 'logsumexp' or 'max', got {reduce!r}")
        if not positive or not negative:
            raise GuerdonError("token_contrast needs at least one positive and one negative word")
        self.__name__ = name
        self._source, self._processor, self._loading = model, processor, loading
        self.prompt, self.positive, self.negative, self.reduce = prompt, tuple(positive), tuple(negative), reduce
        if not isinstance(model, str):
            self.token_ids  # noqa: B018 - a word that is no single token is an error now, not in the first training step

    @cached_property
    def vlm(self) -> VisionLanguageModel:
        return VisionLanguageModel.of(self._source, self._processor, **self._loading)

    @cached_property
    def token_ids(self) -> tuple[list[int], list[int]]:
        return self.vlm.single_tokens(self.positive), self.vlm.single_tokens(self.negative)

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        """One score in [0, 1] an image; `prompts` are not looked at."""
        positive, negative = self.token_ids
        return [
            float(token_contrast(self.vlm.next_token_logits(image, self.prompt), positive, negative, self.reduce))
            for image in pil_images(completions)
        ]

    @cached_property
    def _identity(self) -> str:
        config = [self.prompt, self.positive, self.negative, self.reduce]
        return f"{self.__name__}@{self.version}#{config_hash(config, self.vlm.model.state_dict())}"

    def identity(self) -> str:
        """Name, version and a hash of prompt, words and weights."""
        return self._identity
