"""The recipes whose rewards lie on parts of a text: what they pay, and small runs from the embedded reasoner."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from guerdon.core.arithmetic import solution_text, word_problems, wrong_solution
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.policies.reasoner import ASSETS, problem_rows
from guerdon.recipes import fine_grained_rlhf, reward_clip_delta
from guerdon.recipes.fine_grained_rlhf import FineGrainedConfig, Holistic, aspects_of
from guerdon.recipes.reward_clip_delta import ClipDeltaConfig, labelled_steps
from guerdon.trainers.dense_grpo import DenseRewards

SMALL: dict[str, Any] = {
    "seed": 3, "problems": 16, "watched": 4, "tested": 4, "samples": 2,
    "training": {
        "steps": 2, "prompts_per_step": 2, "num_generations": 4, "learning_rate": 1e-4, "max_completion_length": 48,
        "save_every": 1, "watch_every": 1,
    },
}  # fmt: skip
needs_reasoner = pytest.mark.skipif(not (ASSETS / "reasoner").is_dir(), reason="the embedded reasoner is not here")


def test_aspects_pay_each_error_at_its_place_and_the_answer_at_the_end():
    problem = next(one for one in word_problems(50, 1) if len(one.solution.steps) == 2)
    (row,) = problem_rows([problem])
    pays = aspects_of(FineGrainedConfig())
    right, wrong = solution_text(problem.solution), solution_text(wrong_solution(problem, 1, fault="slip"))
    given = {"solution": [row["solution"]]}
    assert pays([row["prompt"]], [right], **given) == [pytest.approx(1.0)]
    (spans,) = pays.dense([row["prompt"]], [wrong], **given)
    paid = [(one.aspect, one.value) for one in spans if one.value]
    assert paid == [("factuality", pytest.approx(-0.5))]
    said_twice = right.replace("\n", "\n" + right.split("\n")[0] + "\n", 1)
    assert pays([row["prompt"]], [said_twice], **given)[0] == pytest.approx(1 - 0.3)
    assert Holistic(pays)([row["prompt"]], [wrong], **given) == [pytest.approx(-0.5)]
    assert list(aspects_of(FineGrainedConfig(relevance_weight=0.0)).aspects) == ["factuality", "completeness"]


def test_steps_are_labelled_right_up_to_the_first_error_and_by_the_answer():
    problem = next(one for one in word_problems(50, 1) if len(one.solution.steps) == 2)
    (row,) = problem_rows([problem])
    slip = wrong_solution(problem, 1, fault="slip")
    rows = labelled_steps([row, row, row], [solution_text(problem.solution), solution_text(slip), ""])
    assert rows[0]["labels"] == [True] * 3 and len(rows) == 2
    assert rows[1]["labels"] == [place < slip.first_error for place in range(3)]


@needs_reasoner
@pytest.mark.parametrize("mode", ["clip_delta", "success"])
def test_a_small_run_of_clip_delta(tmp_path: Path, mode: str) -> None:
    config = ClipDeltaConfig(**SMALL, mode=mode, labelled=16, prm_training={"steps": 3})
    summary = reward_clip_delta.run(config, RunFolder.open(tmp_path / "run", config))
    assert list(summary["rewards"]) == (["success"] if mode == "success" else ["success", "process"])
    assert (tmp_path / "run" / "prm").is_dir() == (mode != "success") == bool(summary["notes"])
    folder = RunFolder.open(tmp_path / "run", config, resume=True)
    rows = [row for row in folder.metrics(stage="policy") if "loss" in row]
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) for row in rows)
    assert reward_clip_delta.run(config, folder, resume=True)["tables"] == summary["tables"]


@needs_reasoner
@pytest.mark.parametrize("density", ["segments", "holistic"])
def test_a_small_run_of_fine_grained(tmp_path: Path, density: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(
        DenseRewards, "_token_advantages",
        lambda self, mask, own=DenseRewards._token_advantages: used.append(self.baseline) or own(self, mask),
    )  # fmt: skip
    config = FineGrainedConfig(**{**SMALL, "training": {**SMALL["training"], "baseline": "group"}}, density=density)
    summary = fine_grained_rlhf.run(config, RunFolder.open(tmp_path / "run", config))
    assert set(used) == ({"group"} if density == "segments" else set()), "the sum alone is plain GRPO"
    assert (Path(summary["model"]) / "model.safetensors").is_file()
    looks = RunFolder.open(tmp_path / "run", config, resume=True).metrics(stage="policy")
    assert [row["step"] for row in looks if "judge/rule_verifier/held-out" in row] == [0, 1, 2]


def test_a_model_of_ones_own_needs_a_process_reward_model(tmp_path: Path) -> None:
    config = ClipDeltaConfig(model="somebody/else")
    with pytest.raises(GuerdonError, match="prm=FOLDER"):
        reward_clip_delta._scorer(config, RunFolder.open(tmp_path / "run", config), None, None, [])
