"""Multi-part rewards: worked examples of both published ones, the repaired one, and what they are made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import identity
from guerdon.objectives.advantages import group_advantages
from guerdon.rewards.text.components import (
    Bands,
    ConfusionTable,
    ConsistencyRule,
    DynamicWeights,
    ParseResult,
    StructuredPart,
)
from guerdon.rewards.text.resume import (
    evaluation_of,
    read_between_braces,
    read_evaluation,
    resume_repaired,
    resume_v2,
    years_guessed,
)
from guerdon.rewards.text.resume_parameters import read_anywhere, resume_v1

ASKED = "python, sql, docker, aws, linux, git"


def row(status: str, score: float | None, present: int, **more: Any) -> dict[str, list[Any]]:
    listed = ASKED.split(", ")[:present]
    gold = {"overall_score": score, "skills_match": {"present_skills": listed}, **more}
    return {"status": [status], "evaluation_json": [json.dumps(gold)], "job_description_skills": [ASKED]}


def answer(score: float, status: str, **more: Any) -> str:
    return json.dumps({"score": score, "status": status, **more})


def paid(reward: Any, text: str, columns: dict[str, list[Any]]) -> float:
    (value,) = reward(["p"], [text], **columns)
    assert isinstance(value, float)
    return value


GOOD, BAD = row("APPROVE", 82, 4), row("REJECT", 40, 1)


def test_worked_examples_of_v2() -> None:
    reward = resume_v2()
    assert paid(reward, answer(80, "SELECTED"), GOOD) == pytest.approx(0.992)
    assert paid(reward, "garbage", GOOD) == pytest.approx(-0.728)
    assert paid(reward, answer(40, "REJECTED"), BAD) == pytest.approx(0.20)
    assert paid(reward, "garbage", BAD) == pytest.approx(0.04)
    assert paid(reward, answer(40, "SELECTED"), BAD) == pytest.approx(-0.20), "less than garbage"


def test_penalties_of_v2() -> None:
    harsh = resume_v2(false_negative=-5, false_positive=-2)
    assert paid(harsh, answer(0, "REJECTED"), GOOD) == pytest.approx(paid(resume_v2(), "x", GOOD) - 0.4 * 3)
    assert identity(harsh) != identity(resume_v2()) and identity(resume_v2()) == identity(resume_v2())


def test_worked_example_of_v1() -> None:
    skills = "SQL, Vue.js, Selenium, Docker, Jira, Adaptability, Automation, Testing"
    gold = {
        "overall_score": 84,
        "skills_match": {"present_skills": [one.lower() for one in skills.split(", ")]},
        "experience_relevance": {"score": 79, "explanation": "A solid level, suitable for the role."},
    }
    columns: dict[str, list[Any]] = {
        "status": ["STRONGLY_CONSIDER"], "evaluation_json": [gold], "job_description_skills": [skills],
    }  # fmt: skip
    why = "Strong automation and SQL experience; Vue.js and Docker fit well. Good overall."
    text = answer(84, "SELECTED", explanation=why)
    reward = resume_v1()
    scores = reward.scores(["p"], [text], **columns)  # type: ignore[attr-defined]
    assert scores.values.tolist() == pytest.approx([0.80 / 1.19]) and 0.80 / 1.19 == pytest.approx(0.6723, abs=1e-4)
    parts = {key: value[0] for key, value in scores.parts.items()}
    assert [parts[key] for key in ("score", "status", "skills", "experience", "education", "explanation")] == [
        1, 1, 1, 0, 0, 0,
    ]  # fmt: skip
    moved = [parts[f"weight/{key}"] for key in ("skills", "experience", "education")]
    assert moved == pytest.approx([0.15, 0.02, 0.02])
    assert paid(reward, text, {**columns, "status": ["APPROVE"]}) < 0.6, "a status that is in no map"


def test_what_v1_pays_for_nothing_and_its_progress() -> None:
    assert read_anywhere("I would say score: 70, status: selected").fields["status"] == "SELECTED"
    assert read_anywhere(answer(0, "REJECTED")).fields["score"] is None, "zero counts as missing, as published"
    assert read_anywhere("").fields == {"score": None, "status": None, "explanation": ""}
    state = type("State", (), {"global_step": 500})()
    half = resume_v1(max_steps=300)
    text = answer(80, "SELECTED")
    columns = row("CONSIDER", 82, 6)
    assert half(["p"], [text], trainer_state=state, **columns)[0] == pytest.approx(
        0.75 * paid(resume_v1(), text, columns)
    )


def test_the_repaired_reward() -> None:
    reward = resume_repaired()
    listed = ASKED.split(", ")[:4]
    assert paid(reward, answer(82, "SELECTED", skills=listed), GOOD) == pytest.approx(1.0)
    assert paid(reward, answer(82, "SELECTED"), GOOD) == pytest.approx(0.6), "no skills listed: -1"
    assert paid(reward, answer(82, "SELECTED", skills=[*listed, "cobol", "basic"]), GOOD) == pytest.approx(
        0.8 + 0.2 * (2 * 0.8 - 1)
    )
    for columns in (GOOD, BAD):
        garbage = paid(reward, "garbage", columns)
        wrong = answer(0, "REJECTED") if columns is GOOD else answer(100, "SELECTED")
        worst_wrong = paid(reward, wrong, columns)
        assert garbage < worst_wrong < 0
    assert paid(reward, answer(5, "REJECTED", skills=["python"]), row("REJECT", None, 1)) == pytest.approx(0.8)
    with pytest.raises(GuerdonError, match="garbage"):
        resume_repaired(unreadable=-1.0)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"score": 50}', answer(101, "SELECTED"), answer(50, "MAYBE"), "so " + answer(50, "SELECTED"),
     answer(50, "SELECTED", skills="sql"), '{"score": true, "status": "SELECTED"}', "{" * 5000, "x" * 200_000],
)  # fmt: skip
def test_the_strict_reader(text: str) -> None:
    assert not read_evaluation(text).ok and read_evaluation(text).reason


@given(st.text(alphabet='{}":, scoreSELCTDstatu0159.-\n', max_size=120))
def test_any_text_is_worth_something_in_range(text: str) -> None:
    for reward in (resume_v1(), resume_v2(), resume_repaired()):
        for columns in (GOOD, BAD):
            value = paid(reward, text, columns)
            low, high = reward.range  # type: ignore[attr-defined]
            assert low <= value <= high


def test_a_bad_gold_row_fails_alone() -> None:
    columns: dict[str, Any] = {
        "status": ["REJECT", "REJECT"],
        "evaluation_json": ["{broken", json.dumps({"overall_score": 40})],
        "job_description_skills": [ASKED, ASKED],
    }
    for made in (resume_v2, resume_repaired, resume_v1):
        scores = made().scores(["p", "q"], [answer(40, "REJECTED")] * 2, **columns)  # type: ignore[attr-defined]
        assert list(scores.failures) == [0] and scores.valid.tolist() == [False, True]
        garbage = made()(["p", "q"], ["garbage"] * 2, **columns)
        assert garbage[0] is None and garbage[1] is not None, "nor does garbage count in such a row"
    assert isinstance(evaluation_of({"evaluation_json": "[1]"}), Failed)
    with pytest.raises(GuerdonError, match="evaluation_json"):
        resume_v2().parts["status"](["p"], ["x"], status=["REJECT"], job_description_skills=[ASKED])


def test_guessed_years() -> None:
    said = {"senior lead": 10, "over 100 projects": 10, "15 people": 5, "mid level": 5, "3 years": 3, "junior": 1}
    assert {text: years_guessed(text) for text in said} == said
    assert years_guessed("deep knowledge") == 0 == years_guessed("")
    assert years_guessed("over 100 projects in 12 years", published=False) == 12
    assert years_guessed("amid juniors", published=False) == 0 and years_guessed("a senior", published=False) == 10


def test_sizes_vanish_in_a_group_of_two() -> None:
    for pair, expected in (((2.0, -2.0), 0.7071), ((2.0, -5.0), 0.7071), ((0.1, 0.0), 0.7061)):
        found = group_advantages(torch.tensor(pair), torch.zeros(2, dtype=torch.long), unbiased=True)
        assert found.tolist() == pytest.approx([expected, -expected], abs=1e-4)


def test_tables_bands_and_rules() -> None:
    table = ConfusionTable({("a", "a"): 1, ("a", "b"): -1, ("b", "a"): -2, ("b", "b"): 0})
    assert table("b", "a") == -2 and table.bounds == (-2, 1)
    assert [Bands([(10, 1), (20, 0)], -1)(one) for one in (10, 10.5, 20, 21)] == [1, 0, 0, -1]
    assert [Bands([(0.75, 1), (0.4, 0)], -1, at_least=True)(one) for one in (0.75, 0.5, 0.39)] == [1, 0, -1]
    rule = ConsistencyRule([(lambda a, r: a["x"] > r["y"], 2.0), (lambda a, r: True, 1.0)])
    assert rule({"x": 2}, {"y": 1}) == 2 and rule({"x": 0}, {"y": 1}) == 1 and rule.bounds == (0, 2)
    with pytest.raises(GuerdonError, match="label 'c'"):
        table("c", "a")
    for bad in (lambda: ConfusionTable({("a", "b"): 1}), lambda: ConfusionTable({}), lambda: ConsistencyRule([]),
                lambda: Bands([(20, 1), (10, 0)], -1)):  # fmt: skip
        with pytest.raises(GuerdonError):
            bad()


def test_moving_weights() -> None:
    def part(label: str, worth: float) -> StructuredPart:
        return StructuredPart(
            label, lambda a, r: worth, reader=lambda text: ParseResult(True), on_fail=0.0, bounds=(-1.0, 1.0)
        )

    made = DynamicWeights({"a": (part("a", 1.0), 0.5), "b": (part("b", -1.0), 0.5)}, {"b": part("d", -0.6)}, floor=0.1)
    assert made(["p"], ["x"]) == pytest.approx([(0.5 - 0.1) / 0.6])
    raw = DynamicWeights({"a": (part("a", 1.0), 0.5)}, {}, normalise=False)
    assert raw(["p"], ["x"]) == [0.5]
    with pytest.raises(GuerdonError, match="weight to be moved"):
        DynamicWeights({"a": (part("a", 1.0), 0.5)}, {"c": part("c", 0.0)})
    assert read_between_braces("a {1} b").ok is False and read_between_braces('x {"score": "nan"} y').ok is False
