"""BaseReward: A Strong Baseline for Multimodal Reward Model (arXiv 2509.16127).

    a vision-language backbone without its language head + a two-layer SiLU reward head
    plain Bradley-Terry loss on text and image pairs together; no length normalisation, no centring
    by option: the study itself, one model for each head or regulariser with everything else equal      (ablate)

Text-only data get a text backbone: multimodal pairs did not help a text reward model in the paper, so prompts are
routed by what they show (`guerdon.models.scalar.ensemble.RoutedReward`).
"""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
from pydantic import Field

from guerdon.benchmarks.pairs import grade, score_pairs, table
from guerdon.core.dialogues import ASKING, embedded_image_pairs, embedded_pairs
from guerdon.core.runs import RunFolder
from guerdon.models.scalar.head import HeadConfig
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
from guerdon.trainers.preference import PreferenceConfig

TITLE = "BaseReward: A Strong Baseline for Multimodal Reward Model"
__all__ = ["CONFIG", "PRESETS", "BaseRewardConfig", "preset_for", "run"]

GRIDS: dict[str, dict[str, dict[str, Any]]] = {
    "heads": {
        "1 layer": {"head": {"num_layers": 1}},
        "2 layers, no activation": {"head": {"num_layers": 2, "activation": None}},
        "2 layers, tanh": {"head": {"num_layers": 2, "activation": "tanh"}},
        "2 layers, SiLU": {"head": {"num_layers": 2, "activation": "silu"}},
        "3 layers, SiLU": {"head": {"num_layers": 3, "activation": "silu"}},
        "5 layers, SiLU": {"head": {"num_layers": 5, "activation": "silu"}},
    },
    "regularisers": {
        "none": {},
        **{f"centring {weight:g}": {"training": {"centre": weight}} for weight in (1e-3, 1e-2, 1e-1)},
        "length normalised": {"training": {"length_norm": "log"}},
    },
}


class BaseRewardConfig(RewardModelConfig):
    """The defaults are the paper's: two-layer SiLU head, lr 3e-6, batch 128. Epochs, schedule, warm-up, pooling and
    head width are UNVERIFIED: one epoch, cosine, the last token, the backbone's width.

    ablate: besides the model, train one for each entry of a grid of the paper's study and compare them.
    """

    preset: Literal["tiny", "published"] = "published"
    ablate: Literal["none", "heads", "regularisers"] = "none"
    head: HeadConfig = Field(default_factory=lambda: HeadConfig(num_layers=2, activation="silu"))
    training: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(learning_rate=3e-6, batch_size=128, epochs=1, schedule="cosine")
    )


CONFIG = BaseRewardConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {"training": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=4).model_dump()},
}


def run(config: BaseRewardConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train and grade in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    data = load_data(config, folder, _embedded)
    model = make_model(config, data.train)
    train(model, data, config, folder, resume)
    closing = Closing(tables=[_grid(config, data, folder)] if config.ablate != "none" else [])
    return close("basereward", TITLE, config, folder, model, data, started, closing)


def _embedded(seed: int) -> Data:
    """Image and text pairs in equal parts."""
    train_pairs = [*embedded_image_pairs(600, seed), *embedded_pairs(600, seed, asking=ASKING[:3])]
    held = [*embedded_image_pairs(150, seed + 1), *embedded_pairs(150, seed + 1, asking=ASKING[3:])]
    return Data(train_pairs, held)


def _grid(config: BaseRewardConfig, data: Data, folder: RunFolder) -> dict[str, Any]:
    """One model an entry, the same data, steps and seed; each entry is kept, so that a resumed run repeats none."""
    scores = {}
    for number, (name, changes) in enumerate(GRIDS[config.ablate].items()):
        stage = f"ablate-{config.ablate}-{number}"
        if not folder.stage_done(stage):
            varied = _varied(config, changes)
            fitted = train_quietly(make_model(varied, data.train), data.train, varied)
            chosen, rejected = score_pairs(fitted, data.held)
            folder.mark_done(stage, {"chosen": chosen.tolist(), "rejected": rejected.tolist()})
        kept = folder.stage_result(stage)
        scores[name] = (np.asarray(kept["chosen"]), np.asarray(kept["rejected"]))
    shown = table(grade(scores, data.held, seed=config.seed), len(data.held))
    return {**shown, "title": f"The study: {config.ablate}"}


def _varied(config: BaseRewardConfig, changes: dict[str, dict[str, Any]]) -> BaseRewardConfig:
    made = config.model_dump()
    for group, values in changes.items():
        made[group] = {**made[group], **values}
    return BaseRewardConfig(**made)
