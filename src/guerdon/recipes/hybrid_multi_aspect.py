"""HARMO, a hybrid and multi-aspect reward (arXiv 2510.05283): rules where an answer can be checked, a model elsewhere.

R_hyb = rule(x, y) where the task is verifiable, else what a model makes of y (or its similarity to a reference)
R     = R_hyb - p_max min(1, distance to the mean length of the group's right answers) + R_format
A     = R - mean of the group; no deviation is divided by
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from guerdon.core.catalogue import load_reward
from guerdon.core.runs import RunFolder
from guerdon.recipes import _language
from guerdon.recipes._kinds import with_kinds
from guerdon.recipes._language import LanguageConfig, Problems, preset_for, run_language
from guerdon.rewards.routing import logistic
from guerdon.rewards.text.answer_tags import PatternFormat, answer_format
from guerdon.rewards.text.group_length import hybrid_multi_aspect
from guerdon.rewards.text.similarity import EmbeddingSimilarityReward

TITLE = "Beyond Monolithic Rewards: A Hybrid and Multi-Aspect Reward Optimization for MLLM Alignment"
__all__ = ["CONFIG", "PRESETS", "HybridConfig", "preset_for", "run"]

BOXED = r"\\boxed\{[^{}]+\}\.?\s*$"


class HybridConfig(LanguageConfig):
    """Rows are told apart by their column ``task_type``, "verifiable" or "open"; maths problems are verifiable.

    open_share: of the embedded problems are open: paid by how alike an answer is to a worked solution, though the judge
    reads all by the rule. reward_model, scale: of open rows, a reward model's folder or hub id, whose scores go through
    1 / (1 + exp(-score / scale)); None: the similarity to the column ``reference`` by ``encoder`` (None: hashed
    n-grams). p_max, form: of the reward (UNVERIFIED). form_pattern: a regular expression that the format is; None:
    ``<think>…</think><answer>…</answer>``, of the embedded problems a box at the end.
    """

    open_share: float = Field(0.5, ge=0, le=1)
    reward_model: str | None = None
    scale: float = Field(1.0, gt=0)
    encoder: str | None = None
    p_max: float = Field(0.5, ge=0)
    form: float = Field(1.0, ge=0)
    form_pattern: str | None = None


CONFIG = HybridConfig
PRESETS: dict[str, dict[str, Any]] = {
    name: {**given, "training": {**given["training"], "scale_rewards": "none"}}
    for name, given in _language.PRESETS.items()
}


def run(config: HybridConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train on the routed reward and grade by the judge in ``folder``; returns the summary, written there too."""
    embedded = config.data is None

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        pattern = config.form_pattern or (BOXED if embedded else None)
        opened = load_reward(config.reward_model) if config.reward_model else EmbeddingSimilarityReward(config.encoder)
        made = hybrid_multi_aspect(
            open_ended=opened, calibrator=logistic(config.scale) if config.reward_model else None, p_max=config.p_max,
            form=config.form, form_reward=answer_format if pattern is None else PatternFormat(pattern),
        )  # fmt: skip
        return {"hybrid": (made, 1.0)}

    def rows(problems: Problems) -> Problems:
        share = config.open_share if embedded else 0.0
        return with_kinds(
            problems, "task_type", {"open": "reference", "verifiable": "solution"}, share=share, otherwise="verifiable"
        )

    return run_language("hybrid-multi-aspect", TITLE, config, folder, resume, rewards, rows=rows)
