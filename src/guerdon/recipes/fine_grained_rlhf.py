"""Fine-Grained RLHF: Fine-Grained Human Feedback Gives Better Rewards for Language Model Training (arXiv 2306.01693).

r_t = sum over aspects k, segments j of 1(t = T_j^k) w_k R_k(x, y, j):
    relevance by sub-sentence, factuality by sentence, completeness of the whole text
against density=holistic, the baseline: the same total, paid at the end of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from guerdon.core.outcome import Failed
from guerdon.core.runs import RunFolder
from guerdon.models.scalar.backbone import quiet
from guerdon.models.step_scorer import load_step_scorer
from guerdon.recipes._language import PRESETS, LanguageConfig, preset_for, run_language
from guerdon.rewards.dense import CompositeAspects
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.rewards.text.segment import MomentScaled, SegmentReward
from guerdon.rewards.text.segment_judges import calculation_judge, news_judge

TITLE = "Fine-Grained Human Feedback Gives Better Rewards for Language Model Training"
__all__ = ["CONFIG", "PRESETS", "FineGrainedConfig", "Holistic", "aspects_of", "preset_for", "run"]


class FineGrainedConfig(LanguageConfig):
    """Weights and rewards of the three aspects; defaults are the published +-0.3 (relevance) and +-0.5 (factuality).

    density: pay each segment at its end, or the sum of all at the end of the text.

    relevance, factuality: step scorers' folders or hub ids (`guerdon.models.step_scorer`); None: rules on arithmetic,
    where a repeated segment is irrelevant and a false calculation is no fact. completeness: weight of the right final
    answer, which stands for the published preference model. right: what a segment without an error is paid, as a share
    of what an error costs: 1 as published (longer answers then earn more), 0 pays for errors only.
    The published runs are PPO with a critic, KL weight 0.3 in the reward, lambda 0.95; here GRPO's baseline by segment.
    """

    density: Literal["segments", "holistic"] = "segments"
    relevance: str | None = None
    factuality: str | None = None
    relevance_weight: float = Field(0.3, ge=0)
    factuality_weight: float = Field(0.5, ge=0)
    completeness_weight: float = Field(1.0, ge=0)
    right: float = Field(0.0, ge=0, le=1)
    trust_remote_code: bool = False


CONFIG = FineGrainedConfig


def run(config: FineGrainedConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train and grade in ``folder``; returns the summary, which is written there too."""

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        with quiet():
            aspects = aspects_of(config)
        return {"fine_grained": (aspects if config.density == "segments" else Holistic(aspects), 1.0)}

    return run_language("fine-grained-rlhf", TITLE, config, folder, resume, rewards)


def aspects_of(config: FineGrainedConfig) -> CompositeAspects:
    """The three aspects as one dense reward; an aspect of weight 0 is left out."""

    def judge(path: str | None, rule: Any) -> Any:
        return rule if path is None else load_step_scorer(path, trust_remote_code=config.trust_remote_code)

    options: dict[str, Any] = dict(right=config.right, wrong=-1.0)
    parts = {
        "relevance": (SegmentReward(judge(config.relevance, news_judge), "sub_sentence", **options),
                      config.relevance_weight),
        "factuality": (SegmentReward(judge(config.factuality, calculation_judge), "sentence", **options),
                       config.factuality_weight),
        "completeness": (MomentScaled(rule_verifier, 0.0, 1.0), config.completeness_weight),
    }  # fmt: skip
    return CompositeAspects({name: part for name, part in parts.items() if part[1]}, name="fine_grained")


class Holistic:
    """The sum of a dense reward, as an ordinary one: the same total at the end of the text."""

    on_failure = "drop_sample"
    version = "1"

    def __init__(self, reward: CompositeAspects) -> None:
        self.reward, self.groupwise, self.range = reward, reward.groupwise, None
        self.__name__ = f"holistic_{reward.__name__}"

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None | Failed]:
        """One sum a completion."""
        return self.reward(prompts, completions, **columns)

    def identity(self) -> str:
        """That of the reward inside."""
        return f"{self.__name__}@{self.version}#{self.reward.identity().rpartition('#')[2]}"
