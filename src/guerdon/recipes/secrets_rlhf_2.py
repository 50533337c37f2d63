"""Secrets of RLHF in Large Language Models Part II: Reward Modeling (arXiv 2401.06080).

    train M reward models on the same pairs in different orders, one epoch each               (ensemble_strength)
    strength of a pair: mean over the models of r(chosen) - r(rejected)
    relabel: flip the weakest, soften those below 0, margin = strength                        (relabel)
    train one more on the relabelled pairs; by option with a contrastive loss over two dropout views, or with MetaRM's
    step on unlabelled answers of the policy as it is now

Data that carry the strength of a published ensemble (fnlp/hh-rlhf-strength-cleaned) are used as they are with
``strength=columns``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from guerdon.core.config import Config
from guerdon.core.data import load_rows
from guerdon.core.dialogues import ASKING, embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, as_messages, split_by_prompt
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.curation.relabel import FLIPPED, Strategy, relabel
from guerdon.curation.strength import Strength, by_strength, ensemble_strength, load_strength_pairs
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.objectives.meta_reward import difference_loss
from guerdon.recipes._reward_model import (
    Closing,
    Data,
    RewardModelConfig,
    close,
    load_data,
    make_model,
    preset_for,
    train,
    train_quietly,
)
from guerdon.trainers.dropout_views import set_dropout, two_view_loss
from guerdon.trainers.meta_reward import MetaRMStep
from guerdon.trainers.pair_batches import PairBatch
from guerdon.trainers.preference import PreferenceConfig

TITLE = "Secrets of RLHF in Large Language Models Part II: Reward Modeling"
__all__ = ["CONFIG", "PRESETS", "SecretsConfig", "preset_for", "run"]


class MetaConfig(Config):
    """MetaRM: look at unlabelled answers of the policy as it is now before each step (`MetaRMStep`).

    data: rows with "prompt" and "completions", a list of at least two answers. prompts: of them a step. eta: length of
    the ascent, not printed (UNVERIFIED), so without a default. order, keep_ascent, added: variants; which direction
    helps is in doubt, see `guerdon claim secrets-rlhf-2`.
    """

    data: str
    eta: float
    prompts: int = Field(8, ge=1)
    order: Literal["first", "second"] = "first"
    keep_ascent: bool = False
    added: bool = False


class SecretsConfig(RewardModelConfig):
    """The defaults are the paper's: 10 models, soft labels below 0 and margins (figure 8's most stable), lr 5e-6.

    strength: "measure" trains the ensemble, "columns" reads the strength that the data carry. quantile, threshold,
    alpha: of `relabel`; its own defaults where None. alpha is UNVERIFIED (see there). contrastive: SimCSE between two
    dropout views, on "pairs" (the paper's best) or "diff"; dropout: its rate. meta: MetaRM's step, see `MetaConfig`.
    """

    preset: Literal["tiny", "published"] = "published"
    members: int = Field(10, ge=2)
    strength: Literal["measure", "columns"] = "measure"
    relabel: Strategy = "soft+margin"
    quantile: float | None = Field(None, gt=0, lt=1)
    threshold: float | None = None
    alpha: float = Field(0.2, ge=0, le=0.5)
    contrastive: Literal["none", "pairs", "diff"] = "none"
    dropout: float = Field(0.05, gt=0, lt=1)
    meta: MetaConfig | None = None
    training: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(learning_rate=5e-6, batch_size=32, epochs=1)
    )


CONFIG = SecretsConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "members": 5,
        "training": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=4).model_dump(),
    },
}


def run(config: SecretsConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Measure strength, relabel, train and grade in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    data = _data(config, folder)
    strength = Strength.of_pairs(data.train) if config.strength == "columns" else _measured(config, data.train, folder)
    changed = relabel(
        data.train, strength.mean, strategy=config.relabel, quantile=config.quantile, threshold=config.threshold,
        alpha=config.alpha,
    )  # fmt: skip
    model = make_model(config, data.train)
    train(model, Data(changed, data.held), config, folder, resume, **_hooks(config, model))
    flipped = float(np.mean([bool(pair.row.get(FLIPPED)) for pair in changed]))
    closing = Closing(tables=[_strength_table(data.train, strength)], figures={"flipped": flipped})
    return close("secrets-rlhf-2", TITLE, config, folder, model, data, started, closing)


def _hooks(config: SecretsConfig, model: ScalarRewardModel) -> dict[str, Any]:
    """What takes the place of the plain step: the contrastive objective, or MetaRM's step."""
    if config.contrastive != "none" and config.meta is not None:
        raise GuerdonError("contrastive and meta are each a step of its own; give one of them")
    mode = config.contrastive
    if mode != "none":
        set_dropout(model, config.dropout)

        def views(passes: Any, batch: PairBatch) -> Tensor:
            return two_view_loss(passes, kind="simcse", mode=mode, margin=batch.margin, label_smoothing=batch.smoothing)

        return {"objective": views}
    return {} if config.meta is None else {"step": _meta_step(config.meta)}


def _meta_step(config: MetaConfig) -> Any:
    rows = load_rows(config.data, required=("prompt", "completions"))
    groups = [
        [[*as_messages(row["prompt"]), *as_messages(answer, "assistant")] for answer in row["completions"]]
        for row in rows
    ]
    few = next((number for number, group in enumerate(groups) if len(group) < 2), None)
    if few is not None:
        raise GuerdonError(f"{config.data}: row {few} has {len(groups[few])} completions; MetaRM compares at least 2")
    step = MetaRMStep(eta=config.eta, order=config.order, keep_ascent=config.keep_ascent, added=config.added)

    def hook(model: ScalarRewardModel, loss: Any) -> dict[str, float]:
        # torch's own generator: its state is in the checkpoints, so a resumed run draws the same prompts.
        drawn = torch.randint(len(groups), (config.prompts,)).tolist()

        def difference(moved: Any) -> Tensor:
            found = []
            for place in drawn:
                given = moved.batch([moved.encode(one) for one in groups[place]])
                found.append(difference_loss(moved(**given)))
            return torch.stack(found).mean()

        seen = step(model, loss, difference)
        return {"difference": float(seen.difference)}

    return hook


def _data(config: SecretsConfig, folder: RunFolder) -> Data:
    if config.strength == "columns" and config.data is not None:
        # The published set lists its turns as plain strings, which only its own loader knows how to read.
        pairs = load_strength_pairs(config.data, skip_bad_rows=config.skip_bad_rows, limit=config.limit)
        if config.validation is not None:
            return Data(pairs, load_strength_pairs(config.validation, skip_bad_rows=config.skip_bad_rows))
        return Data(*split_by_prompt(pairs, config.held_out, seed=config.seed))
    return load_data(config, folder, _embedded)


def _embedded(seed: int) -> Data:
    """A quarter of the labels wrong, so that there is something to find; the held-out ones are right."""
    train_pairs = embedded_pairs(1500, seed, noise=0.25, asking=ASKING[:3])
    return Data(train_pairs, embedded_pairs(300, seed + 1, asking=ASKING[3:]))


def _measured(config: SecretsConfig, pairs: Sequence[Pair], folder: RunFolder) -> Strength:
    def member(shuffled: Sequence[Pair], seed: int) -> ScalarRewardModel:
        # One pass at most: in a second one a model learns wrong labels by heart and agrees with them.
        return train_quietly(make_model(config, pairs), shuffled, config, epochs=1, seed=seed, shuffle=False)

    return ensemble_strength(pairs, member, members=config.members, seed=config.seed, folder=folder, progress=progress)


def _strength_table(pairs: Sequence[Pair], strength: Strength) -> dict[str, Any]:
    """Pairs by decile of strength; where the truth is known, how many labels of each are wrong."""
    truth = [pair.row.get("truth") for pair in pairs]
    known = all(value in (1, -1) for value in truth)
    outcome = np.array([value == -1 for value in truth], dtype=float) if known else strength.mean < 0
    rows = [
        [str(place + 1), f"{one.mean:+.3f}", f"{one.std:.3f}", f"{one.outcome:.2f}"]
        for place, one in enumerate(by_strength(strength.mean, strength.std, outcome))
    ]
    last = "labels that are wrong" if known else "share below 0"
    return {
        "title": "Strength of the preferences, by decile",
        "note": "Mean over the ensemble of r(chosen) - r(rejected), weakest tenth first; deviation over its members.",
        "columns": ["decile", "strength", "deviation", last],
        "rows": rows,
    }
