"""The Climb Carves Wisdom Deeper Than the Summit (arXiv 2505.22653): how much noise does a reward stand?

r~ = 1 - r with probability p, one draw a question          (reward: flipped)
r~ = number of reasoning phrases / 40 - repetition            (reward: patterns)
A   = group-relative advantages of r~; the judge sees r, never r~
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from guerdon.core.runs import RunFolder
from guerdon.recipes._language import PRESETS, LanguageConfig, preset_for, run_language
from guerdon.rewards.noise import NoisyReward
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.rewards.text.reasoning_patterns import PhrasePatternReward

TITLE = "The Climb Carves Wisdom Deeper Than the Summit: On the Noisy Rewards in Learning to Reason"
__all__ = ["CONFIG", "PRESETS", "NoisyRewardsConfig", "preset_for", "run"]


class NoisyRewardsConfig(LanguageConfig):
    """p: probability that the verifier's word on a question is turned round. reward: "flipped", the verifier with that
    noise; "patterns", reasoning phrases alone (the paper's RPR), which never looks at the answer."""

    p: float = Field(0.4, ge=0, le=1)
    reward: Literal["flipped", "patterns"] = "flipped"


CONFIG = NoisyRewardsConfig


def run(config: NoisyRewardsConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train on the noisy reward and grade without noise in ``folder``; returns the summary, written there too."""

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        if config.reward == "patterns":
            return {"patterns": (PhrasePatternReward(), 1.0)}
        return {"flipped": (NoisyReward(rule_verifier, config.p, seed=config.seed), 1.0)}

    return run_language("noisy-rewards-rpr", TITLE, config, folder, resume, rewards)
