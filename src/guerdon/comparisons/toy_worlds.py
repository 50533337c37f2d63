"""Small processes to look at by hand: a 3 x 3 gridworld with rewards that are equal in disguise, and two states."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from guerdon.comparisons.mdp_files import World
from guerdon.metrics.mdp import TabularMDP, shape

SIDE = 3
GOAL = (SIDE - 1, SIDE - 1)
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1), "stay": (0, 0)}
GRID_DISCOUNT = 0.99


def gridworld() -> World:
    """Nine cells, five moves (up, down, left, right, stay) that always succeed but at a wall, start anywhere.

    Rewards are on the cell that is entered. Written from the descriptions of EPIC's gridworld rewards; the sizes of
    penalties are our own.

    sparse_goal     1 in the goal, the lower right corner.
    shifted_goal    sparse_goal + 1.
    scaled_goal     10 sparse_goal.
    dense_goal      sparse_goal shaped by minus the Manhattan distance to the goal: a step closer pays.
    antidense_goal  sparse_goal shaped by plus that distance: a step closer costs; asks for the same behaviour.
    center_goal     1 in the middle.
    dirt_path       sparse_goal, and -1 in four cells, which leave one clean way round.
    cliff_walk      sparse_goal, and -4 in the two other cells of the goal's row, on the shortest way along it.
    sparse_penalty  -1 in the goal.
    zero            nothing.
    """
    cells = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    transition = np.zeros((len(cells), len(MOVES), len(cells)))
    for place, (row, column) in enumerate(cells):
        for action, (down, right) in enumerate(MOVES.values()):
            new = (min(max(row + down, 0), SIDE - 1), min(max(column + right, 0), SIDE - 1))
            transition[place, action, cells.index(new)] = 1.0
    mdp = TabularMDP(transition, GRID_DISCOUNT)

    def entered(worth: Mapping[tuple[int, int], float]) -> NDArray[np.float64]:
        table = np.array([worth.get(cell, 0.0) for cell in cells])
        return np.broadcast_to(table, (len(cells), len(MOVES), len(cells)))

    distance = np.array([abs(GOAL[0] - row) + abs(GOAL[1] - column) for row, column in cells], dtype=np.float64)
    goal = entered({GOAL: 1.0})
    rewards = {
        "sparse_goal": goal,
        "shifted_goal": goal + 1,
        "scaled_goal": 10 * goal,
        "dense_goal": shape(goal, -distance, GRID_DISCOUNT),
        "antidense_goal": shape(goal, distance, GRID_DISCOUNT),
        "center_goal": entered({(1, 1): 1.0}),
        "dirt_path": entered({GOAL: 1.0, (1, 0): -1.0, (1, 1): -1.0, (2, 0): -1.0, (2, 1): -1.0}),
        "cliff_walk": entered({GOAL: 1.0, (2, 0): -4.0, (2, 1): -4.0}),
        "sparse_penalty": entered({GOAL: -1.0}),
        "zero": entered({}),
    }
    return World("gridworld", mdp, rewards, about=f"{SIDE} x {SIDE} cells, {len(MOVES)} moves, gamma {GRID_DISCOUNT}")


def two_states() -> World:
    """Two states, to stay or to switch; entering state 1 from state 0 pays 1. gamma 0.9, start in either.

    switch     that reward. Its values under the uniform policy are 2.75 and 2.25.
    shaped     twice switch, shaped by the potential (3, -2).
    shifted    switch + 1.
    opposite   -switch.
    impossible switch, with +5 for staying in 0 that ends in 1, and -7 for switching from 1 that ends in 1: nothing that
               can happen.
    bluff, counterbluff  switch and -switch, each plus 1,000 for staying in 0 that ends in 1: EPIC finds them nearly
               the same, policies could not differ more.
    """
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, 0, 1] = transition[1, 1, 0] = 1.0
    switch, impossible, bluff = np.zeros((3, 2, 2, 2))
    switch[0, 1, 1] = 1.0
    impossible[0, 0, 1], impossible[1, 1, 1] = 5.0, -7.0
    bluff[0, 0, 1] = 1000.0
    rewards = {
        "switch": switch,
        "shaped": 2 * shape(switch, np.array([3.0, -2.0]), 0.9),
        "shifted": switch + 1,
        "opposite": -switch,
        "impossible": switch + impossible,
        "bluff": switch + bluff,
        "counterbluff": -switch + bluff,
    }
    return World("two-states", TabularMDP(transition, 0.9), rewards, about="two states, stay or switch, gamma 0.9")


TOY_WORLDS: Mapping[str, Callable[[], World]] = {"gridworld": gridworld, "two-states": two_states}
"""By the names that ``guerdon compare --mdp`` takes."""
