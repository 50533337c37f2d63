"""Made applications: the rule decides, the gold columns say so, and no person can be told from them."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from guerdon.curation.applications import SKILLS, application
from guerdon.rewards.text.resume import evaluation_of, read_evaluation, resume_decision

SAID = re.compile(
    r"The job asks for (?P<asked>.*) and (?P<needed>\d+) years\. "
    r"The candidate has (?P<has>.*) and (?P<years>\d+) years\. Evaluate\."
)


def drawn(count: int, seed: int = 1) -> list[tuple[dict[str, Any], str]]:
    rng = np.random.default_rng(seed)
    return [application(rng) for _ in range(count)]


def test_the_decision_follows_from_the_prompt_by_the_rule() -> None:
    for row, _ in drawn(500):
        found = SAID.fullmatch(row["prompt"][0]["content"])
        assert found
        asked, has = found["asked"].split(", "), found["has"].split(", ")
        both = set(asked) & set(has)
        selected = len(both) >= len(asked) / 2 and int(found["years"]) >= int(found["needed"])
        assert row["status"] == ("SELECTED" if selected else "REJECTED")
        gold = evaluation_of(row)
        assert gold.asked == set(asked) and gold.present == set(has) and 0 <= gold.score <= 100  # type: ignore[union-attr]


def test_prompts_hold_skills_and_years_and_nothing_of_a_person() -> None:
    words = {word for row, _ in drawn(500) for word in re.findall(r"[A-Za-z]+", row["prompt"][0]["content"])}
    assert words <= {*SKILLS, "The", "job", "asks", "for", "and", "years", "candidate", "has", "Evaluate"}


def test_answers_are_legal_and_neither_status_is_rare() -> None:
    rows = drawn(3000)
    assert all(read_evaluation(answer).ok for _, answer in rows)
    # A careless third guesses, and half of all guesses are right.
    right = [json.loads(answer)["status"] == row["status"] for row, answer in rows]
    assert np.mean(right) == pytest.approx(1 - 0.35 / 2, abs=0.03)
    assert np.mean([row["status"] == "SELECTED" for row, _ in rows]) == pytest.approx(0.5, abs=0.07)


def test_the_judge_sees_the_decision_alone() -> None:
    row, _ = drawn(1)[0]
    columns = {name: [value] * 3 for name, value in row.items() if name != "prompt"}
    other = {"SELECTED": "REJECTED", "REJECTED": "SELECTED"}[row["status"]]
    said = [json.dumps({"score": 1, "status": status, "skills": []}) for status in (row["status"], other)]
    assert resume_decision()([row["prompt"]] * 3, [*said, "no answer"], **columns) == [1.0, 0.0, 0.0]


def test_the_same_seed_draws_the_same() -> None:
    assert drawn(20) == drawn(20) and drawn(20) != drawn(20, seed=2)
