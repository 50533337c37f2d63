from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from guerdon.benchmarks.image_scores import score_images
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed


def brightness(images: torch.Tensor) -> torch.Tensor:
    return images.mean((1, 2, 3))


def images() -> torch.Tensor:
    return torch.tensor([0.2, 0.8]).view(2, 1, 1, 1).expand(2, 3, 4, 4)


def test_functions_rewards_partials_and_async_rewards() -> None:
    def reward(prompts: list[str], completions: torch.Tensor, **columns: Any) -> list[float]:
        return [len(p) * float(c.mean()) for p, c in zip(prompts, completions, strict=True)]

    async def patient(prompts: list[str], completions: torch.Tensor, **columns: Any) -> list[float]:
        return reward(prompts, completions)

    class Stateful:
        __name__ = "stateful"

        def __call__(self, prompts: list[str], completions: torch.Tensor) -> list[float]:
            return reward(prompts, completions)

    assert score_images(brightness, images(), ["", ""]) == pytest.approx([0.2, 0.8])
    for scorer in (reward, functools.partial(reward, extra=1), patient, Stateful()):
        assert score_images(scorer, images(), ["a", "bc"]) == pytest.approx([0.2, 1.6])


def test_failures_stay_failures() -> None:
    found = score_images(lambda x: [None, Failed("no face", "face")], images(), ["", ""])
    assert [f.kind for f in found if isinstance(f, Failed)] == ["not_applicable", "face"]


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ([0.5], "picky returned 1 scores for 2 images"),
        ([0.5, float("nan")], r"picky returned nan for image 1; scores must be in \[0, 1\]"),
        ([1.5, 0.5], r"picky returned 1.5 for image 0; scores must be in \[0, 1\]"),
        (["high", 0.5], "picky returned 'high' for image 0; want a number"),
    ],
)
def test_a_broken_scorer_is_named(returned: list[Any], says: str) -> None:
    with pytest.raises(GuerdonError, match=says):
        score_images(lambda x: returned, images(), ["", ""], name="picky", bounds=(0.0, 1.0))
