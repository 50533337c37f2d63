"""Shop-R1 end to end at its smallest: each reward, its resumption, rows of one's own, and rows that lack something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.curation.shop_sessions import shop_session
from guerdon.recipes import shop_r1 as recipe
from guerdon.recipes.shop_r1 import ShopConfig
from guerdon.rewards.text.hierarchical import exact_action
from made_runs import SMALL, written


def trained(place: Path, resume: bool = False, **more: Any) -> dict[str, Any]:
    config = ShopConfig(**{**SMALL, **more})
    return recipe.run(config, RunFolder.open(place, config, resume=resume), resume)


def own_rows(count: int = 20) -> list[dict[str, Any]]:
    rng = np.random.default_rng(9)
    return [shop_session(rng)[0] for _ in range(count)]


@pytest.mark.parametrize("reward", ["hierarchy", "with_certainty", "exact"])
def test_a_small_run_with_each_reward(tmp_path: Path, reward: str) -> None:
    summary = trained(tmp_path, reward=reward)
    assert summary["system"] == "shop-r1" and summary["last_step"] == 2
    assert summary["rows"] == {"training": 16, "watched": 4, "tested": 4}
    assert list(summary["rewards"]) == ["exact" if reward == "exact" else "shop_r1"]
    assert (Path(summary["model"]) / "model.safetensors").is_file()
    assert any("is made" in note for note in summary["notes"])


def test_a_run_that_goes_on_says_the_same(tmp_path: Path) -> None:
    summary = trained(tmp_path)
    assert trained(tmp_path, resume=True)["tables"] == summary["tables"]


def test_nothing_is_both_trained_on_and_tested(tmp_path: Path) -> None:
    from guerdon.recipes._made_world import made_world

    config = ShopConfig(**{**SMALL, "problems": 200, "watched": 20, "tested": 20})
    found = made_world(shop_session, said=recipe._said).problems(config)
    parts = [{json.dumps(row["prompt"]) for row in part} for part in (found.train, found.watched, found.tested)]
    assert [len(part) for part in parts] == [200, 20, 20]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_rows_and_a_model_of_ones_own(tmp_path: Path) -> None:
    begun = trained(tmp_path / "begun")
    data = written(tmp_path / "rows.jsonl", [{**row, "shop": "mine"} for row in own_rows()])
    summary = trained(tmp_path / "own", data=data, model=begun["model"])
    assert summary["rows"] == {"training": 12, "watched": 4, "tested": 4} and summary["notes"] == []


def test_a_file_without_wanted_actions_is_named(tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", [{"prompt": row["prompt"]} for row in own_rows()])
    with pytest.raises(GuerdonError, match="the row 'You want .*' needs the wanted action in the column 'solution'"):
        trained(tmp_path / "run", data=data)


@pytest.mark.parametrize(
    ("solution", "told"), [(None, "it has 'None'"), ("click it", "it has 'click it'"), ('{"type": "hover"}', "hover")]
)
def test_one_bad_row_is_named_wherever_it_falls(tmp_path: Path, solution: Any, told: str) -> None:
    rows = own_rows()
    rows[5] = {**rows[5], "solution": solution}
    with pytest.raises(GuerdonError, match=told) as raised:
        trained(tmp_path / "run", data=written(tmp_path / "rows.jsonl", rows))
    assert rows[5]["prompt"][0]["content"][:60] in str(raised.value)


def test_the_judge_wants_the_whole_action() -> None:
    wanted = {"type": "click", "name": "checkout"}

    def paid(action: dict[str, str], wanted: dict[str, str] = wanted) -> Any:
        said = json.dumps({"rationale": "", "action": action})
        return exact_action()(["What next?"], [said], solution=[wanted])[0]

    assert paid(wanted) == 1.0 and paid({**wanted, "text": ""}) == 1.0
    assert paid({**wanted, "name": "checkout_now"}) == 0.0 and paid({"type": "terminate"}) == 0.0
    assert exact_action()(["What next?"], ["checkout"], solution=[wanted]) == [0.0]


def test_what_is_said_for_votes() -> None:
    said = '{"rationale": "why", "action": {"type": "click", "name": "back"}}'
    assert recipe._said(said) == "name=back | type=click" and recipe._said("back") is None
