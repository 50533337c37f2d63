"""Follow-up likelihood as reward (arXiv 2409.13948): a response is as good as what a user would say next is kind.

FLR(c, y) = mean log p(praise | c, y) - mean log p(complaint | c, y), nats a token, by a language model; no labels
method dpo | kto | sft:  k samples a prompt, the highest against the lowest by FLR, then tuning on them
method grpo:             group-relative policy optimisation on FLR itself
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.curation.reacting_users import COMPLAINT, ITEMS, PRAISE, dialogue, order_row, served
from guerdon.curation.reward_pairs import Strategy
from guerdon.models.follow_up import ConversationFormatter
from guerdon.recipes import _language
from guerdon.recipes._language import preset_for, run_language
from guerdon.recipes._made_world import MadeConfig, made_world
from guerdon.recipes._mined import Mining, train_on_mined
from guerdon.rewards.text.follow_up import FollowUpLikelihoodReward, load
from guerdon.rewards.text.follow_up_sets import DEFAULT_SETS, FollowUpSet, load_sets
from guerdon.trainers.language import train_language
from guerdon.trainers.language_watch import answer_ids
from guerdon.trainers.warm_start import Example, warm_start

TELLS = 0.8  # below this the embedded scorer has not left the plateau that its training begins with
TITLE = "Aligning Language Models Using Follow-up Likelihood as Reward Signal"
__all__ = ["CONFIG", "PRESETS", "FollowUpConfig", "preset_for", "run", "scored_by"]


class FollowUpConfig(MadeConfig):
    """scorer: the language model whose belief is the reward, a folder or hub id; None: ``model`` as it is before
    training, for the embedded orders one that is taught dialogues with reactions (scorer_steps, scorer_rows).

    follow_ups: a YAML file of sets; None: six of our own, for the embedded orders the reactions of its guests.
    method: on pairs mined once, or "grpo". k, strategy, margin, threshold: of the mining. tuning_beta, sft_weight,
    epochs: of the tuning (UNVERIFIED; `guerdon.recipes._mined.Mining`). judge: rows of one's own without a
    ``reference`` need another.
    """

    layout: Literal["math", "rows"] = "rows"
    judge: str = "reference_match"
    problems: int = Field(300, ge=2)
    scorer: str | None = None
    scorer_steps: int = Field(600, ge=1)
    scorer_rows: int = Field(16_000, ge=1)
    follow_ups: str | None = None
    method: Literal["dpo", "kto", "sft", "grpo"] = "dpo"
    k: int = Field(8, ge=2)
    strategy: Strategy = "max_min"
    margin: float = Field(0.0, ge=0)
    threshold: float | None = None
    tuning_beta: float = Field(0.1, gt=0)
    sft_weight: float = Field(0.0, ge=0)
    epochs: int = Field(2, ge=1)


CONFIG = FollowUpConfig
PRESETS: dict[str, dict[str, Any]] = {
    name: {**given, "training": {**given["training"], "max_completion_length": length, "temperature": 0.7}}
    for (name, given), length in zip(_language.PRESETS.items(), (2048, 24), strict=True)
}
# Direct preference optimisation alone broke three of five embedded policies: both sides of a pair became unlikely.
PRESETS["tiny"]["sft_weight"] = 1.0


def run(config: FollowUpConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Tune by follow-ups and grade by the judge in ``folder``; returns the summary, which is written there too."""

    notes: list[str] = []

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        reward = scored_by(config, folder.path)
        if config.data is None and config.scorer is None:
            apart = told_apart(reward, config.seed)
            notes.append(f"the reward puts a right response above a wrong one in {apart:.0%} of new orders")
            if config.model is None and apart < TELLS:
                raise GuerdonError(f"{notes[-1]}: too few to tune on; raise scorer_steps from {config.scorer_steps}")
        return {"follow_up": (reward, 1.0)}

    train: Any = train_language
    if config.method != "grpo":
        mining = Mining(
            config.method, config.k, config.strategy, config.margin, config.threshold, config.tuning_beta,
            config.sft_weight, config.epochs,
        )  # fmt: skip
        train = partial(train_on_mined, mining=mining)
    world = made_world(order_row, said=_brought, hidden=64)
    return run_language(
        "follow-up-likelihood", TITLE, config, folder, resume, rewards, world=world, train=train, notes=notes
    )


def scored_by(config: FollowUpConfig, folder: Path) -> FollowUpLikelihoodReward:
    """The reward of the configuration; a scorer that is taught is kept in ``folder``."""
    sets = load_sets(config.follow_ups) if config.follow_ups else DEFAULT_SETS
    if config.scorer or config.model:
        return load(str(config.scorer or config.model), sets=sets)
    if config.data is not None:
        raise GuerdonError("data of one's own needs a language model that judges: --set scorer=FOLDER, or --model")
    rng = np.random.default_rng(0)
    told = [dialogue(rng) for _ in range(config.scorer_rows)]
    rows = [(turns, reaction) for _, turns, reaction in told]
    model, tokenizer = warm_start(
        rows, folder / "scorer", steps=config.scorer_steps, batch=64, hidden=64, seed=1, encode=_from_the_response
    )
    own = (FollowUpSet("pleased", PRAISE, COMPLAINT),)
    return FollowUpLikelihoodReward(model, tokenizer, sets if config.follow_ups else own)


def told_apart(reward: FollowUpLikelihoodReward, seed: int, orders: int = 100) -> float:
    """Share of new orders whose right response the reward puts above a wrong one; 0.5 by chance."""
    rng = np.random.default_rng([seed, 3])
    prompts, said = [], []
    for _ in range(orders):
        row, _ = order_row(rng)
        wrong = str(rng.choice([one for one in ITEMS if one != row["solution"]]))
        prompts += [row["prompt"]] * 2
        said += [row["reference"], served(wrong)]
    scores = np.array(reward(prompts, said), float).reshape(-1, 2)
    return float((scores[:, 0] > scores[:, 1]).mean())


def _brought(text: str) -> str | None:
    return next((item for item in ITEMS if text == served(item)), None)


def _from_the_response(tokenizer: Any, turns: Any, reaction: str) -> Example:
    """The response is learnt with the reaction: without it, so small a model never relates the two."""
    before, (said,) = ConversationFormatter(tokenizer).encode(turns[:-1], turns[-1]["content"], [reaction])
    return [*before, *said, tokenizer.eos_token_id], len(answer_ids(tokenizer, turns[:-1]))
