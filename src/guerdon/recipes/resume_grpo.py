"""Job application evaluation by a reward of several parts (arXiv 2511.16073), published and repaired.

R = 0.6 status + 0.2 score + 0.2 skills the answer lists; an unreadable answer is worth least        (reward: repaired)
R = 0.4 status + 0.2 score + 0.2 skills of the row + 0.2 years guessed from words, as published      (reward: v2)
before training the reward is put through the linter, which names parts that cannot teach anything
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from guerdon.audits.reward_linter import Flag, LegalAnswer, lint_reward
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.runs import RunFolder
from guerdon.curation.applications import application
from guerdon.recipes._language import PRESETS, Problems, preset_for, run_language
from guerdon.recipes._made_world import MadeConfig, made_world
from guerdon.rewards.text.resume import (
    COLUMNS,
    Evaluation,
    evaluation_of,
    read_evaluation,
    resume_repaired,
    resume_v2,
)
from guerdon.rewards.text.resume_parameters import resume_v1

TITLE = (
    "A Mathematical Framework for Custom Reward Functions in Job Application Evaluation using Reinforcement Learning"
)
__all__ = ["CONFIG", "PRESETS", "ResumeConfig", "preset_for", "run"]

REWARDS: dict[str, Callable[[], Any]] = {"repaired": resume_repaired, "v1": resume_v1, "v2": resume_v2}
LINTED = 64  # training rows that the linter looks at


class ResumeConfig(MadeConfig):
    """data: rows of a prompt and the columns ``status``, ``evaluation_json`` and ``job_description_skills``.

    reward: "repaired", or "v1" and "v2", the published ones with their faults. The judge sees the decision alone.
    """

    layout: Literal["math", "rows"] = "rows"
    judge: str = "resume_decision"
    reward: Literal["repaired", "v1", "v2"] = "repaired"


CONFIG = ResumeConfig
_NOTES = ("the embedded applications are made, and decided by a rule: nothing follows on decisions about people",)


def run(config: ResumeConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train on the reward and grade by right decisions in ``folder``; returns the summary, written there too."""

    reward = REWARDS[config.reward]()
    notes = list(_NOTES) if config.data is None else []

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        return {config.reward: (reward, 1.0)}

    def rows(problems: Problems) -> Problems:
        checked([*problems.train, *problems.watched])
        golds = checked(problems.tested)
        selected = sum(gold.decision == "SELECTED" for gold in golds) / len(golds)
        notes.append(f"SELECTED is right in {selected:.0%} of the tested problems; compare the shares of what is said")
        notes.extend(f"linter, {flag.check} {flag.part}: {flag.detail}" for flag in linted(reward, problems.train))
        return problems

    world = made_world(application, said=_said, kind=_said)
    return run_language("resume-grpo", TITLE, config, folder, resume, rewards, rows=rows, world=world, notes=notes)


def checked(rows: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    """The gold side of each row. Raises GuerdonError naming the first row without a gold column, or whose evaluation
    cannot be read."""
    found = []
    for row in rows:
        told = repr(str(row["prompt"][-1]["content"])[:60])
        lacks = [name for name in COLUMNS if row.get(name) is None]
        if lacks:
            raise GuerdonError(f"the row {told} needs the column {lacks[0]!r}; it has {', '.join(row)}")
        gold = evaluation_of(row)
        if isinstance(gold, Failed):
            raise GuerdonError(f"the row {told}, column 'evaluation_json': {gold.cause}; expected a JSON object")
        found.append(gold)
    return found


def linted(reward: Any, rows: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """The faults of ``reward`` on the first of ``rows``, among answers of either status, three scores, and no skills or
    all that any of the jobs asks. Raises GuerdonError as `checked`."""
    some = rows[:LINTED]
    golds = checked(some)
    asked = sorted({skill for gold in golds for skill in gold.asked})
    answers = [
        LegalAnswer(json.dumps({"score": score, "status": status, "skills": skills}), status)
        for status in ("SELECTED", "REJECTED")
        for score in (10, 50, 90)
        for skills in ([], asked)
    ]
    columns: dict[str, Any] = {name: [row[name] for row in some] for name in COLUMNS}
    return lint_reward(reward, answers, [gold.decision for gold in golds], **columns).flags


def _said(text: str) -> str | None:
    found = read_evaluation(text)
    return str(found.fields["status"]) if found.ok else None
