"""Rewards: callables `reward(prompts, completions, **columns) -> list[float | None]`, and their algebra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.rewards.model import ModelReward

__all__ = ["load"]


def load(path: str | Path, **config: Any) -> ModelReward:
    """The reward of a saved or published reward model, ``rewards.load("./my-rm")``; see `rewards.model.load`."""
    from guerdon.rewards import model  # here, so that the algebra of rewards can be imported without torch

    return model.load(path, **config)
