"""What recipes share that train a scalar reward model: data, backbone, training, the closing figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from guerdon.benchmarks.pairs import Grade, Judge, grade, score_pairs, table
from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, load_pairs, split_by_prompt, text_of
from guerdon.core.runs import RunFolder
from guerdon.curation.set_report import report_on
from guerdon.metrics.intervals import Interval
from guerdon.metrics.pair_accuracy import reward_inflation
from guerdon.models.baselines import BagOfWords, LengthBaseline
from guerdon.models.scalar.head import HeadConfig, Pooling
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone, tiny_vision_backbone
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

MODEL, STAGE = "model", "reward_model"
TOLERANCE = 1e-5


class RewardModelConfig(Config):
    """What every system here that trains a scalar reward model lets a person choose.

    data: pairs (see `load_pairs`); None: the embedded ones. validation: pairs that no training sees; None: the pairs
    of a share ``held_out`` of the prompts. columns: name here -> name in the file. model: a folder or hub id; None: a
    small Qwen3 (Qwen2.5-VL where the data show pictures) made on the spot. lora: rank; None trains everything that
    ``freeze`` does not name ("vision", "projector", "backbone").
    """

    seed: int = Field(11, ge=0)
    data: str | None = None
    validation: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    skip_bad_rows: bool = False
    limit: int | None = Field(None, ge=1)
    held_out: float = Field(0.1, gt=0, lt=1)
    model: str | None = None
    trust_remote_code: bool = False
    head: HeadConfig = Field(default_factory=HeadConfig)
    pooling: Pooling = "last"
    reward_token: str | None = None
    max_length: int | None = Field(None, ge=8)
    lora: int | None = Field(None, ge=1)
    freeze: list[str] = Field(default_factory=list)
    training: PreferenceConfig = Field(default_factory=PreferenceConfig)


def preset_for(model: str | None) -> Literal["tiny", "published"]:
    """The preset of who names none: the paper's settings for a model of one's own, else those of the small one."""
    return "tiny" if model is None else "published"


@dataclass
class Data:
    """Pairs to train on and pairs to grade by, which share no prompt."""

    train: list[Pair]
    held: list[Pair]


def load_data(config: RewardModelConfig, folder: RunFolder, embedded: Any) -> Data:
    """The pairs of ``config``; ``embedded(seed) -> Data`` makes those of a run without data."""
    if config.data is None:
        return embedded(config.seed)
    options: dict[str, Any] = dict(skip_bad_rows=config.skip_bad_rows, columns=config.columns)
    pairs = load_pairs(config.data, limit=config.limit, out=folder.path, **options)
    if config.validation is not None:
        return Data(pairs, load_pairs(config.validation, **options))
    return Data(*split_by_prompt(pairs, config.held_out, seed=config.seed))


def device() -> str:
    """Where models of this machine are trained."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_model(config: RewardModelConfig, pairs: Sequence[Pair]) -> ScalarRewardModel:
    """An untrained reward model on the configured backbone, or on a small one whose tokenizer learns from ``pairs``."""
    options: dict[str, Any] = dict(
        head=config.head, pooling=config.pooling, reward_token=config.reward_token, max_length=config.max_length,
        freeze=config.freeze, seed=config.seed, device=device(), lora=config.lora,
    )  # fmt: skip
    if config.model is not None:
        return ScalarRewardModel.on_backbone(config.model, trust_remote_code=config.trust_remote_code, **options)
    texts = {text_of(pair.conversation(side)) for pair in pairs for side in ("chosen", "rejected")}  # type: ignore[arg-type]
    if any(pair.images for pair in pairs):
        backbone, processor = tiny_vision_backbone(texts, hidden=64, layers=2, seed=config.seed)
        return ScalarRewardModel.on_backbone(backbone, processor=processor, **options)
    backbone, tokenizer = tiny_backbone(texts, hidden=64, layers=2, seed=config.seed)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, **options)


def train(
    model: ScalarRewardModel, data: Data, config: RewardModelConfig, folder: RunFolder, resume: bool, **hooks: Any
) -> RewardModelTrainer:
    """Train ``model`` on ``data.train``, looking at ``data.held`` on the way; ``hooks`` are the trainer's."""
    settings = config.training.model_copy(update={"seed": config.seed})
    trainer = RewardModelTrainer(model, data.train, settings, folder, data.held, **hooks)
    trainer.train(resume=resume)
    return trainer


def train_quietly(
    model: ScalarRewardModel, pairs: Sequence[Pair], config: RewardModelConfig, **changes: Any
) -> ScalarRewardModel:
    """Train a model that is a means to an end: no folder, no looks at held-out pairs; ``changes`` to the settings."""
    settings = config.training.model_copy(update={"seed": config.seed, **changes})
    RewardModelTrainer(model, list(pairs), settings).train()
    return model


@dataclass
class Closing:
    """What a recipe adds to the closing figures: tables and verdicts of its own, and other judges' scores of the
    held-out pairs, (chosen, rejected) by name."""

    tables: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


def close(
    slug: str, title: str, config: RewardModelConfig, folder: RunFolder, model: ScalarRewardModel, data: Data,
    started: float, closing: Closing | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Save the model, load it again, score again, grade it beside the baselines, and write the summary.

    Raises GuerdonError if the loaded model does not score as the trained one did.
    """
    more = closing or Closing()
    saved = folder.path / MODEL
    scores = {"reward model": score_pairs(model, data.held, progress="held-out pairs")}
    model.save_pretrained(saved)
    again = score_pairs(ScalarRewardModel.from_pretrained(saved), data.held)
    moved = float(max(np.abs(now - then).max() for now, then in zip(again, scores["reward model"])))
    if moved > TOLERANCE:
        raise GuerdonError(f"{saved}: loaded again, the model scores up to {moved:.2g} differently; it is not usable")
    for name, (chosen, rejected) in more.scores.items():
        scores[name] = (np.asarray(chosen, dtype=np.float64), np.asarray(rejected, dtype=np.float64))
    baselines: dict[str, Judge] = {
        "bag of words": BagOfWords().fit(data.train),
        "length alone": LengthBaseline().fit(data.train),
    }
    scores |= {name: score_pairs(judge, data.held) for name, judge in baselines.items()}
    grades = grade(scores, data.held, seed=config.seed)
    inflation = _inflation(folder)
    summary = {
        "system": slug, "title": title, "seed": config.seed,
        "pairs": {"training": len(data.train), "held-out": len(data.held)},
        "model": str(saved), "grades": {name: _plain(one) for name, one in grades.items()},
        "tables": [table(grades, len(data.held)), *more.tables, _training_table(moved, inflation), *_data_table(data)],
        "calibration": {"bins": grades["reward model"].bins},
        "verdicts": [*_verdicts(grades, moved), *more.verdicts],
        "seconds": round(time.monotonic() - started, 1), **more.figures,
    }  # fmt: skip
    folder.write_summary(summary)
    return summary


def _verdicts(grades: dict[str, Grade], moved: float) -> list[dict[str, Any]]:
    own = grades["reward model"]
    rows = [_above("held-out accuracy", own.accuracy, 0.5, "above 0.5")]
    for name in ("length alone", "bag of words"):
        rows.append(_above(f"accuracy less {name}", own.over[name], 0.0, "above 0"))
    rows.append(
        {"name": "saved, loaded, scored again", "target": f"within {TOLERANCE:g}", "value": moved, "holds": True}
    )
    return rows


def _above(name: str, interval: Interval, threshold: float, target: str) -> dict[str, Any]:
    """Holds where the whole interval lies above, fails where none of it does, else open."""
    holds = True if interval.low > threshold else False if interval.high <= threshold else None
    return {"name": name, "target": target, "value": interval.value, "holds": holds}


def _inflation(folder: RunFolder) -> Any:
    rows = [row for row in folder.metrics(stage=STAGE) if row.get("held_out/chosen") is not None]
    history = [(row["held_out/chosen"], row["held_out/rejected"]) for row in rows]
    return reward_inflation(history) if len(history) > 1 else None


def _training_table(moved: float, inflation: Any) -> dict[str, Any]:
    rows = [["saved, loaded, scored again: largest difference", f"{moved:.1e}", "must be 0 up to rounding"]]
    if inflation is not None:
        says = "scores rise while the gap does not: inflation" if inflation.inflated else "no inflation"
        rows.append(["rise of the mean score", f"{inflation.mean_rise:+.3f}", says])
        rows.append(["rise of the gap", f"{inflation.gap_rise:+.3f}", "chosen less rejected, first to last look"])
    return {"title": "Training", "columns": ["measure", "value", "what it says"], "rows": rows}


def _data_table(data: Data) -> list[dict[str, Any]]:
    return [report_on(data.train).table()]


def _plain(one: Grade) -> dict[str, Any]:
    def interval(value: Interval | None) -> list[float] | None:
        return None if value is None else [value.value, value.low, value.high]

    return {
        "accuracy": interval(one.accuracy), "true_accuracy": interval(one.true_accuracy),
        "calibration_error": one.calibration_error, "brier": one.brier, "length_correlation": one.length,
        "length_correlation_partial": one.length_partial, "mean_gap": one.mean_gap,
        "over": {name: interval(value) for name, value in one.over.items()},
    }  # fmt: skip
