"""Train a language model on any rewards, with the hacking watch.

L = GRPO (TRL) on sum_k w_k r_k(prompt, completion), the rewards named in ``rewards``
every ``watch_every`` steps: a judge that is no reward, lengths, repetition, votes, on problems set aside
``stop_on: hack``: the run ends when the rewards rise while the judge falls, and keeps the judge's best look
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from guerdon.core.catalogue import load_reward
from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.recipes._language import PRESETS, LanguageConfig, preset_for, run_language

TITLE = "A language model trained on rewards"
__all__ = ["CONFIG", "PRESETS", "RewardTerm", "RewardsConfig", "preset_for", "run"]


class RewardTerm(Config):
    """A reward of the catalogue, module:attribute, or a reward model's folder; its weight; its configuration."""

    reward: str = "rule_verifier"
    weight: float = 1.0
    set: dict[str, Any] = Field(default_factory=dict)


class RewardsConfig(LanguageConfig):
    """rewards: by name, in the catalogue or ``module:attribute``; terms: the same with weights and configuration."""

    rewards: list[str] = Field(default_factory=lambda: ["rule_verifier"])
    terms: dict[str, RewardTerm] = Field(default_factory=dict)


CONFIG = RewardsConfig


def run(config: RewardsConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train and grade in ``folder``; returns the summary, which is written there too."""
    terms = {name: RewardTerm(reward=name) for name in config.rewards} if not config.terms else config.terms
    if not terms:
        raise GuerdonError("a run needs at least one reward: rewards=[rule_verifier]")

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        return {name: (load_reward(term.reward, **term.set), term.weight) for name, term in terms.items()}

    return run_language("language", TITLE, config, folder, resume, rewards)
