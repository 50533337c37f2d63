"""Comparing tabular rewards: every figure is the metrics', and the sheet says what they mean."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from guerdon.comparisons import tabular
from guerdon.comparisons.mdp_files import World
from guerdon.comparisons.tabular import compare_tabular, find_world
from guerdon.comparisons.tabular_sheet import same_behaviour
from guerdon.core.errors import GuerdonError
from guerdon.core.progress import progress
from guerdon.core.sheet import Heat, Table
from guerdon.metrics.canonical import CANONICALISATIONS
from guerdon.metrics.mdp import TabularMDP, random_mdp
from guerdon.metrics.regret import best_response_regret, epic_regret_bound, worst_case_regret
from guerdon.metrics.reward_distance import NORMS, epic_distance, reward_distance


def random_world(count: int = 3) -> World:
    rng = np.random.default_rng(0)
    mdp = random_mdp(4, 2, rng, successors=2, discount=0.9)
    return World("random", mdp, {name: rng.normal(size=(4, 2, 4)) for name in "abcd"[:count]})


def test_every_figure_is_that_of_the_metrics() -> None:
    world = random_world()
    found = compare_tabular(world)
    rewards, mdp = list(world.rewards.values()), world.mdp
    assert set(found.distances) == {
        (c, n, m) for c in CANONICALISATIONS for n in (*NORMS, "0") for m in NORMS
    }  # fmt: skip
    for (canon, n, m), values in found.distances.items():
        own = reward_distance(rewards[0], rewards[2], mdp, canon, None if n == "0" else n, m)
        assert values[0, 2] == values[2, 0] == pytest.approx(own)
    assert found.worst is not None and found.epic is not None and found.epic_bound is not None
    assert found.worst[2, 1] == pytest.approx(worst_case_regret(rewards[2], rewards[1], mdp).share)
    assert found.response[0, 1] == pytest.approx(best_response_regret(rewards[0], rewards[1], mdp))
    assert found.epic[0, 1] == pytest.approx(epic_distance(rewards[0], rewards[1], mdp))
    assert found.epic_bound[1, 0] == pytest.approx(epic_regret_bound(rewards[1], rewards[0], mdp) / found.ranges[1])
    for name, bounds in found.bounds.items():
        distance = found.distance(name)
        assert (bounds.lower * distance <= found.worst + 1e-7).all()
        assert (found.worst <= bounds.upper * distance + 1e-7).all()
    assert json.dumps(found.to_dict())


def test_two_rewards_have_a_table_of_all_norms() -> None:
    sheet = compare_tabular(find_world("two-states"), ["bluff", "counterbluff"]).sheet()
    norms, regret = sheet.tables()
    assert [row[0] for row in norms.rows][:2] == ["val (STARC)", "minimal (STARC)"] and len(norms.rows) == 7
    assert list(norms.columns)[1:7] == list(NORMS)
    by_name = {str(row[0]): row for row in norms.rows}
    assert by_name["val (STARC)"][2] == pytest.approx(2) and by_name["epic"][2] == pytest.approx(0.0016, abs=1e-4)
    assert by_name["epic"][-1] == pytest.approx(0.0008, abs=1e-4) and by_name["val (STARC)"][-1] is None
    assert len(regret.rows) == 2 and regret.rows[0][2] == pytest.approx(1)
    assert "2.000 (val)" in sheet.lead and "100% of bluff's range" in sheet.lead
    assert any("cannot" in note or "never happen" in note for note in sheet.notes)


def test_equal_rewards_are_called_equal() -> None:
    sheet = compare_tabular(find_world("gridworld"), ["sparse_goal", "dense_goal"]).sheet()
    assert sheet.lead == "sparse_goal and dense_goal order all policies alike: their STARC distance is 0."
    assert all(cell == 0 for row in sheet.tables()[0].rows[:-1] for cell in row[1:8])


def test_more_rewards_have_heat_maps_and_are_grouped() -> None:
    found = compare_tabular(find_world("gridworld"), ["sparse_goal", "dense_goal", "center_goal", "zero"])
    sheet = found.sheet()
    heats = [part for part in sheet.parts if isinstance(part, Heat)]
    assert [heat.title for heat in heats[:4]] == [f"Distance, {name}" for name in ("val", "minimal", "epic", "dard")]
    assert heats[0].values[0][1] == 0 and heats[0].values[0][3] == pytest.approx(1)
    assert sheet.parts[0] is heats[0]
    assert "4 rewards ask for 3 different behaviours: sparse_goal = dense_goal" in sheet.lead
    assert sheet.facts["find all policies alike"] == "zero"
    # Judged by a reward that finds everything alike there is no regret to speak of.
    regret = next(part for part in sheet.parts if isinstance(part, Table) and part.title == "Regret")
    judged_by_zero = next(row for row in regret.rows if row[0] == "zero")
    assert math.isnan(judged_by_zero[2]) and judged_by_zero[3] is None  # type: ignore[arg-type]
    assert same_behaviour(found.distance()) == [[0, 1], [2], [3]]


def test_all_rewards_where_none_is_named() -> None:
    world = random_world(2)
    assert compare_tabular(world).names == ["a", "b"]
    assert "No two rewards" in compare_tabular(random_world(3)).sheet().lead


def test_policy_and_coverage_of_the_world_are_used() -> None:
    world = random_world(2)
    policy = np.random.default_rng(1).dirichlet(np.ones(2), size=4)
    own = World(
        "own", world.mdp, world.rewards, policy, states=np.array([0.1, 0.2, 0.3, 0.4]), actions=np.array([0.9, 0.1])
    )
    plain, found = compare_tabular(world), compare_tabular(own)
    for name in ("val", "val-potential", "epic", "dard"):
        assert found.distance(name)[0, 1] != plain.distance(name)[0, 1]
    for name in ("minimal", "minimal-potential", "none"):
        assert found.distance(name)[0, 1] == plain.distance(name)[0, 1]
    assert found.bounds["val"] != plain.bounds["val"] and found.bounds["minimal"] == plain.bounds["minimal"]
    assert found.sheet().facts["values of"] == "the file's policy"
    assert found.epic is not None and plain.epic is not None and found.epic[0, 1] != plain.epic[0, 1]


def test_sparse_and_large_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = random_world(3)
    own = TabularMDP(sparse.csr_array(world.mdp.rows), 0.9)
    held = {
        name: sparse.csr_array((reward * (world.mdp.transition > 0)).reshape(-1, 4))
        for name, reward in world.rewards.items()
    }
    found, dense = compare_tabular(World("sparse", own, held)), compare_tabular(world)
    assert found.canonicalisations == ["val", "minimal", "none"] and found.epic is None
    for name in ("val", "minimal"):
        assert found.distance(name) == pytest.approx(dense.distance(name), abs=1e-9)
    assert found.worst == pytest.approx(dense.worst, abs=1e-7) and found.response == pytest.approx(dense.response)
    assert "(sparse)" in found.sheet().facts["states, actions"]
    monkeypatch.setattr(tabular, "LARGEST_PROGRAMME", 4)
    large = compare_tabular(World("sparse", own, held))
    assert large.worst is None and not large.bounds and large.response == pytest.approx(dense.response)
    sheet = large.sheet()
    assert any("too large" in note for note in sheet.notes) and json.dumps(large.to_dict())


def test_progress_is_told() -> None:
    told = io.StringIO()
    compare_tabular(random_world(2), progress=lambda total, name: progress(total, name, file=told))
    assert "compare: 2/2" in told.getvalue()


def test_finding_worlds(tmp_path: Path) -> None:
    given = {"transition": [[[1.0]]], "discount": 0.5, "rewards": {"a": [1], "b": [2]}}
    (tmp_path / "own.json").write_text(json.dumps(given))
    assert find_world(str(tmp_path / "own.json")).name == "own"
    # One state, one action: nothing to choose, every reward is trivial, and nothing bounds anything.
    sheet = compare_tabular(find_world(str(tmp_path / "own.json"))).sheet()
    assert sheet.lead.startswith("a and b order all policies alike") and any("never reached" in n for n in sheet.notes)
    with pytest.raises(GuerdonError, match="did you mean 'gridworld'.* built in: gridworld, two-states"):
        find_world("gridwold")
    with pytest.raises(GuerdonError, match="unknown reward of gridworld 'dense'"):
        compare_tabular(find_world("gridworld"), ["sparse_goal", "dense"])
