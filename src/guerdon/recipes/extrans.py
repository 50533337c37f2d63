"""ExTrans (arXiv 2505.12996): translation with a thought, graded against a stronger model's exemplar.

R(anchor direction)  = 1[form] (w_t grade of the comparison + w_th thought), grades 1..5 swap-averaged
R(other directions)  = 1[form] 1[target language]: the skill is to carry over                          (mExTrans)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.runs import RunFolder
from guerdon.curation.phrases import DIRECTIONS, translation_row
from guerdon.models.translation_judge import ComparisonJudge, OverlapJudge, ThoughtJudge
from guerdon.recipes._judges import chat_of
from guerdon.recipes._language import PRESETS, Problems, preset_for, run_language
from guerdon.recipes._made_world import MadeConfig, made_world
from guerdon.rewards.text.exemplar import ExemplarComparisonReward, ExemplarStore
from guerdon.rewards.text.translation import (
    DirectionRouter,
    LightweightTranslationReward,
    ThoughtReward,
    after_thought,
    extrans_reward,
)

TITLE = "ExTrans: Multilingual Deep Reasoning Translation via Exemplar-Enhanced Reinforcement Learning"
__all__ = ["CONFIG", "PRESETS", "ExTransConfig", "preset_for", "run"]

Row = dict[str, Any]
COLUMNS = ("source", "target_language", "direction")


class ExTransConfig(MadeConfig):
    """data: rows of a prompt, ``source``, ``direction`` ("en-de") and ``target_language`` ("de"); rows of an anchor
    direction have an ``exemplar``, and those of the judge a ``reference``.

    anchors: directions with the full reward; the others are paid for form and language. judge_model: the language model
    that compares and grades thoughts (MODEL@URL, a folder, a hub id); None: chrF to the reference stands in for it, for
    the embedded sentences only, and no thought is graded. producer: who made the exemplars. weights: of comparison and
    thought (UNVERIFIED); the paper's third part, CometKiwi, is `extrans_reward(quality=...)` in Python.
    exemplar_faults: share of the embedded exemplars that are drawn anew, mostly wrong.
    """

    layout: Literal["math", "rows"] = "rows"
    judge: str = "reference_match"
    anchors: list[str] = Field(default_factory=lambda: ["en-de"])
    judge_model: str | None = None
    producer: str = "exemplars"
    weights: tuple[float, float] = (1.0, 0.2)
    exemplar_faults: float = Field(0.2, ge=0, le=1)


CONFIG = ExTransConfig


def run(config: ExTransConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train on the routed reward and grade by exact translations in ``folder``; returns the summary, written there."""
    if config.data is not None and config.judge_model is None:
        raise GuerdonError("data of one's own needs a language model that compares: --set judge_model=MODEL@URL")
    known: list[Row] = []

    def rows(problems: Problems) -> Problems:
        parts = {name: checked(getattr(problems, name), config) for name in ("train", "watched", "tested", "other")}
        known.extend(row for part in parts.values() for row in part)
        found = sorted({row["direction"] for row in known})
        for name in config.anchors:
            if name not in found:
                raise unknown("anchor direction", name, found)
        return replace(problems, **parts)

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        return {"extrans": (routed(config, known), 1.0)}

    world = made_world(lambda rng: _drawn(config, rng), said=lambda text: after_thought(text) or None)
    notes = (
        ["chrF to a hidden reference stands in for the model that compares; the judge asks for the very reference"]
        if config.judge_model is None
        else []
    )
    return run_language("extrans", TITLE, config, folder, resume, rewards, rows=rows, world=world, notes=notes)


def routed(config: ExTransConfig, rows: Sequence[Row]) -> DirectionRouter:
    """The reward of all rows, with the exemplars that they hold."""
    store = ExemplarStore()
    for row in rows:
        if row["direction"] in config.anchors:
            store.add(row["source"], row["exemplar"], producer=config.producer, direction=row["direction"])
    thought: Any = None
    if config.judge_model is None:
        comparison: Any = OverlapJudge({row["source"]: row["reference"] for row in rows})
    else:
        chat = chat_of(config.judge_model)
        comparison, thought = ComparisonJudge(chat), ThoughtReward(ThoughtJudge(chat), unit=True)
    full = extrans_reward(
        ExemplarComparisonReward(comparison, store, unit=True), thought=thought, weights=(*config.weights, 0.0)
    )
    return DirectionRouter(dict.fromkeys(config.anchors, full), LightweightTranslationReward())


def checked(rows: list[Row], config: ExTransConfig) -> list[Row]:
    """``rows`` with all columns; raises GuerdonError naming the first row that lacks one."""
    made = []
    for row in rows:
        wanted = [*COLUMNS, *(["exemplar"] if row.get("direction") in config.anchors else [])]
        wanted += ["reference"] if config.judge == "reference_match" else []
        lacks = [name for name in wanted if not row.get(name)]
        if lacks:
            told = str(row["prompt"][-1]["content"])[:60]
            raise GuerdonError(f"the row {told!r} needs the column {lacks[0]!r}; it has {', '.join(row)}")
        made.append({"exemplar": None, "reference": None, **row})
    return made


def _drawn(config: ExTransConfig, rng: np.random.Generator) -> tuple[Row, str]:
    direction = DIRECTIONS[int(rng.random() < 0.3)]
    return translation_row(rng, direction=direction, exemplar_faults=config.exemplar_faults)
