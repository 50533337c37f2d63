"""Rules that read nothing: what they win, and what of a score they explain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from guerdon.benchmarks.one_to_many_items import OneToManyItem
from guerdon.benchmarks.rewardmath_scores import read_published_scores
from guerdon.benchmarks.shortcuts import item_features, residual_scores, shortcut_audit
from guerdon.core.errors import GuerdonError

STEPS = Path(__file__).parents[2] / "shared" / "data" / "rewardmath" / "Math_Shepherd_reward.json.gz"


def test_features_of_the_compared_solutions() -> None:
    item = OneToManyItem(
        "p", [], ("1 + 1 = 2\nso 2", "two", "it is 22", "3"), right=2, correct=1, places=(3, 0, 1, 2),
        steps=(("1 + 1 = 2", "so 2"), ("two",), ("it is 22",), ("3",)),
    )  # fmt: skip
    found = item_features([item])
    assert item.compared == [1, 2, 3]
    assert {name: rows[0].tolist() for name, rows in found.items()} == {
        "n_steps": [1, 1, 1], "n_tokens": [1, 3, 1], "n_digits": [0, 2, 1], "position": [0, 1, 2]
    }  # fmt: skip


def test_the_best_rule_stands_first() -> None:
    rows = [[1.0, 2.0, 3.0], [1.0, 1.0, 5.0], [4.0, 5.0, 6.0]]
    audit = shortcut_audit({"n_steps": rows})
    least, most = audit.rules
    assert (least.wins, least.acc, least.by_lot.value) == ("the least", pytest.approx(2 / 3), pytest.approx(2.5 / 3))
    assert least.pairwise == pytest.approx(5.5 / 6) and most.acc == 0 and least.chance == pytest.approx(1 / 3)
    assert audit.best is least and audit.to_dict()["rules"][0]["wins"] == "the least"
    json.dumps(audit.to_dict())


def test_permuted_features_win_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 9, size=10).astype(float) for _ in range(3000)]
    audit = shortcut_audit({"n_steps": rows}, resamples=200)
    for rule in audit.rules:
        assert rule.by_lot.value == pytest.approx(0.1, abs=0.02) and rule.pairwise == pytest.approx(0.5, abs=0.02)
        assert not rule.beats_chance or rule.by_lot.low < 0.12
        assert rule.acc < 0.08  # strictly first, ties lose: far below chance by itself


def test_the_residual_is_what_the_features_leave() -> None:
    rng = np.random.default_rng(0)
    length = [rng.standard_normal(4) for _ in range(500)]
    truth = [np.eye(4)[0] * 3 for _ in range(500)]
    level = rng.standard_normal(500)  # of each prompt: it means nothing
    by_length = shortcut_audit({"n_tokens": length}, [2 * row + up for row, up in zip(length, level)])
    assert by_length.score is not None and by_length.residual is not None
    assert by_length.residual["acc_tie"] == 1 and by_length.residual["acc"] == 0  # all is tied: nothing is left
    both = shortcut_audit({"n_tokens": length}, [2 * row + good + up for row, good, up in zip(length, truth, level)])
    assert both.score is not None and both.residual is not None
    assert both.residual["acc"] > 0.99 > both.score["acc"] + 0.05


def test_the_place_is_no_part_of_the_text() -> None:
    """Where the right answer always stands first its place is the label: nothing may be explained by it."""
    rng = np.random.default_rng(0)
    scores = [np.eye(4)[0] + 0.1 * rng.standard_normal(4) for _ in range(50)]
    audit = shortcut_audit({"position": [np.arange(4.0)] * 50, "n_tokens": [np.ones(4)] * 50}, scores)
    assert audit.best.feature == "position" and audit.best.acc == 1
    assert audit.residual == audit.score and audit.residual is not None and audit.residual["acc"] == 1


def test_an_item_without_a_score_is_left_out_of_the_fit() -> None:
    found = residual_scores(
        [np.array([1.0, np.nan]), np.array([2.0, 0.0])], {"n": [np.array([1.0, 2.0]), np.array([1.0, 0.0])]}
    )
    assert np.isnan(found[0]).all() and found[1] == pytest.approx(0)


def test_what_cannot_be_audited() -> None:
    with pytest.raises(GuerdonError, match="at least one feature"):
        shortcut_audit({})
    with pytest.raises(GuerdonError, match="one value an answer"):
        shortcut_audit({"a": [[1.0, 2.0]], "b": [[1.0]]})
    with pytest.raises(GuerdonError, match="one value an answer"):
        residual_scores([np.zeros(3)], {"a": [np.zeros(2)]})


def test_fewer_steps_win_nothing_on_the_published_solutions() -> None:
    if not STEPS.is_file():
        pytest.skip(f"{STEPS} is not there")
    found = read_published_scores(STEPS)
    assert found is not None
    audit = shortcut_audit({"n_steps": found.step_counts()}, resamples=200)
    least = next(rule for rule in audit.rules if rule.wins == "the least")
    assert round(100 * least.acc, 1) == 4.1 and not least.beats_chance
    assert least.pairwise == pytest.approx(0.511, abs=1e-3)  # 43.2% where equal counts lose
