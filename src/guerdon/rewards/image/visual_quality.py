"""A reasoning vision-language judge that rates visual quality from 1 to 5 (VisualQuality-R1 style)."""

from __future__ import annotations

import math
import re
from functools import cached_property
from typing import Any

from guerdon.core.answer import parse_answer
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.models.vision_language import VisionLanguageModel
from guerdon.rewards.image.completions import pil_images

QUALITY_PROMPT = (
    "How good is the visual quality of this picture? Rate it by a decimal number from 1 to 5, rounded to two decimals: "
    "1.00 stands for very poor and 5.00 for excellent quality. Write your reasoning between <think> and </think>, and "
    "after it nothing but the number between <answer> and </answer>."
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")


def parse_quality(text: str) -> float | Failed:
    """The first number in the last `<answer>` span, clamped to [1, 5], or `Failed` of kind "unparseable".

    Deviation: the published scorer pays 1.0, the worst rating, for a reply that it cannot parse.
    Source: RealGen V2, VisualQuality-R1.
    """
    answer = parse_answer(text)
    found = None if answer is None else _NUMBER.search(answer)
    if found is None:
        reason = "no closed <answer> span" if answer is None else f"no number in the answer '{answer[:80]}'"
        return Failed(f"the quality judge's reply has {reason}", kind="unparseable")
    value = float(found.group())
    if not math.isfinite(value):  # a run of digits too long for a float
        return Failed("the quality judge's number is not finite", kind="unparseable")
    return min(5.0, max(1.0, value))


class VisualQuality:
    """Reward in [1, 5]: the rating that a vision-language judge writes about each image.

    `model` is a transformers image-text-to-text model with its `processor`, or a hub id (default weights of RealGen V2:
    TianheWu/VisualQuality-R1-7B). The prompt is in our own words; a fine-tuned judge does best with that of its card.
    Deviation: decoding is greedy, so that the same image gets the same score; the published scorer samples (top-k 50),
    which `generation={"do_sample": True, "top_k": 50}` restores. A reply that cannot be parsed is `Failed`.
    """

    groupwise = False
    range = (1.0, 5.0)
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        model: Any = "TianheWu/VisualQuality-R1-7B",
        processor: Any = None,
        *,
        prompt: str = QUALITY_PROMPT,
        max_new_tokens: int = 512,
        generation: dict[str, Any] | None = None,
        name: str = "visual_quality",
        **loading: Any,
    ) -> None:
        self.__name__ = name
        self._source, self._processor, self._loading = model, processor, loading
        self.prompt, self.max_new_tokens, self.generation = prompt, max_new_tokens, dict(generation or {})

    @cached_property
    def vlm(self) -> VisionLanguageModel:
        return VisionLanguageModel.of(self._source, self._processor, **self._loading)

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | Failed]:
        """One rating in [1, 5] or `Failed` an image; `prompts` are not looked at."""
        return [
            parse_quality(self.vlm.answer(image, self.prompt, max_new_tokens=self.max_new_tokens, **self.generation))
            for image in pil_images(completions)
        ]

    @cached_property
    def _identity(self) -> str:
        config = [self.prompt, self.max_new_tokens, self.generation]
        return f"{self.__name__}@{self.version}#{config_hash(config, self.vlm.model.state_dict())}"

    def identity(self) -> str:
        """Name, version and a hash of prompt, decoding options and weights."""
        return self._identity
