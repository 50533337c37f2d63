"""The image completions and prompts of a batch in the shape that an image reward needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError
from guerdon.core.images import as_tensor, to_pil


def pil_images(completions: Any) -> list[Image.Image]:
    """RGB PIL images; sizes may differ from one to the next."""
    if isinstance(completions, Tensor):
        return to_pil(completions)
    return [
        item.convert("RGB") if isinstance(item, Image.Image) else to_pil(as_tensor([item]))[0] for item in completions
    ]


def pixels(completions: Any, preprocess: Callable[[Tensor], Tensor]) -> Tensor:
    """`preprocess` of the images as one tensor [N, ...].

    A tensor goes through whole; in a list each image goes by itself, since sizes may differ before preprocessing.
    """
    if isinstance(completions, Tensor):
        return preprocess(as_tensor(completions))
    parts = [preprocess(as_tensor([item])) for item in completions]
    return torch.cat(parts) if parts else torch.zeros(0, 3, 0, 0)


def prompt_texts(prompts: Any, count: int) -> list[str]:
    """The prompts as plain texts, strings or message lists alike; GuerdonError unless there is one for each image."""
    if isinstance(prompts, str) or len(prompts) != count:
        got = "a single string" if isinstance(prompts, str) else str(len(prompts))
        raise GuerdonError(f"expected one prompt for each of the {count} images, got {got}")
    return [completion_text(prompt) for prompt in prompts]
