"""InternLM-XComposer2.5-Reward: A Simple Yet Effective Multi-Modal Reward Model (arXiv 2501.12368).

    drop insane rows, and pairs whose chosen answer is much longer than the rejected one      (curation.sanity, length)
    vision-language backbone, vision tower and projector frozen, score head; Bradley-Terry loss
    batches are all-multimodal or all-text, two of the one then one of the other
    use it: the rows of a data set that it rates lowest are flagged                           (curation.flagging)

As a signal for PPO, GRPO and best-of-n the saved model is an ordinary reward: ``rewards.load("RUN/model")``.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field

from guerdon.core.dialogues import ASKING, embedded_image_pairs, embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.core.runs import RunFolder
from guerdon.curation.flagging import score_dataset
from guerdon.curation.length import Side, Unit, length_constraint
from guerdon.curation.sanity import sane_pairs
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.recipes._reward_model import (
    Closing,
    Data,
    RewardModelConfig,
    close,
    load_data,
    make_model,
    preset_for,
    train,
)
from guerdon.trainers.preference import PreferenceConfig

TITLE = "InternLM-XComposer2.5-Reward: A Simple Yet Effective Multi-Modal Reward Model"
__all__ = ["CONFIG", "PRESETS", "IXCRewardConfig", "preset_for", "run"]


class IXCRewardConfig(RewardModelConfig):
    """The defaults are the paper's: lr 1e-5, batch 256, one epoch, cosine with 1% warm-up, weight decay 0.1, 8,192
    tokens.

    max_length_ratio: pairs whose chosen answer has more than so many times the length of the rejected one are dropped;
    the paper's ratio is not printed (UNVERIFIED), 2 to 3 served in this package's claim. None: no constraint. pooling:
    the paper's text says "mean", its data code a reward token: UNVERIFIED, and weights of one are worthless with the
    other. flag: share of the training data with the lowest-rated chosen answers to list in ``flagged.jsonl``.
    """

    preset: Literal["tiny", "published"] = "published"
    max_length_ratio: float | None = Field(2.0, ge=1)
    length_side: Side = "chosen_longer"
    length_unit: Unit = "words"
    flag: float = Field(0.05, ge=0, lt=1)
    freeze: list[str] = Field(default_factory=lambda: ["vision", "projector"])
    max_length: int | None = 8192
    training: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(
            learning_rate=1e-5, batch_size=256, epochs=1, schedule="cosine", weight_decay=0.1, alternate=(2, 1)
        )
    )


CONFIG = IXCRewardConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "freeze": [],
        "max_length": 512,
        "training": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=4, alternate=(2, 1)).model_dump(),
    },
}


def run(config: IXCRewardConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Filter, train, grade and flag in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    data = load_data(config, folder, _embedded)
    kept, faults = sane_pairs(data.train)
    closing = Closing(figures={"insane": len(faults)})
    if config.max_length_ratio is not None:
        if config.length_unit == "tokens":
            raise GuerdonError(
                "length_unit='tokens' needs a tokenizer before the model is made; use words or characters"
            )
        report = length_constraint(kept, config.max_length_ratio, config.length_side, config.length_unit)
        kept = [pair for pair, stays in zip(kept, report.kept) if stays]
        if not kept:
            raise GuerdonError(f"max_length_ratio={config.max_length_ratio} leaves no pair to train on")
        closing.tables.append(report.table())
    shown = any(pair.images for pair in data.train)
    # Text alone goes to a text model, which has no eyes to freeze.
    model = make_model(config if shown else config.model_copy(update={"freeze": []}), data.train)
    train(model, Data(kept, data.held), config, folder, resume)
    if config.flag:
        closing.tables.append(_flagged(model, data.train, config.flag, folder))
    return close("ixc-2.5-reward", TITLE, config, folder, model, Data(kept, data.held), started, closing)


def _embedded(seed: int) -> Data:
    """Image pairs, and text pairs by a labeller who likes long answers; the held-out labels do not."""
    biased = embedded_pairs(600, seed, length_bias=1.5, asking=ASKING[:3])
    held = [*embedded_image_pairs(150, seed + 1), *embedded_pairs(150, seed + 1, asking=ASKING[3:])]
    return Data([*embedded_image_pairs(600, seed), *biased], held)


def _flagged(model: ScalarRewardModel, pairs: list[Pair], share: float, folder: RunFolder) -> dict[str, Any]:
    """The lowest-rated chosen answers as a table; all of them, with reasons, in ``flagged.jsonl``."""
    rows: list[dict[str, Any]] = [
        {"prompt": pair.prompt, "completion": pair.chosen, "images": list(pair.images), "where": pair.where}
        for pair in pairs
    ]
    found = score_dataset(model, rows, q=share, out=folder.path / "flagged.jsonl")
    lowest = sorted(found.rows, key=lambda row: found.scores[row])[:8]
    told = [
        [rows[row]["where"] or str(row), f"{found.scores[row]:+.2f}", text_of(pairs[row].prompt)[-80:],
         text_of(pairs[row].chosen)[:120]]
        for row in lowest
    ]  # fmt: skip
    note = f"{len(found.rows)} of {len(rows)} chosen answers; all of them, with reasons, are in flagged.jsonl."
    return {"title": "Lowest-rated rows", "note": note, "columns": ["row", "score", "prompt", "answer"], "rows": told}
