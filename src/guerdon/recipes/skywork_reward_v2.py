"""Skywork-Reward-V2: Scaling Preference Data Curation via Human-AI Synergy (arXiv 2507.01352).

    drop empty, repeated and contaminated pairs                                        (curation.cleaning)
    if asked for, and with gold (verified) pairs:
        stage 1: train on silver; label what lies near its errors on gold by a committee of judges; repeat
        stage 2: keep a label that the gold model and a second judge (best model, committee) agree with
    train a plain Bradley-Terry reward model on what is left

Without judges stage 2 runs alone, on the two reward models. Every decision and its evidence is in ``decisions.jsonl``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from guerdon.core.data import find_source, read_rows
from guerdon.core.dialogues import ASKING, embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, load_pairs, text_of
from guerdon.core.runs import RunFolder
from guerdon.curation.attributes import AttributeGenerator
from guerdon.curation.cleaning import decontaminate, dedup_pairs, drop_empty
from guerdon.curation.committee import JudgeCommittee
from guerdon.curation.loop import CurationConfig, CurationLoop
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.recipes._judges import chat_of, embedder_of, judge_of
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

TITLE = "Skywork-Reward-V2: Scaling Preference Data Curation via Human-AI Synergy"
__all__ = ["CONFIG", "PRESETS", "SkyworkConfig", "preset_for", "run"]


class SkyworkConfig(RewardModelConfig):
    """The defaults are the paper's development runs for small models (lr 4e-6, batch 256, linear with warm-up, one
    epoch, 16,384 tokens); its final runs took lr 3e-6, constant, and a batch of 10,240.

    curate: filter the data by gold pairs; None: where there are any. gold: verified pairs. silver: pairs that the first
    model learns from; None: half of gold. judges: see `guerdon.recipes._judges.judge_of`: rewards, reward models,
    language models, endpoints; samples: of each for a pair. attributes: a language model (`chat_of`) that describes
    each pair to the judges. embedder: a sentence encoder's folder or hub id; None: hashed character n-grams, which need
    no weights. benchmark: files whose prompts must not be in the data.

    Gold is used twice, so only held-out pairs say how good a model is.
    """

    preset: Literal["tiny", "published"] = "published"
    curate: bool | None = None
    gold: str | None = None
    silver: str | None = None
    judges: list[str] = Field(default_factory=list)
    samples: int = Field(8, ge=2)
    attributes: str | None = None
    embedder: str | None = None
    benchmark: list[str] = Field(default_factory=list)
    curation: CurationConfig = Field(default_factory=CurationConfig)
    max_length: int | None = 16384
    training: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(learning_rate=4e-6, batch_size=256, epochs=1, schedule="linear")
    )


CONFIG = SkyworkConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "max_length": 512,
        "training": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=4).model_dump(),
    },
}


def run(config: SkyworkConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Clean, curate if asked to, train and grade in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    data = load_data(config, folder, _embedded)
    clean, gone = _cleaned(config, data.train)
    closing = Closing(figures={"cleaned": gone})
    chosen = clean
    if config.curate if config.curate is not None else config.gold is not None or config.data is None:
        gold, silver = _verified(config)
        chosen, closing.tables = _curated(config, folder, clean, gold, silver, data.held)
    model = make_model(config, clean)
    train(model, Data(chosen, data.held), config, folder, resume)
    return close("skywork-reward-v2", TITLE, config, folder, model, Data(chosen, data.held), started, closing)


def _embedded(seed: int) -> Data:
    """A wild pool with two labels in five wrong; the held-out pairs are right."""
    return Data(
        embedded_pairs(2000, seed, noise=0.4, asking=ASKING[:3]), embedded_pairs(300, seed + 1, asking=ASKING[3:])
    )


def _cleaned(config: SkyworkConfig, pairs: Sequence[Pair]) -> tuple[list[Pair], dict[str, int]]:
    full, empty = drop_empty(pairs)
    unique, repeated = dedup_pairs(full)
    foreign: list[Pair] = []
    if config.benchmark:
        prompts = [
            text_of(row["prompt"])
            for file in config.benchmark
            for _, row in read_rows(find_source(file), required=("prompt",))
        ]
        unique, foreign = decontaminate(unique, prompts)
    if not unique:
        raise GuerdonError("nothing is left to train on after cleaning: every pair is empty, repeated or contaminated")
    return unique, {"empty": len(empty), "repeated": len(repeated), "contaminated": len(foreign)}


def _verified(config: SkyworkConfig) -> tuple[list[Pair], list[Pair]]:
    """Gold and silver pairs."""
    if config.data is None and config.gold is None:
        gold = embedded_pairs(400, config.seed + 2, asking=ASKING[:3])
    elif config.gold is None:
        raise GuerdonError("curate=true needs verified pairs: --set gold=FILE")
    else:
        gold = load_pairs(config.gold, columns=config.columns, skip_bad_rows=config.skip_bad_rows)
    if config.silver is not None:
        return gold, load_pairs(config.silver, columns=config.columns, skip_bad_rows=config.skip_bad_rows)
    if len(gold) < 4:
        raise GuerdonError(f"gold needs at least 4 pairs to spare half as silver, got {len(gold)}; or give silver=FILE")
    return gold[::2], gold[1::2]


def _curated(
    config: SkyworkConfig, folder: RunFolder, pool: list[Pair], gold: list[Pair], silver: list[Pair], held: list[Pair]
) -> tuple[list[Pair], list[dict[str, Any]]]:
    everything = [*pool, *gold, *silver]

    def fit(pairs: Sequence[Pair]) -> ScalarRewardModel:
        return train_quietly(make_model(config, everything), pairs, config)

    # Without judges there is nobody to label what stage 1 picks.
    settings = config.curation.model_copy(update={"seed": config.seed, **({} if config.judges else {"iterations": 0})})
    committee = (
        JudgeCommittee([judge_of(spec) for spec in config.judges], config.samples, config.seed)
        if config.judges
        else None
    )
    loop = CurationLoop(
        settings, train=fit, committee=committee, embed=embedder_of(config.embedder), folder=folder,
        load=lambda path: ScalarRewardModel.from_pretrained(path),
        attributes=AttributeGenerator(chat_of(config.attributes)) if config.attributes else None,
    )  # fmt: skip
    result = loop.run(gold, silver, pool, held_out=held)
    columns = list(dict.fromkeys(key for row in result.history for key in row))
    rows = [[_worded(row.get(key)) for key in columns] for row in result.history]
    note = "A row an iteration of stage 1, one for stage 2: decisions, sizes of the pools, accuracies of the models."
    table = {"title": "Curation", "note": note, "columns": columns, "rows": rows}
    return result.pairs, [table, *_truth_table(pool, result.pairs)]


def _truth_table(pool: Sequence[Pair], kept: Sequence[Pair]) -> list[dict[str, Any]]:
    """How many labels are wrong before and after, where the data know it."""
    rows = []
    for name, pairs in (("before curation", pool), ("after", kept)):
        truth = [pair.row["truth"] for pair in pairs if pair.row.get("truth") in (1, -1)]
        if truth:
            rows.append([name, str(len(pairs)), f"{sum(value == -1 for value in truth) / len(truth):.3f}"])
    return (
        [{"title": "What curation did", "columns": ["pairs", "number", "labels wrong"], "rows": rows}] if rows else []
    )


def _worded(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
