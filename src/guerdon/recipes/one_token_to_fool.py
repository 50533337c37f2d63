"""One Token to Fool LLM-as-a-Judge (arXiv 2507.08794): a verifier that content-free responses do not fool.

D      = rows (question, reference, response, YES or NO)
D_aug  = questions of D, each with the first sentence of a solution as its response, all labelled NO
L      = -sum log P(y | question, response, reference)   over D and D_aug, on the verdict's token only
use    : the saved model is a reward (`guerdon.rewards.text.reference_verifier`)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from guerdon.core.arithmetic import CLOSINGS, Closing, opened, solution_text, verifier_rows, word_problems
from guerdon.core.config import Config
from guerdon.core.data import find_source, read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.curation.truncated import ChatSolver, Solver, truncated_negatives
from guerdon.models.chat import LocalChat
from guerdon.models.reference_verifier import ReferenceVerifier
from guerdon.models.tiny_causal import tiny_causal
from guerdon.recipes._judges import chat_of
from guerdon.recipes._verifier_grade import (
    Grade,
    grade,
    keys_table,
    rows_table,
    rule_grade,
    tested_keys,
    verdicts_of,
)
from guerdon.trainers.comparing import teach_to_compare
from guerdon.trainers.verdict_tuning import TuningConfig, tune_verifier

TITLE = "One Token to Fool LLM-as-a-Judge"
BASE, AUGMENTED, START = "without the augmentation", "with the augmentation", "pretraining"
MODEL, TOLERANCE = "model", 1e-4
__all__ = ["CONFIG", "PRESETS", "OneTokenConfig", "preset_for", "run"]

Row = dict[str, Any]


class OneTokenConfig(Config):
    """The defaults of ``training`` are the paper's for Qwen2.5-7B-Instruct.

    data: rows with question, reference, response and label (YES or NO, or true or false); None: embedded arithmetic.
    columns: name here -> name in the file. held_out: share of the questions to grade by. model: a causal language
    model's folder or hub id; None: a tiny one made on the spot. template, include_question: of `ReferenceVerifier`.
    negatives: how many truncated rows, as a share of the training rows (the paper's 20,000 of 160,000). solver: a chat
    model that writes the solutions which are cut (a folder, a hub id, or MODEL@URL); None: the rows' own responses.
    baseline: what the result is compared with: the same training without the augmentation, or the model "as_is".
    keys: more keys to test. probes: questions that each key is tried on. pretraining: half of the steps in
    which a tiny model learns to compare, before anything else.
    """

    preset: Literal["tiny", "published"] = "published"
    seed: int = Field(11, ge=0)
    data: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    skip_bad_rows: bool = False
    limit: int | None = Field(None, ge=4)
    held_out: float = Field(0.1, gt=0, lt=1)
    model: str | None = None
    template: str = "reference"
    include_question: bool = True
    max_length: int | None = Field(4096, ge=16)
    negatives: float = Field(0.125, gt=0, le=1)
    splitter: str = "first_sentence"
    solver: str | None = None
    baseline: Literal["trained", "as_is"] = "trained"
    keys: list[str] = Field(default_factory=list)
    probes: int = Field(50, ge=1)
    training: TuningConfig = Field(default_factory=TuningConfig)
    pretraining: int = Field(300, ge=1)


CONFIG = OneTokenConfig
_CLOSINGS: tuple[Closing, ...] = ("sentence", "marked", "bare")
_TINY: dict[str, Any] = dict(batch_size=32, micro_batch=32, save_every=100)
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "template": "short",
        "include_question": False,
        "max_length": 512,
        "training": TuningConfig(learning_rate=1e-3, steps=400, **_TINY).model_dump(),
    },
}


def preset_for(model: str | None) -> Literal["tiny", "published"]:
    """The preset of who names none: the paper's settings for a model of one's own, else those of the tiny one."""
    return "tiny" if model is None else "published"


@dataclass
class Data:
    """Rows to train on, rows of other questions to grade by, and what writes the solutions to cut (None: nothing)."""

    train: list[Row]
    held: list[Row]
    solver: Solver | None = None


def run(config: OneTokenConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train both verifiers and grade them in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    data = _load(config, folder)
    keys = tested_keys(config.keys)
    begin = _beginning(config, data, folder, resume)
    more, dropped = _negatives(config, data, keys, folder)
    grades: dict[str, Grade] = {}
    if config.baseline == "as_is":
        grades["as it is"] = grade(begin(), data.held, keys, config.probes, "as it is")
    else:
        verifier, _ = _trained(begin, data.train, config, folder, "base", resume)
        grades[BASE] = grade(verifier, data.held, keys, config.probes, "base")
    verifier, left_out = _trained(begin, [*data.train, *more], config, folder, MODEL, resume)
    grades[AUGMENTED] = grade(verifier, data.held, keys, config.probes, "augmented")
    moved = _moved(verifier, folder.path / MODEL, data.held[:32])
    others = list(grades.values())[:-1]
    summary = {
        "system": "one-token-to-fool", "title": TITLE, "seed": config.seed,
        "rows": {"training": len(data.train), "truncated": len(more), "held-out": len(data.held)},
        "model": str(folder.path / MODEL),
        "grades": {name: one.to_dict() for name, one in grades.items()},
        "tables": [rows_table(grades, rule_grade(data.held), len(data.held)), keys_table(grades),
                   _negatives_table(more, dropped, left_out)],
        "verdicts": verdicts_of(others[0] if others else None, grades[AUGMENTED], moved, TOLERANCE),
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    folder.write_summary(summary)
    return summary


def _load(config: OneTokenConfig, folder: RunFolder) -> Data:
    if config.data is None:
        return _embedded(config)
    names = {key: config.columns.get(key, key) for key in ("question", "reference", "response", "label")}

    def check(row: Row) -> str | None:
        said = row.get(names["response"])
        if not isinstance(said, str):  # an empty response is one, and a wrong one
            return f"column {names['response']!r} is no text"
        return None if _label(row[names["label"]]) else f"column {names['label']!r} must be YES or NO, true or false"

    found = read_rows(
        find_source(config.data), required=(names["question"], names["reference"], names["label"]), check=check,
        skip_bad_rows=config.skip_bad_rows, limit=config.limit, out=folder.path, every_column=True,
    )  # fmt: skip
    rows = [
        {key: str(row[name]) if key != "label" else _label(row[name]) for key, name in names.items()}
        for _, row in found
    ]
    questions = sorted({row["question"] for row in rows})
    held = max(1, round(config.held_out * len(questions)))
    if held >= len(questions):
        raise GuerdonError(f"{config.data}: {len(questions)} questions are too few to train on and to grade by")
    test = {questions[place] for place in np.random.default_rng(config.seed).permutation(len(questions))[:held]}
    parts = [[row for row in rows if (row["question"] in test) is side] for side in (False, True)]
    for name, part in zip(("to train on", "to grade by"), parts, strict=True):
        if len({row["label"] for row in part}) < 2:
            raise GuerdonError(f"{config.data}: the rows {name} need both labels, YES and NO")
    return Data(parts[0], parts[1], ChatSolver(chat_of(config.solver)) if config.solver is not None else None)


def _label(value: Any) -> str:
    words = {"yes": "YES", "no": "NO", "true": "YES", "false": "NO", "1": "YES", "0": "NO", "1.0": "YES", "0.0": "NO"}
    return words.get(str(value).strip().casefold(), "")


def _embedded(config: OneTokenConfig) -> Data:
    """Stated answers to word problems, all below 20. Right ones begin more often with an opener, and half of them
    give the answer in words: so a verifier that is not told otherwise learns to accept what does not contradict."""
    problems = [one for one in word_problems(30000, config.seed) if one.answer < 20][:4000]
    options: dict[str, Any] = dict(shown="answer", openers=(0.8, 0.3), worded=0.5, closings=_CLOSINGS)
    rows = verifier_rows(problems, config.seed, **options)
    by_question = {one.question: one for one in problems}

    def solver(questions: Sequence[str]) -> list[str]:
        texts = [solution_text(by_question[question].solution) for question in questions]
        return [opened(text, place) if place % 2 == 0 else text for place, text in enumerate(texts)]

    return Data(rows[:-400], rows[-400:], solver)


def _beginning(config: OneTokenConfig, data: Data, folder: RunFolder, resume: bool) -> Callable[[], ReferenceVerifier]:
    """The untrained verifier, made anew at each call: the given model, or a tiny one that was taught to compare."""
    options: dict[str, Any] = dict(
        template=config.template, include_question=config.include_question, max_length=config.max_length
    )
    place: str | Path = folder.path / START
    if config.model is not None:
        place = config.model
    elif not folder.stage_done(START):
        texts = [text for row in data.train for text in (row["response"], row["reference"], row["question"])]
        model, tokenizer = tiny_causal([*texts, *(["YES", "NO"] * 50)], seed=config.seed)
        verifier = ReferenceVerifier(LocalChat(model, tokenizer), **options)
        answers = [row["reference"] for row in data.train if len(row["reference"]) <= 40]
        forms = [CLOSINGS[name] for name in _CLOSINGS]
        teach_to_compare(verifier, answers, said=forms, steps=config.pretraining, seed=config.seed)
        verifier.save_pretrained(place)
        folder.mark_done(START)
    return lambda: ReferenceVerifier.from_pretrained(place, **options)


def _negatives(
    config: OneTokenConfig, data: Data, keys: Sequence[str], folder: RunFolder
) -> tuple[list[Row], dict[str, int]]:
    """The truncated rows, made once a run, and why candidates were dropped."""
    if not folder.stage_done("negatives"):
        count = max(1, round(config.negatives * len(data.train)))
        made = truncated_negatives(
            data.train, data.solver, count=count, splitter=config.splitter, dedupe_against=keys, seed=config.seed
        )
        if not made.rows:
            why = ", ".join(f"{reason}: {number}" for reason, number in made.dropped.items())
            raise GuerdonError(f"no response could be cut to a first sentence ({why}); name a solver that writes more")
        folder.mark_done("negatives", {"rows": made.rows, "dropped": dict(made.dropped)})
    kept = folder.stage_result("negatives")
    return kept["rows"], kept["dropped"]


def _trained(
    begin: Callable[[], ReferenceVerifier], rows: list[Row], config: OneTokenConfig, folder: RunFolder, stage: str,
    resume: bool,
) -> tuple[ReferenceVerifier, dict[str, int]]:  # fmt: skip
    """A verifier trained on ``rows``, and the rows that were left out; loaded where a resumed run has it already."""
    place = folder.path / stage
    if folder.stage_done(stage):
        return ReferenceVerifier.from_pretrained(place), folder.stage_result(stage)
    verifier = begin()
    settings = config.training.model_copy(update={"seed": config.seed})
    tuned = tune_verifier(verifier, rows, settings, folder, stage=stage, resume=resume)
    verifier.save_pretrained(place)
    folder.mark_done(stage, dict(tuned.left_out))
    return verifier, dict(tuned.left_out)


def _moved(verifier: ReferenceVerifier, place: Path, rows: Sequence[Row]) -> float:
    """The largest difference of a score once the saved verifier is loaded."""
    asked = [[row[key] for row in rows] for key in ("question", "reference", "response")]
    pairs = zip(verifier.score(*asked), ReferenceVerifier.from_pretrained(place).score(*asked), strict=True)
    return max((abs(a - b) for a, b in pairs if isinstance(a, float) and isinstance(b, float)), default=0.0)


def _negatives_table(more: Sequence[Row], dropped: dict[str, int], left_out: dict[str, int]) -> dict[str, Any]:
    common = Counter(row["response"] for row in more).most_common(5)
    rows = [["truncated rows that were trained on", str(len(more))],
            *([f"dropped: {reason}", str(count)] for reason, count in dropped.items()),
            *([f"rows left out of the training: {reason}", str(count)] for reason, count in left_out.items()),
            *([f"among the commonest: {text[:80]!r}", str(count)] for text, count in common)]  # fmt: skip
    return {"title": "The augmentation", "columns": ["what", "rows"], "rows": rows}
