"""Published result files give the published accuracies, and files that do not fit are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.benchmarks.rewardmath_scores import PublishedScores, read_published_scores
from guerdon.core.errors import GuerdonError

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "rewardmath"


def published(name: str) -> PublishedScores:
    path = FOLDER / f"{name}_reward.json.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    found = read_published_scores(path)
    assert found is not None
    return found


def percent(value: float) -> float:
    return round(100 * value, 2)


def test_a_scalar_model() -> None:
    found = published("ArmoRM")
    ranked = found.by_problem(found.ranked())
    assert (found.kind, found.name, len(ranked)) == ("scores", "ArmoRM", 483)
    assert (percent(ranked.acc), percent(ranked.acc_tie), percent(ranked.mrr)) == (20.50, 21.53, 42.18)
    assert ranked.chance == pytest.approx(0.1) and found.reducers() == {} and found.position_bias() is None


def test_a_process_model_by_each_reducer() -> None:
    found = published("Math_Shepherd")
    table = found.reducers()
    assert found.kind == "steps" and len(table) == 8
    known = {how: (percent(table[how]["acc"]), percent(table[how]["mrr"])) for how in ("prod", "last", "min")}
    assert known == {"prod": (17.18, 34.68), "last": (18.22, 38.83), "min": (15.32, 34.67)}
    counts = (
        np.concatenate([row[:1] for row in found.step_counts()]),
        np.concatenate([row[1:] for row in found.step_counts()]),
    )
    assert [round(float(one.mean()), 1) for one in counts] == [6.1, 6.2]


def test_a_judge_of_pairs() -> None:
    found = published("gpt4_pairwise")
    ranked = found.by_problem(found.ranked())
    assert (percent(ranked.acc), percent(ranked.mrr)) == (29.81, 51.92) and found.unparsable() == 35
    assert percent(found.ranked(unparsable="leave_out").acc) == 32.00
    bias = found.position_bias()
    assert bias is not None and bias.counts == {"A": 2177, "B": 2170}
    assert {name: round(100 * one.value, 1) for name, one in bias.accuracy.items()} == {"A": 79.2, "B": 75.7}
    with pytest.raises(GuerdonError, match="comparisons, not scores"):
        found.scores()


# ---- made files


def written(tmp_path: Path, rows: Any, name: str = "made_reward.json") -> Path:
    path = tmp_path / name
    text = json.dumps(rows).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def test_a_problem_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    rows = [{"problem": "p", "score": [2, 1]}, {"problem": "q", "score": [1, 1]}, {"problem": "p", "score": [0, 1]}]
    found = read_published_scores(written(tmp_path, rows, "x_reward.json.gz"))
    assert found is not None and found.names() == ["p", "q"] and found.name == "x"
    ranked = found.by_problem(found.ranked())
    assert ranked.first.tolist() == [0.5, 0] and ranked.acc == 0.25 and found.ranked().acc == pytest.approx(1 / 3)


def test_a_row_a_solution(tmp_path: Path) -> None:
    rows = [
        {"problem": "p", "problem_id": 4, "solution_type": kind, "output": {"step_scores": steps}}
        for kind, steps in (("rejected", [0.9, 0.1]), ("chosen", [0.5, 0.5]), ("rejected", [0.2]))
    ]
    found = read_published_scores(written(tmp_path, rows))
    assert found is not None and found.kind == "steps" and found.ranked("min").acc == 1 and found.ranked("max").acc == 0
    with pytest.raises(GuerdonError, match="one chosen"):
        read_published_scores(written(tmp_path, rows[:1]))


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    scores = read_published_scores(written(tmp_path, [{"problem": "p", "score": [1, None]}]))
    steps = read_published_scores(written(tmp_path, [{"problem": "p", "score": [[0.5], []]}]))
    for found in (scores, steps):
        assert found is not None and found.unparsable() == 1 and not found.ranked().measured.any()


@pytest.mark.parametrize("rows", [{"id": [1]}, [], [{"id": "a", "score": [1]}], [1], "text"])
def test_a_file_of_another_kind_is_none(tmp_path: Path, rows: Any) -> None:
    assert read_published_scores(written(tmp_path, rows)) is None
    assert read_published_scores(tmp_path / "absent.json") is None


@pytest.mark.parametrize(
    "row, said",
    [
        ({"problem": "p", "score": []}, ":2: a row"),
        ({"problem": 3, "score": [1]}, ":2: a row"),
        ({"problem": "p", "score": [1, "x"]}, ":2: a score must be a number, got 'x'"),
        ({"problem": "p", "score": ["A"], "chosen_position": ["C"]}, "place A or B"),
        ({"problem": "p", "score": ["A"], "chosen_position": ["A", "B"]}, "each of 1"),
        ({"problem": "p", "score": [[0.5], [0.5]]}, "mixes rows of scores and steps"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(GuerdonError, match=said):
        read_published_scores(written(tmp_path, [{"problem": "p", "score": [1, 2]}, row]))
