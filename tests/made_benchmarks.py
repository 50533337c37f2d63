"""Rows in RewardBench's columns, made up here, and subjects whose score on them is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.core.preferences import text_of
from guerdon.metrics.best_of_k import REWARDBENCH_2_SUBSETS
from guerdon.rewards.outcomes import Outcomes


def best_of_four(count: int = 6, prompts: int = 4) -> list[dict[str, Any]]:
    """``count`` rows of each domain and ``prompts`` pairs of Ties rows; a right answer says "right"."""
    rows = []
    for subset in REWARDBENCH_2_SUBSETS[:-1]:
        for row in range(count):
            wrong = [f"wrong {place} of {row}" for place in range(3)]
            rows.append(_row(f"{subset} {row}", subset, f"Ask {row} in {subset}?", [f"right {row}"], wrong))
    for prompt in range(prompts):
        rows.append(_row(f"ref:{prompt}", "Ties", f"One of {prompt}?", ["right a"], ["wrong a", "wrong b"]))
        right = ["right a", "right b", "right c"]
        rows.append(_row(f"tied:{prompt}", "Ties", f"Any of {prompt}?", right, ["wrong a", "wrong b"]))
    return rows


def _row(row_id: str, subset: str, prompt: str, chosen: list[str], rejected: list[str]) -> dict[str, Any]:
    return {
        "id": row_id, "subset": subset, "prompt": prompt, "chosen": chosen, "rejected": rejected,
        "num_correct": len(chosen), "total_completions": len(chosen) + len(rejected), "models": ["made up"],
    }  # fmt: skip


def written(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "rows.jsonl") -> Path:
    """Rows as a file of lines."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


Rule = Callable[[str, str], float | str]
"""(prompt, answer) -> a score, or a problem."""


class Ruled:
    """A subject that scores (or rates) by a rule."""

    def __init__(self, rule: Rule, name: str = "ruled", mode: str = "score") -> None:
        self.rule, self.name, self.identity, self.modes = rule, name, f"{name}@1#0", frozenset({mode})

    def score(self, conversations: Sequence[Any], *, columns: Any = None, progress: Any = None) -> Outcomes:
        said = [self.rule(text_of(one[:-1]), text_of(one[-1:])) for one in conversations]
        problems = {row: one for row, one in enumerate(said) if isinstance(one, str)}
        return Outcomes(np.array([np.nan if isinstance(one, str) else one for one in said]), problems)


class Ranker(Ruled):
    """A subject that names the answer with the highest score; a problem of any answer is the row's."""

    def __init__(self, rule: Rule, name: str = "ranker") -> None:
        super().__init__(rule, name, "rank")
        self.shown: list[list[str]] = []

    def rank(self, prompts: Sequence[Any], answers: Sequence[Sequence[Any]], **ignored: Any) -> Outcomes:
        values, problems = [], {}
        for row, (prompt, some) in enumerate(zip(prompts, answers, strict=True)):
            self.shown.append([text_of(one) for one in some])
            said = [self.rule(text_of(prompt), text_of(one)) for one in some]
            problem = next((one for one in said if isinstance(one, str)), None)
            if problem is not None:
                problems[row] = problem
            values.append(np.nan if problem is not None else float(np.argmax(said)))
        return Outcomes(np.array(values), problems, {row: {"reply": "hm"} for row in problems})


def knows(prompt: str, answer: str) -> float:
    """1 for a right answer, 0 for a wrong one."""
    return float(answer.startswith("right"))
