"""Self-Aligned Reward: Towards Effective and Efficient Reasoners (arXiv 2509.05489).

R_SA = clip(1 - ppl(a | q) / ppl(a), -1, 1)    by the policy itself
R    = R_VR + alpha R_SA,   A = R - mean of the group (no division by its deviation)
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from guerdon.core.runs import RunFolder
from guerdon.recipes._language import PRESETS as LANGUAGE
from guerdon.recipes._language import LanguageConfig, preset_for, run_language
from guerdon.rewards.text.self_aligned import SelfAlignedReward

TITLE = "Self-Aligned Reward: Towards Effective and Efficient Reasoners"
__all__ = ["CONFIG", "PRESETS", "SelfAlignedConfig", "preset_for", "run"]


class SelfAlignedConfig(LanguageConfig):
    """alpha: what the policy's own reward weighs beside the verifier's; 0 trains on the verifier alone."""

    alpha: float = Field(0.2, ge=0)


CONFIG = SelfAlignedConfig
PRESETS: dict[str, dict[str, Any]] = {
    name: {**preset, "training": {**preset["training"], "scale_rewards": "none", "loss_type": "dr_grpo"}}
    for name, preset in LANGUAGE.items()
}


def run(config: SelfAlignedConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train and grade in ``folder``; returns the summary, which is written there too."""

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        return {"self_aligned": (SelfAlignedReward(alpha=config.alpha), 1.0)}

    return run_language("self-aligned-reward", TITLE, config, folder, resume, rewards)
