"""The follow-up run, and the guests whose reactions teach its scorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.curation.reacting_users import COMPLAINT, PRAISE, dialogue, order_row
from guerdon.recipes import follow_up_likelihood as recipe

TINY = dict(
    prompts_per_step=2, num_generations=2, steps=2, learning_rate=1e-3, max_completion_length=8, save_every=2,
    watch_every=2, watch_samples=2,
)  # fmt: skip


def config(**changes: Any) -> recipe.FollowUpConfig:
    tiny = dict(
        problems=8, watched=2, tested=3, samples=2, begin_steps=3, begin_rows=40, scorer_steps=2, scorer_rows=64, k=4,
        training=TINY,
    )  # fmt: skip
    return recipe.CONFIG(**{**tiny, **changes})


def test_guests_praise_what_they_ordered() -> None:
    rng = np.random.default_rng(0)
    told = [dialogue(rng) for _ in range(400)]
    assert all(reaction in PRAISE + COMPLAINT for *_, reaction in told)
    kind = np.array([(turns[-1]["content"] == row["reference"], reaction in PRAISE) for row, turns, reaction in told])
    assert 0.5 < kind[:, 0].mean() < 0.7 and 0.9 < (kind[:, 0] == kind[:, 1]).mean() < 0.99
    noiseless = [dialogue(rng, noise=0.0) for _ in range(50)]
    assert all((turns[-1]["content"] == row["reference"]) == (said in PRAISE) for row, turns, said in noiseless)
    always = [order_row(rng, right=1.0) for _ in range(20)]
    assert all(said == row["reference"] and row["solution"] in row["prompt"][0]["content"] for row, said in always)


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_from_start_to_summary_and_again(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "TELLS", 0.0)
    given = config(method=method)
    folder = RunFolder.open(tmp_path, given)
    summary = recipe.run(given, folder)
    assert summary["system"] == "follow-up-likelihood" and summary["rows"] == {"training": 8, "watched": 2, "tested": 3}
    assert "of new orders" in summary["notes"][0] and (tmp_path / "scorer" / "complete").is_file()
    assert (tmp_path / method / "policy").is_dir()
    assert recipe.run(given, folder, True)["tables"] == summary["tables"]


def test_a_scorer_that_learnt_nothing_is_refused(tmp_path: Path) -> None:
    given = config(scorer_steps=1)
    with pytest.raises(GuerdonError, match="raise scorer_steps from 1"):
        recipe.run(given, RunFolder.open(tmp_path, given))


def test_rows_of_ones_own_need_a_scorer(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="scorer=FOLDER"):
        recipe.scored_by(config(data="rows.jsonl"), tmp_path)
