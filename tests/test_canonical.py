"""Canonicalisation: the card's figures, brute-force forms of each definition, and what each one removes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from guerdon.comparisons.toy_worlds import two_states
from guerdon.core.errors import GuerdonError
from guerdon.metrics.canonical import (
    CANONICALISATIONS,
    STARC,
    canonicalisation,
    dard,
    epic,
    minimal,
    minimal_potential,
    value_adjusted,
    value_adjusted_potential,
)
from guerdon.metrics.mdp import TabularMDP, expected_reward, policy_values, random_mdp, redistribute, shape

Array = NDArray[np.float64]
TOY = two_states()
SWITCH = TOY.rewards["switch"]
SHAPING_ONLY = ("val-potential", "minimal-potential", "epic", "dard")


def made(seed: int, states: int = 4, actions: int = 3, successors: int = 2) -> tuple[TabularMDP, Array]:
    rng = np.random.default_rng(seed)
    mdp = random_mdp(states, actions, rng, successors=successors, discount=0.9)
    return mdp, rng.normal(size=(states, actions, states))


# The card's two states


def test_val_of_the_card() -> None:
    found = value_adjusted(SWITCH, TOY.mdp)
    assert found[..., 0] == pytest.approx(np.array([[-0.275, 0.275], [-0.225, 0.225]]))
    assert found[..., 1] == pytest.approx(found[..., 0]) and np.linalg.norm(found) == pytest.approx(0.710634, abs=5e-7)


def test_epic_of_the_card() -> None:
    found = epic(SWITCH, TOY.mdp)
    assert found[0, 0] == pytest.approx([-0.1375, -0.3625]) and found[0, 1] == pytest.approx([-0.1375, 0.6375])
    assert found[1] == pytest.approx(np.array([[0.1125, -0.1125]] * 2))
    assert np.linalg.norm(found) == pytest.approx(0.791360, abs=5e-7)


def test_dard_of_the_card() -> None:
    found = dard(SWITCH, TOY.mdp)
    assert found[0] == pytest.approx(np.array([[-0.05, -0.5], [-0.05, 0.5]])) and found[1] == pytest.approx(
        0, abs=1e-12
    )


def test_minimal_of_the_card() -> None:
    found = minimal(SWITCH, TOY.mdp)
    held = [found[0, 0, 0], found[0, 1, 1], found[1, 0, 1], found[1, 1, 0]]
    assert held == pytest.approx([-0.276243, 0.251381, -0.223757, 0.248619], abs=5e-7)
    assert np.linalg.norm(found) == pytest.approx(0.501379, abs=5e-7)


# Against the definitions, term by term


def test_val_term_by_term() -> None:
    mdp, reward = made(0)
    policy = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    value = policy_values(reward, mdp, policy)
    found, potential = value_adjusted(reward, mdp, policy), value_adjusted_potential(reward, mdp, policy)
    for s, a, t in itertools.product(range(4), range(3), range(4)):
        mean = sum(mdp.transition[s, a, u] * (reward[s, a, u] + 0.9 * value[u] - value[s]) for u in range(4))
        assert found[s, a, t] == pytest.approx(mean)
        assert potential[s, a, t] == pytest.approx(reward[s, a, t] + 0.9 * value[t] - value[s])
    # The policy itself gains nothing under a levelled reward.
    assert policy_values(found, mdp, policy) == pytest.approx(0, abs=1e-10)


def test_epic_term_by_term() -> None:
    mdp, reward = made(1)
    over_s, over_a = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.3, 0.2])
    found = epic(reward, mdp, over_s, over_a)

    def mean(s: int) -> float:
        return sum(over_a[a] * over_s[t] * reward[s, a, t] for a in range(3) for t in range(4))

    last = sum(over_s[s] * mean(s) for s in range(4))
    for s, a, t in itertools.product(range(4), range(3), range(4)):
        assert found[s, a, t] == pytest.approx(reward[s, a, t] + 0.9 * mean(t) - mean(s) - 0.9 * last)
    weights = np.einsum("s,a,t->sat", over_s, over_a, over_s)
    assert (weights * found).sum() == pytest.approx(0, abs=1e-12)


def test_dard_term_by_term() -> None:
    mdp, reward = made(2)
    over_a, tau = np.array([0.5, 0.3, 0.2]), mdp.transition
    found = dard(reward, mdp, over_a)
    for s, a, t in itertools.product(range(4), range(3), range(4)):
        total = reward[s, a, t]
        for b in range(3):
            following = sum(tau[t, b, v] * reward[t, b, v] for v in range(4))
            own = sum(tau[s, b, u] * reward[s, b, u] for u in range(4))
            crossed = sum(
                tau[s, b, u] * tau[t, b, v] * reward[u, b, v] for u, v in itertools.product(range(4), repeat=2)
            )
            total += over_a[b] * (0.9 * following - own - 0.9 * crossed)
        assert found[s, a, t] == pytest.approx(total)


def test_minimal_solves_the_constrained_problem() -> None:
    """min |C|^2 over all C and Phi with E C = E R + gamma tau Phi - Phi, by its optimality conditions as one system."""
    mdp, reward = made(3)
    size, pairs = 4, 12
    mean = np.zeros((pairs, pairs * size))
    for row in range(pairs):
        mean[row, row * size : (row + 1) * size] = mdp.rows[row]
    moved = 0.9 * mdp.rows - np.repeat(np.eye(size), 3, axis=0)
    constraint = np.hstack([mean, -moved])
    count = pairs * size + size
    curvature = np.diag(np.r_[np.ones(pairs * size), np.zeros(size)])
    system = np.block([[curvature, constraint.T], [constraint, np.zeros((pairs, pairs))]])
    right = np.r_[np.zeros(count), expected_reward(reward, mdp).ravel()]
    solved = np.linalg.solve(system, right)[: pairs * size].reshape(reward.shape)
    assert minimal(reward, mdp) == pytest.approx(solved, abs=1e-10)


def test_minimal_potential_is_the_least_squares_fit() -> None:
    mdp, reward = made(4)
    design = np.zeros((4, 3, 4, 4))
    for s, t in itertools.product(range(4), repeat=2):
        design[s, :, t, t] += 0.9
        design[s, :, t, s] -= 1
    flat = design.reshape(-1, 4)
    phi = np.linalg.lstsq(flat, -reward.ravel(), rcond=None)[0]
    assert minimal_potential(reward, mdp) == pytest.approx(
        (reward.ravel() + flat @ phi).reshape(reward.shape), abs=1e-10
    )


# Definition 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_what_each_canonicalisation_removes(seed: int) -> None:
    mdp, reward = made(seed)
    rng = np.random.default_rng(seed + 1)
    phi, change = rng.normal(size=4), rng.normal(size=reward.shape)
    shaped = shape(reward, phi, mdp.discount)
    both = redistribute(shaped, mdp, change)
    for name in (*STARC, *SHAPING_ONLY):
        canon = CANONICALISATIONS[name]
        assert np.abs(canon(shaped, mdp) - canon(reward, mdp)).max() < 1e-9
        # Linear, and nothing is left to remove.
        assert (
            np.abs(canon(3 * reward - 2 * change, mdp) - 3 * canon(reward, mdp) + 2 * canon(change, mdp)).max() < 1e-9
        )
        moved = np.abs(canon(both, mdp) - canon(reward, mdp)).max()
        assert moved < 1e-9 if name in STARC else moved > 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_starc_forms_differ_from_the_reward_by_shaping_and_redistribution_only(seed: int) -> None:
    mdp, reward = made(seed)
    moved = 0.9 * mdp.rows - np.repeat(np.eye(4), 3, axis=0)
    for name in STARC:
        canon = CANONICALISATIONS[name]
        found = canon(reward, mdp)
        rest = (expected_reward(found, mdp) - expected_reward(reward, mdp)).ravel()
        phi = np.linalg.lstsq(moved, rest, rcond=None)[0]
        assert np.abs(moved @ phi - rest).max() < 1e-9
        assert np.abs(canon(found, mdp) - found).max() < 1e-9


def test_minimal_is_the_least_of_many() -> None:
    mdp, reward = made(5)
    rng = np.random.default_rng(0)
    least = np.linalg.norm(minimal(reward, mdp))
    for scale in (0.01, 0.1, 1.0):
        for _ in range(20):
            other = shape(minimal(reward, mdp), scale * rng.normal(size=4), mdp.discount)
            assert np.linalg.norm(redistribute(other, mdp, scale * rng.normal(size=reward.shape))) > least
    assert np.linalg.norm(value_adjusted(reward, mdp)) >= least


# Forms


def test_stacks_of_rewards() -> None:
    mdp, reward = made(6)
    stack = np.stack([reward, -reward, reward**2])
    for canon in CANONICALISATIONS.values():
        assert canon(stack, mdp) == pytest.approx(np.stack([canon(one, mdp) for one in stack]), abs=1e-10)


def test_sparse_processes() -> None:
    mdp, reward = made(7, states=10)
    reward = np.where(mdp.transition > 0, reward, 0)
    own = TabularMDP(sparse.csr_array(mdp.rows), mdp.discount)
    for given_reward in (reward, sparse.csr_array(reward.reshape(-1, 10))):
        assert value_adjusted(given_reward, own)[..., 0] == pytest.approx(
            value_adjusted(reward, mdp)[..., 0], abs=1e-10
        )
        found = minimal(given_reward, own)
        assert sparse.issparse(found) and found.nnz <= own.rows.nnz
        assert found.toarray().reshape(reward.shape) == pytest.approx(minimal(reward, mdp), abs=1e-10)
    assert not minimal(np.zeros((10, 3, 1)), own).data.any()
    for name in SHAPING_ONLY:
        with pytest.raises(GuerdonError, match=f"{name} fills a table .* use val or minimal"):
            CANONICALISATIONS[name](reward, own)
    with pytest.raises(GuerdonError, match="one reward at a time"):
        minimal(np.zeros((2, 10, 3, 1)), own)


def test_rewards_of_state_and_action_and_sparse_ones_in_dense_processes() -> None:
    mdp, reward = made(8)
    flat = np.broadcast_to(reward[..., :1], reward.shape)
    for canon in CANONICALISATIONS.values():
        assert canon(reward[..., :1], mdp) == pytest.approx(canon(flat, mdp)) or canon is canonicalisation("none")
    assert epic(sparse.csr_array(reward.reshape(-1, 4)), mdp) == pytest.approx(epic(reward, mdp))


def test_bad_names_and_distributions() -> None:
    with pytest.raises(GuerdonError, match="did you mean 'minimal'"):
        canonicalisation("minmal")
    with pytest.raises(GuerdonError, match="the state distribution must hold 2 probabilities"):
        epic(SWITCH, TOY.mdp, [0.5, 0.6])
    with pytest.raises(GuerdonError, match="the action distribution must hold 2 probabilities"):
        dard(SWITCH, TOY.mdp, [1.0])
