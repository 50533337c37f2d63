"""Finite processes: values, returns, occupancies, and the changes of a reward that no policy feels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from guerdon.comparisons.toy_worlds import two_states
from guerdon.core.errors import GuerdonError
from guerdon.metrics.mdp import (
    TabularMDP,
    expected_reward,
    occupancy,
    policy_return,
    policy_values,
    random_mdp,
    redistribute,
    shape,
)

Array = NDArray[np.float64]


def sparse_copy(mdp: TabularMDP) -> TabularMDP:
    return TabularMDP(sparse.csr_array(mdp.rows), mdp.discount, mdp.initial)


def made(seed: int, states: int = 6, actions: int = 3, successors: int = 2) -> tuple[TabularMDP, Array, Array]:
    """A random process, a reward and a policy."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(states, actions, rng, successors=successors, discount=0.9)
    return mdp, rng.normal(size=(states, actions, states)), rng.dirichlet(np.ones(actions), size=states)


def test_the_cards_values() -> None:
    world = two_states()
    assert policy_values(world.rewards["switch"], world.mdp) == pytest.approx([2.75, 2.25])


def test_values_are_the_discounted_sum_of_rewards() -> None:
    mdp, reward, policy = made(0)
    chain = np.einsum("sa,sat->st", policy, mdp.transition)
    gain = np.einsum("sa,sat,sat->s", policy, mdp.transition, reward)
    summed, weight = np.zeros(mdp.states), np.eye(mdp.states)
    for _ in range(400):
        summed += weight @ gain
        weight = mdp.discount * weight @ chain
    assert policy_values(reward, mdp, policy) == pytest.approx(summed, abs=1e-10)


def test_returns_are_occupancy_times_reward() -> None:
    mdp, reward, policy = made(1)
    visits = occupancy(mdp, policy)
    assert visits.sum() == pytest.approx(1 / (1 - mdp.discount)) and (visits >= 0).all()
    assert policy_return(reward, mdp, policy) == pytest.approx((visits * expected_reward(reward, mdp)).sum())


def test_several_rewards_at_once() -> None:
    mdp, reward, policy = made(2)
    stack = np.stack([reward, -2 * reward, reward**2])
    values = policy_values(stack, mdp, policy)
    assert values.shape == (3, mdp.states)
    for row, one in zip(values, stack):
        assert row == pytest.approx(policy_values(one, mdp, policy))


@pytest.mark.parametrize("form", ["table", "sparse", "of state and action"])
def test_dense_and_sparse_processes_agree(form: str) -> None:
    mdp, reward, policy = made(3, states=12)
    reward = np.where(mdp.transition > 0, reward, 0.0)
    given = {
        "table": reward,
        "sparse": sparse.csr_array(reward.reshape(-1, 12)),
        "of state and action": reward[..., :1],
    }[form]
    own = sparse_copy(mdp)
    assert own.is_sparse and (own.states, own.actions) == (12, 3)
    for function in (lambda m: expected_reward(given, m), lambda m: policy_values(given, m, policy)):
        assert function(own) == pytest.approx(function(mdp), abs=1e-10)
    assert occupancy(own, policy) == pytest.approx(occupancy(mdp, policy), abs=1e-10)
    assert policy_return(given, own) == pytest.approx(policy_return(given, mdp), abs=1e-10)


def test_a_zero_reward_has_zero_values_in_a_sparse_process() -> None:
    mdp = sparse_copy(made(4)[0])
    assert not policy_values(np.zeros((6, 3, 1)), mdp).any()


def test_shaping_moves_all_returns_by_one_constant() -> None:
    mdp, reward, _ = made(5)
    rng = np.random.default_rng(0)
    phi = rng.normal(size=mdp.states)
    shaped = shape(reward, phi, mdp.discount)
    for _ in range(5):
        policy = rng.dirichlet(np.ones(mdp.actions), size=mdp.states)
        moved = policy_return(shaped, mdp, policy) - policy_return(reward, mdp, policy)
        assert moved == pytest.approx(-(mdp.initial @ phi))


def test_redistribution_moves_no_return() -> None:
    mdp, reward, policy = made(6)
    other = redistribute(reward, mdp, 100 * np.random.default_rng(1).normal(size=reward.shape))
    assert np.abs(other - reward).max() > 10
    assert expected_reward(other, mdp) == pytest.approx(expected_reward(reward, mdp), abs=1e-10)
    assert policy_return(other, mdp, policy) == pytest.approx(policy_return(reward, mdp, policy))


def test_random_processes_have_so_many_successors() -> None:
    mdp = random_mdp(7, 2, np.random.default_rng(0), successors=3)
    assert ((mdp.transition > 0).sum(-1) == 3).all() and mdp.initial.sum() == pytest.approx(1)
    assert (random_mdp(4, 2, np.random.default_rng(0)).transition > 0).all()
    with pytest.raises(GuerdonError, match=r"successors must lie in \[1, 4\]"):
        random_mdp(4, 2, np.random.default_rng(0), successors=5)


GOOD = np.full((2, 2, 2), 0.5)


@pytest.mark.parametrize(
    "transition, discount, initial, message",
    [
        (np.full((2, 2, 2), 0.4), 0.9, None, "from state 0 by action 0 add up to 0.8, not 1; so do not 3 other rows"),
        (np.array([[[1.5, -0.5]], [[1.0, 0.0]]]), 0.9, None, "negative or not finite"),
        (np.array([[[np.nan, 1.0]], [[1.0, 0.0]]]), 0.9, None, "negative or not finite"),
        (np.ones((2, 2)), 0.9, None, r"transition must be \[S, A, S\]"),
        (np.ones((2, 2, 3)) / 3, 0.9, None, r"transition must be \[S, A, S\]"),
        (sparse.csr_array(np.ones((3, 2)) / 2), 0.9, None, r"sparse transition must be \[S \* A, S\]"),
        (sparse.csr_array(np.array([[1.0, 0], [0, 1], [0.5, 0.4], [1, 0]])), 0.9, None, "from state 1 by action 0 add"),
        (GOOD, 1.0, None, "discount must lie in"),
        (GOOD, float("nan"), None, "discount must lie in"),
        (GOOD, 0.9, [1.0, 0.0, 0.0], r"initial must be \[2\]"),
        (GOOD, 0.9, [0.5, 0.6], "initial must be a distribution"),
        (GOOD, 0.9, [1.5, -0.5], "initial must be a distribution"),
    ],
)  # fmt: skip
def test_processes_that_are_none(transition, discount, initial, message) -> None:
    with pytest.raises(GuerdonError, match=message):
        TabularMDP(transition, discount, initial)


def test_rewards_and_policies_that_do_not_fit() -> None:
    mdp = TabularMDP(GOOD, 0.9)
    with pytest.raises(GuerdonError, match=r"a reward must be \[..., 2, 2, 2 or 1\]"):
        expected_reward(np.zeros((2, 3, 2)), mdp)
    with pytest.raises(GuerdonError, match="not finite"):
        expected_reward(np.full((2, 2, 2), np.nan), mdp)
    with pytest.raises(GuerdonError, match=r"a sparse reward must be \[4, 2\]"):
        expected_reward(sparse.csr_array(np.zeros((2, 2))), mdp)
    with pytest.raises(GuerdonError, match="in state 1 are no distribution"):
        policy_values(np.zeros((2, 2, 2)), mdp, [[0.5, 0.5], [0.5, 0.4]])
    with pytest.raises(GuerdonError, match=r"a policy must be \[2, 2\]"):
        policy_values(np.zeros((2, 2, 2)), mdp, [1.0, 0.0])
    with pytest.raises(GuerdonError, match="does not fit"):
        shape(np.zeros((2, 2, 2)), [1.0, 2.0, 3.0], 0.9)
