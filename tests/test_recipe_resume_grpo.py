"""Resume-GRPO end to end at its smallest: each reward, what its linter notes, and rows of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.curation.applications import application
from guerdon.recipes import resume_grpo as recipe
from guerdon.recipes.resume_grpo import REWARDS, ResumeConfig, checked, linted
from guerdon.rewards.text.resume import evaluation_of
from made_runs import SMALL, written


def trained(place: Path, resume: bool = False, **more: Any) -> dict[str, Any]:
    config = ResumeConfig(**{**SMALL, **more})
    return recipe.run(config, RunFolder.open(place, config, resume=resume), resume)


def own_rows(count: int = 20) -> list[dict[str, Any]]:
    rng = np.random.default_rng(9)
    return [application(rng)[0] for _ in range(count)]


@pytest.mark.parametrize("reward", ["repaired", "v1", "v2"])
def test_a_small_run_with_each_reward(tmp_path: Path, reward: str) -> None:
    summary = trained(tmp_path, reward=reward)
    assert summary["system"] == "resume-grpo" and summary["last_step"] == 2
    assert summary["rewards"] == {reward: 1.0} and summary["rows"] == {"training": 16, "watched": 4, "tested": 4}
    assert any("nothing follows on decisions about people" in note for note in summary["notes"])
    assert any(note.startswith("linter") for note in summary["notes"]) == (reward != "repaired")


def test_a_run_that_goes_on_says_the_same(tmp_path: Path) -> None:
    summary = trained(tmp_path)
    again = trained(tmp_path, resume=True)
    assert again["tables"] == summary["tables"] and again["notes"] == summary["notes"]


def test_the_linter_names_the_faults_of_the_published_reward_alone() -> None:
    rows = own_rows(64)
    checks = {(flag.check, flag.part) for flag in linted(REWARDS["v2"](), rows)}
    assert any("skills" in part for _, part in checks) and len({check for check, _ in checks}) >= 2
    for some in (rows, [row for row in rows if evaluation_of(row).overlap][:16]):  # type: ignore[union-attr]
        assert linted(REWARDS["repaired"](), some) == []


def test_rows_and_a_model_of_ones_own(tmp_path: Path) -> None:
    begun = trained(tmp_path / "begun")
    data = written(tmp_path / "rows.jsonl", [{**row, "office": "mine"} for row in own_rows()])
    summary = trained(tmp_path / "own", data=data, model=begun["model"])
    assert summary["rows"] == {"training": 12, "watched": 4, "tested": 4}
    (note,) = summary["notes"]
    assert note.startswith("SELECTED is right in")


@pytest.mark.parametrize("column", ["status", "evaluation_json", "job_description_skills"])
def test_a_file_without_a_gold_column_is_named(tmp_path: Path, column: str) -> None:
    rows = [{key: value for key, value in row.items() if key != column} for row in own_rows()]
    with pytest.raises(GuerdonError, match=f"'The job asks for .*' needs the column '{column}'; it has prompt"):
        trained(tmp_path / "run", data=written(tmp_path / "rows.jsonl", rows))


def test_one_bad_row_is_named_by_its_words() -> None:
    rows = own_rows(5)
    for column, given, told in (("status", None, "needs the column 'status'"), ("evaluation_json", "{bad", "JSON")):
        bad = [*rows[:3], {**rows[3], column: given}, rows[4]]
        with pytest.raises(GuerdonError, match=told) as raised:
            checked(bad)
        assert rows[3]["prompt"][0]["content"][:60] in str(raised.value)


def test_what_is_said_for_votes() -> None:
    assert recipe._said('{"score": 80, "status": "SELECTED", "skills": []}') == "SELECTED"
    assert recipe._said("take him") is None
