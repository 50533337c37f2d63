"""The recipes whose rewards lie on parts of a text: what they pay, and small runs from the embedded reasoner."""

from __future__ import annotations

import json
import math

import pytest

from guerdon.core.arithmetic import solution_text, word_problems, wrong_solution
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.policies.continuation import CheckpointPolicy
from guerdon.policies.reasoner import ASSETS, problem_rows
from guerdon.recipes import fine_grained_rlhf, reward_clip_delta
from guerdon.recipes._dense_run import load_problems
from guerdon.recipes.fine_grained_rlhf import FineGrainedConfig, Holistic, aspects_of
from guerdon.recipes.reward_clip_delta import ClipDeltaConfig, labelled_steps

SMALL = {"steps": 2, "prompts": 2, "group": 4, "held_out": 4, "max_completion_length": 48, "seed": 3}
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
def test_held_out_problems_are_not_trained_on():
    problems = load_problems(ClipDeltaConfig(**SMALL))
    asked = {json.dumps(row["prompt"]) for row in problems.train}
    assert len(problems.held) == 4 and not asked & {json.dumps(row["prompt"]) for row in problems.held}


@needs_reasoner
@pytest.mark.parametrize("name", ["clip-delta", "fine-grained"])
def test_a_small_run_trains_every_arm_and_resumes_without_doing_it_again(tmp_path, name, monkeypatch):
    if name == "clip-delta":
        config = ClipDeltaConfig(**SMALL, labelled=16, prm_training={"steps": 3})
        recipe, arms = reward_clip_delta, ["base", "success", "none", "clip_delta"]
    else:
        config = FineGrainedConfig(**SMALL)
        recipe, arms = fine_grained_rlhf, ["base", "holistic", "fine-grained"]
    summary = recipe.run(config, RunFolder.open(tmp_path / "run", config))
    assert list(summary["grades"]) == arms
    assert all(0 <= one["greedy"] <= 1 and one["lines"] > 0 for one in summary["grades"].values())
    folder = RunFolder.open(tmp_path / "run", config, resume=True)
    assert folder.summary()["system"] == summary["system"] and len(summary["verdicts"]) == 2
    rows = folder.metrics(stage=arms[-1])
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) for row in rows)
    monkeypatch.setattr(CheckpointPolicy, "__call__", None)
    again = recipe.run(config, folder, resume=True)
    assert again["grades"] == summary["grades"] and (folder.path / arms[-1] / "model.safetensors").is_file()


def test_a_model_of_ones_own_needs_a_process_reward_model(tmp_path):
    config = ClipDeltaConfig(model="somebody/else")
    with pytest.raises(GuerdonError, match="prm=FOLDER"):
        reward_clip_delta._scorer(config, RunFolder.open(tmp_path / "run", config), None)  # type: ignore[arg-type]


def test_settings_that_trl_does_not_have_are_named():
    assert ClipDeltaConfig(trl={"loss_type": "dr_grpo"}).trl == {"loss_type": "dr_grpo"}
    with pytest.raises(GuerdonError, match="did you mean 'loss_type'"):
        ClipDeltaConfig(trl={"los_type": "grpo"})
