"""Co-Reward (arXiv 2508.00410): a question is asked in two wordings, and each answers for the other.

y(q)  = majority of the answers to q' (its rewrite),   y(q') = majority of those to q
r(o)  = 1 where the answer of o is the other wording's label; no solution is read
A     = group-relative, each wording by itself
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.curation.rephrase import rephrase
from guerdon.recipes._judges import chat_of
from guerdon.recipes._language import PRESETS, LanguageConfig, Problems, preset_for, run_language
from guerdon.rewards.text.agreement import CrossViewReward, MajorityVoteReward
from guerdon.trainers.paired_views import paired_rows

TITLE = "Co-Reward: Self-supervised Reinforcement Learning for LLM Reasoning via Contrastive Agreement"
__all__ = ["CONFIG", "PRESETS", "CoRewardConfig", "preset_for", "run"]

Row = dict[str, Any]


class CoRewardConfig(LanguageConfig):
    """rephraser: a chat model that words each problem again (a folder, a hub id, or MODEL@URL); the embedded problems
    have a second wording already. reward: "cross_view", or "majority_vote" of a wording's own answers, the
    baseline."""

    rephraser: str | None = None
    reward: Literal["cross_view", "majority_vote"] = "cross_view"


CONFIG = CoRewardConfig


def run(config: CoRewardConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train on agreement and grade by the judge in ``folder``; returns the summary, which is written there too."""
    if config.data is not None and config.rephraser is None:
        raise GuerdonError("co-reward asks each problem in two wordings: name a rephraser for data of your own")

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        reward = CrossViewReward() if config.reward == "cross_view" else MajorityVoteReward()
        return {config.reward: (reward, 1.0)}

    def rows(problems: Problems) -> Problems:
        return replace(
            problems, train=_paired(problems.train, config, folder, "train"),
            watched=_paired(problems.watched, config, folder, "watched"),
        )  # fmt: skip

    return run_language("co-reward", TITLE, config, folder, resume, rewards, rows=rows, views=2)


def _paired(rows: list[Row], config: CoRewardConfig, folder: RunFolder, name: str) -> list[Row]:
    """Both wordings of each problem, one after the other; what a rephraser wrote is kept for a run that goes on."""
    if config.rephraser is None:
        return paired_rows(rows, [{**row, "prompt": _asked(row, row["paraphrase"])} for row in rows])
    if not folder.stage_done(f"rephrased-{name}"):
        made = rephrase(
            [{**row, "question": row["prompt"][-1]["content"]} for row in rows], chat_of(config.rephraser),
            seed=config.seed,
        )  # fmt: skip
        if not made.originals:
            why = ", ".join(f"{reason}: {count}" for reason, count in made.dropped.items())
            raise GuerdonError(f"{config.rephraser} gave no wording that could be used ({why})")
        folder.mark_done(f"rephrased-{name}", [made.originals, made.rewrites])
    originals, rewrites = folder.stage_result(f"rephrased-{name}")
    return paired_rows(originals, [{**row, "prompt": _asked(row, row["question"])} for row in rewrites])


def _asked(row: Row, text: str) -> list[dict[str, Any]]:
    return [*row["prompt"][:-1], {**row["prompt"][-1], "content": text}]
