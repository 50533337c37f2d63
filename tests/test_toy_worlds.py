"""The built-in worlds are what their descriptions say."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.comparisons.toy_worlds import TOY_WORLDS, gridworld, two_states
from guerdon.metrics.mdp import expected_reward
from guerdon.metrics.reward_distance import epic_distance, reward_distance

GRID = gridworld()


def test_moves_of_the_gridworld() -> None:
    tau = GRID.mdp.transition
    assert tau.shape == (9, 5, 9) and ((tau == 0) | (tau == 1)).all()
    # From the middle: up, down, left, right, stay; at a wall nothing moves.
    assert tau[4].argmax(-1).tolist() == [1, 7, 3, 5, 4]
    assert tau[0].argmax(-1).tolist() == [0, 3, 0, 1, 0] and tau[8].argmax(-1).tolist() == [5, 8, 7, 8, 8]


def test_rewards_of_the_gridworld() -> None:
    gain = {name: expected_reward(reward, GRID.mdp) for name, reward in GRID.rewards.items()}
    assert gain["sparse_goal"].sum() == 5  # from above, from the left, down and right at the wall, stay
    # A step closer pays, a step away costs, by potential.
    assert gain["dense_goal"][0, 3] > 0 > gain["dense_goal"][1, 2]
    assert gain["antidense_goal"][0, 3] < 0 < gain["antidense_goal"][1, 2]
    assert not gain["zero"].any() and gain["cliff_walk"].min() == -4 and gain["center_goal"].sum() == 5


@pytest.mark.parametrize("name", ["shifted_goal", "scaled_goal", "dense_goal", "antidense_goal"])
def test_disguises_of_the_goal(name: str) -> None:
    goal, other = GRID.rewards["sparse_goal"], GRID.rewards[name]
    for canon in ("val", "minimal", "epic", "dard"):
        assert reward_distance(goal, other, GRID.mdp, canon) == pytest.approx(0, abs=1e-7)


def test_other_goals_are_other_goals() -> None:
    goal = GRID.rewards["sparse_goal"]
    for name in ("center_goal", "dirt_path", "cliff_walk"):
        assert 0.5 < reward_distance(goal, GRID.rewards[name], GRID.mdp) < 2
    assert reward_distance(goal, GRID.rewards["sparse_penalty"], GRID.mdp) == pytest.approx(2)
    assert reward_distance(goal, GRID.rewards["zero"], GRID.mdp) == pytest.approx(1)


def test_the_bluff() -> None:
    world = two_states()
    pair = world.rewards["bluff"], world.rewards["counterbluff"]
    assert epic_distance(*pair, world.mdp) < 0.001 and reward_distance(*pair, world.mdp) == pytest.approx(2)


def test_they_are_found_by_name() -> None:
    assert {name: make().name for name, make in TOY_WORLDS.items()} == {name: name for name in TOY_WORLDS}
    assert all(np.isfinite(reward).all() for make in TOY_WORLDS.values() for reward in make().rewards.values())
