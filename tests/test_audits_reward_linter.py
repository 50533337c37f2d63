"""The reward linter: each of its six checks finds what it is for, on the published rewards and on made ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guerdon.audits.answer_table import answer_table, constant_answers
from guerdon.audits.reward_linter import CHECKS, LegalAnswer, LintReport, lint_reward
from guerdon.core.errors import GuerdonError
from guerdon.core.reward import reward
from guerdon.rewards.compose import weighted_sum
from guerdon.rewards.text.hierarchical import shop_r1
from guerdon.rewards.text.resume import resume_repaired, resume_v2
from guerdon.rewards.text.resume_parameters import resume_v1

SKILLS = ["python", "sql", "docker", "aws"]
OTHERS = ["java", "go", "rust", "python"]


def resume_rows(count: int = 24) -> tuple[list[str], dict[str, list[Any]]]:
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {"status": [], "evaluation_json": [], "job_description_skills": []}
    right = []
    for place in range(count):
        good = place % 2 == 0
        asked = SKILLS if place % 3 else OTHERS
        listed = asked[: int(rng.integers(3, 5) if good else rng.integers(1, 3))]
        words = ["senior", "5 years", "junior"][int(rng.integers(0, 3))]
        gold = {
            "overall_score": int(rng.integers(65, 95) if good else rng.integers(10, 50)),
            "skills_match": {"present_skills": listed},
            "experience_relevance": {"score": int(rng.integers(20, 95)), "explanation": words},
        }
        columns["status"].append("APPROVE" if good else "REJECT")
        columns["evaluation_json"].append(gold)
        columns["job_description_skills"].append(", ".join(asked))
        right.append("SELECTED" if good else "REJECTED")
    return right, columns


def resume_answers() -> list[LegalAnswer]:
    return [
        LegalAnswer(json.dumps({"score": score, "status": status, "skills": skills, "explanation": why}), status)
        for status in ("SELECTED", "REJECTED")
        for score in (0, 20, 40, 60, 80, 100)
        for skills, why in (
            ([], ""),
            (SKILLS[:2], "Python and SQL experience, since the job needs it."),
            (SKILLS, ""),
            (OTHERS, ""),
        )
    ]


RIGHT, COLUMNS = resume_rows()


def test_the_gentle_reward_has_its_faults() -> None:
    report = lint_reward(resume_v2(), resume_answers(), RIGHT, group_size=2, **COLUMNS)
    assert report.of("constant") == ["skills"]
    assert set(report.of("fallback")) == {"status", "score", "skills", "experience", ""}
    assert any("always exactly as much as" in line for line in report.lines())
    assert report.measures["garbage"] > 0.9 and report.measures["compensation"] > 0
    assert report.of("dominance") == [""] and report.of("group") == [""]
    assert report.of("circular") == []


def test_education_of_the_first_reward_is_circular() -> None:
    report = lint_reward(resume_v1(), resume_answers(), RIGHT, **COLUMNS)
    assert set(report.of("circular")) == {"education", "weight/education"}
    assert "weight/skills" not in report.of("constant"), "a weight may follow the row alone"


def test_the_repaired_reward_passes() -> None:
    report = lint_reward(resume_repaired(), resume_answers(), RIGHT, **COLUMNS)
    assert report.clean and report.lines() == ["no faults found"]
    assert report.measures["garbage"] == 0 and report.measures["compensation"] == pytest.approx(-0.4, abs=0.2)
    assert report.measures["collapse"] < 0.5 and 0.2 < report.measures["tipping"] < 0.8


def test_a_factor_of_a_thousand_drowns_the_rest() -> None:
    click = [{"type": "click", "name": name} for name in ("buy_now", "next_page")]
    wanted = [*click, {"type": "terminate"}] * 2
    answers = [LegalAnswer(json.dumps({"rationale": "r", "action": one}), one["type"]) for one in wanted[:3]]
    right = [one["type"] for one in wanted]
    loud = lint_reward(shop_r1(), answers, right, solution=wanted, judges_form=["form"])
    assert loud.of("group") == ["name"] and loud.measures["spread/name"] > 0.99
    quiet = lint_reward(shop_r1(dars=1), answers, right, solution=wanted, judges_form=["form"])
    assert quiet.of("group") == []
    assert lint_reward(shop_r1(), answers, right, solution=wanted, scale_rewards="none").of("group") == []


@reward(range=(0, 1))
def always(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    """Pays one decision, whatever the row."""
    return [float("SELECTED" in one) for one in completions]


@reward(range=(0, 1))
def right_one(prompts: Any, completions: Any, *, wanted: Any, **columns: Any) -> list[float]:
    """Pays the right decision."""
    return [float(one in said) for said, one in zip(completions, wanted)]


def test_what_one_answer_earns() -> None:
    bad = lint_reward(always, resume_answers(), RIGHT)
    assert bad.of("collapse") == [""] and bad.of("dominance") == [""]
    both = weighted_sum({"always": (always, 3.0), "right": (right_one, 1.0)})
    report = lint_reward(both, resume_answers(), RIGHT, wanted=RIGHT)
    assert report.of("circular") == ["always"] and report.of("dominance") == [""]
    assert any("best paid answer has the wrong decision" in line for line in report.lines())
    alone = lint_reward(right_one, resume_answers(), RIGHT, wanted=RIGHT)
    assert alone.measures["collapse"] == pytest.approx(0.0) and alone.of("dominance") == []


def test_parts_within_parts() -> None:
    report = lint_reward(weighted_sum({"inner": (resume_v2(), 2.5)}), resume_answers(), RIGHT, **COLUMNS)
    assert "inner/skills" in report.of("constant") and "inner/status" in report.of("fallback")


def test_rows_without_spread() -> None:
    @reward
    def half(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        return [float("SELECTED" in one) if p == "a" else 0.5 for p, one in zip(prompts, completions)]

    report = lint_reward(half, resume_answers(), ["SELECTED", "REJECTED"], prompts=["a", "b"])
    assert any("the same on 50%" in line for line in report.lines())


def test_constant_answers() -> None:
    table = answer_table(right_one, ["SELECTED", "REJECTED"], prompts=["p"] * 4, wanted=["SELECTED"] * 3 + ["REJECTED"])
    assert table.values.shape == (4, 2)
    best, other = constant_answers(table, ["SELECTED"] * 3 + ["REJECTED"])
    assert (best.answer, best.mean, other.mean) == ("SELECTED", 0.75, 0.25)
    assert best.at({"SELECTED": 0.5, "REJECTED": 0.5}) == 0.5 and other.by_label == {"SELECTED": 0, "REJECTED": 1}
    with pytest.raises(GuerdonError, match="labels"):
        constant_answers(table, ["SELECTED"])
    with pytest.raises(GuerdonError, match="rows and answers"):
        answer_table(right_one, [], prompts=["p"])


def test_bad_calls() -> None:
    with pytest.raises(GuerdonError, match="two decisions"):
        lint_reward(always, resume_answers(), ["SELECTED"] * 3)
    with pytest.raises(GuerdonError, match="right decision 'MAYBE'"):
        lint_reward(always, resume_answers(), ["SELECTED", "MAYBE"])
    with pytest.raises(GuerdonError, match="scale"):
        lint_reward(always, resume_answers(), RIGHT, scale_rewards="all")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="prompts"):
        lint_reward(always, resume_answers(), RIGHT, prompts=["p"])
    with pytest.raises(GuerdonError, match="check of a reward"):
        LintReport("r", 0).of("six")  # type: ignore[arg-type]
    assert len(CHECKS) == 6
