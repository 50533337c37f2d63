"""One way to ask any image scorer - a reward or a plain function - for the scores of a batch of images."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import name_of
from guerdon.core.outcome import Failed

__all__ = ["ImageScorer", "score_images"]

ImageScorer: TypeAlias = Callable[..., Any]
"""Either ``f(images)`` or a reward ``f(prompts, completions)``; images are a float tensor [N, 3, H, W] in [0, 1]."""


def _is_reward(scorer: ImageScorer) -> bool:
    try:
        return {"prompts", "completions"} <= set(inspect.signature(scorer).parameters)
    except (TypeError, ValueError):
        return False


async def _awaited(pending: Awaitable[Any]) -> Any:
    return await pending


@torch.no_grad()
def score_images(
    scorer: ImageScorer,
    images: Tensor,
    prompts: Sequence[str],
    *,
    name: str | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> list[float | Failed]:
    """Scores of ``images`` [N, 3, H, W] in [0, 1] as N floats, with Failed where the scorer gave None or Failed.

    Raises GuerdonError when the scorer returns another number of scores, or one that is not a finite number in
    ``bounds``: a broken scorer must not pass for a low score.
    """
    called = name or name_of(scorer)
    returned = scorer(prompts=list(prompts), completions=images) if _is_reward(scorer) else scorer(images)
    if inspect.isawaitable(returned):
        returned = asyncio.run(_awaited(returned))
    values = returned.detach().flatten().tolist() if isinstance(returned, Tensor) else list(returned)
    if len(values) != len(images):
        raise GuerdonError(f"{called} returned {len(values)} scores for {len(images)} images")
    scores: list[float | Failed] = []
    for index, value in enumerate(values):
        if value is None:
            scores.append(Failed(cause=f"{called} does not apply", kind="not_applicable"))
            continue
        if isinstance(value, Failed):
            scores.append(value)
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise GuerdonError(f"{called} returned {value!r} for image {index}; want a number") from None
        if not math.isfinite(number) or not bounds[0] <= number <= bounds[1]:
            limits = "finite" if math.isinf(bounds[0]) else f"in [{bounds[0]:g}, {bounds[1]:g}]"
            raise GuerdonError(f"{called} returned {number} for image {index}; scores must be {limits}")
        scores.append(number)
    return scores
