"""Distances between rewards: the card's facts, what they do not see, norms, and EPIC on its own scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from guerdon.comparisons.toy_worlds import two_states
from guerdon.core.errors import GuerdonError
from guerdon.metrics.canonical import CANONICALISATIONS, STARC, epic
from guerdon.metrics.mdp import TabularMDP, random_mdp, redistribute, shape
from guerdon.metrics.reward_distance import (
    NORMS,
    RewardNorm,
    distance_matrix,
    epic_distance,
    reward_distance,
    standardised,
)

Array = NDArray[np.float64]
TOY = two_states()
SWITCH = TOY.rewards["switch"]
REMOVING = [name for name in CANONICALISATIONS if name != "none"]


def made(seed: int, states: int = 5, actions: int = 3) -> tuple[TabularMDP, Array, Array]:
    rng = np.random.default_rng(seed)
    mdp = random_mdp(states, actions, rng, successors=2, discount=0.9)
    return mdp, *rng.normal(size=(2, states, actions, states))


# The card's two states


@pytest.mark.parametrize("name", REMOVING)
def test_disguises_of_the_card(name: str) -> None:
    for other in ("shaped", "shifted"):
        assert reward_distance(SWITCH, TOY.rewards[other], TOY.mdp, name) == pytest.approx(0, abs=1e-9)
    assert reward_distance(SWITCH, -SWITCH, TOY.mdp, name) == pytest.approx(2)


def test_without_canonicalisation_disguises_show() -> None:
    assert reward_distance(SWITCH, TOY.rewards["shaped"], TOY.mdp, "none") > 1
    assert reward_distance(SWITCH, TOY.rewards["shifted"], TOY.mdp, "none") > 0.5


@pytest.mark.parametrize(
    "name, distance", [("val", 0), ("minimal", 0), ("epic", 1.4687), ("dard", 1.6565), ("val-potential", 1.5054)]
)
def test_impossible_transitions_of_the_card(name: str, distance: float) -> None:
    found = reward_distance(SWITCH, TOY.rewards["impossible"], TOY.mdp, name)
    assert found == pytest.approx(distance, abs=5e-5)


@pytest.mark.parametrize("size, distance", [(1, 1.414), (10, 0.161), (100, 0.0160), (1000, 0.0016)])
def test_epics_counterexample(size: int, distance: float) -> None:
    bluff = np.zeros((2, 2, 2))
    bluff[0, 0, 1] = size
    pair = (SWITCH + bluff, -SWITCH + bluff)
    assert reward_distance(*pair, TOY.mdp, "epic") == pytest.approx(distance, abs=6e-4, rel=0.01)
    assert reward_distance(*pair, TOY.mdp, "val") == pytest.approx(2)


def test_another_discount_is_another_reward() -> None:
    slower = TabularMDP(TOY.mdp.transition, 0.95)
    shaped = shape(SWITCH, [3.0, -2.0], 0.9)
    assert reward_distance(SWITCH, shaped, slower) == pytest.approx(0.449, abs=5e-4)


# In general


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_starc_is_zero_for_disguises_and_two_for_opposites(seed: int, scale: float) -> None:
    mdp, reward, change = made(seed)
    other = scale * redistribute(shape(reward, change[0, 0], mdp.discount), mdp, change)
    for name in STARC:
        for norm in NORMS:
            assert reward_distance(reward, other, mdp, name, norm, norm) < 1e-7
            assert reward_distance(reward, -other, mdp, name, norm, norm) == pytest.approx(2, abs=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(CANONICALISATIONS)), st.sampled_from(list(NORMS)))
def test_distances_are_pseudometrics(seed: int, name: str, norm: str) -> None:
    mdp, first, second = made(seed)
    third = np.random.default_rng(seed + 7).normal(size=first.shape)
    found = distance_matrix([first, second, third], mdp, name, norm, norm)
    assert found == pytest.approx(found.T) and np.diag(found) == pytest.approx(0) and (found >= 0).all()
    assert found.max() <= 2 + 1e-9 and found[0, 2] <= found[0, 1] + found[1, 2] + 1e-9


def test_trivial_rewards() -> None:
    mdp, reward, change = made(0)
    zero = np.zeros_like(reward)
    trivial = redistribute(shape(zero, 100 * change[0, 0], mdp.discount), mdp, change)
    for name in STARC:
        for norm in NORMS:
            assert reward_distance(reward, trivial, mdp, name, norm, norm) == pytest.approx(1)
            assert reward_distance(zero, trivial, mdp, name, norm, norm) == 0
        assert not np.any(standardised(trivial, mdp, name))


def test_a_small_reward_beside_a_large_word_on_the_impossible_is_not_trivial() -> None:
    mdp, reward, change = made(1)
    loud = 1e-3 * reward + 1e5 * change * (mdp.transition == 0)
    assert reward_distance(reward, loud, mdp) < 1e-7


def test_norms_by_hand() -> None:
    mdp, reward, _ = made(2)
    for p in (1.0, 2.0):
        assert RewardNorm(p)(reward, mdp) == pytest.approx((np.abs(reward) ** p).sum() ** (1 / p))
        weighted = (mdp.transition * np.abs(reward) ** p).sum() ** (1 / p)
        assert RewardNorm(p, weighted=True)(reward, mdp) == pytest.approx(weighted)
    assert NORMS["inf"](reward, mdp) == np.abs(reward).max()
    assert NORMS["weighted-inf"](reward, mdp) == (mdp.transition * np.abs(reward)).max()
    stack = np.stack([reward, 2 * reward])
    for norm in NORMS.values():
        assert norm(stack, mdp) == pytest.approx([norm(reward, mdp), 2 * norm(reward, mdp)])
    assert RewardNorm(2.0)(1e200 * reward, mdp) == pytest.approx(1e200 * np.linalg.norm(reward))


@pytest.mark.parametrize("norm", list(NORMS))
def test_norms_of_every_form_agree(norm: str) -> None:
    mdp, reward, _ = made(3)
    flat = reward[..., :1]
    whole, held = np.broadcast_to(flat, reward.shape), np.where(mdp.transition > 0, reward, 0)
    own = TabularMDP(sparse.csr_array(mdp.rows), mdp.discount)
    assert NORMS[norm](flat, mdp) == pytest.approx(NORMS[norm](whole, mdp)) == pytest.approx(NORMS[norm](flat, own))
    stored = sparse.csr_array(held.reshape(-1, mdp.states))
    assert NORMS[norm](stored, own) == pytest.approx(NORMS[norm](held, mdp))


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("name", STARC)
def test_dense_and_sparse_distances_agree(name: str, norm: str) -> None:
    mdp, *pair = made(4, states=12)
    own = TabularMDP(sparse.csr_array(mdp.rows), mdp.discount)
    held = [sparse.csr_array((reward * (mdp.transition > 0)).reshape(-1, 12)) for reward in pair]
    found = reward_distance(*held, own, name, norm, norm)
    assert found == pytest.approx(reward_distance(*pair, mdp, name, norm, norm), abs=1e-9) and found > 0.1


def test_n_and_m_are_chosen_apart() -> None:
    mdp, first, second = made(5)
    forms = [CANONICALISATIONS["val"](one, mdp) for one in (first, second)]
    one, two = (form / np.abs(form).sum() for form in forms)
    assert reward_distance(first, second, mdp, "val", "1", "2") == pytest.approx(np.linalg.norm(one - two))
    plain = reward_distance(first, second, mdp, "val", None, "1")
    assert plain == pytest.approx(np.abs(forms[0] - forms[1]).sum())


def test_epic_distance_is_the_pearson_distance_of_canonical_rewards() -> None:
    mdp, first, second = made(6)
    over_s, over_a = np.array([0.1, 0.15, 0.2, 0.25, 0.3]), np.array([0.2, 0.3, 0.5])
    for cover in ((None, None), (over_s, over_a)):
        weights = np.ones_like(first) if cover[0] is None else np.einsum("s,a,t->sat", over_s, over_a, over_s)
        forms = [epic(one, mdp, *cover).ravel() for one in (first, second)]
        covariance = np.cov(*forms, aweights=weights.ravel(), bias=True)
        rho = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
        assert epic_distance(first, second, mdp, *cover) == pytest.approx(math.sqrt((1 - rho) / 2))
    assert 2 * epic_distance(first, second, mdp) == pytest.approx(reward_distance(first, second, mdp, "epic"))
    assert epic_distance(first, -first, mdp) == pytest.approx(1)
    assert epic_distance(first, np.zeros_like(first), mdp) == pytest.approx(0.5)
    assert epic_distance(np.ones_like(first), np.zeros_like(first), mdp) == 0


def test_bad_names() -> None:
    with pytest.raises(GuerdonError, match="did you mean 'weighted-1'"):
        reward_distance(SWITCH, SWITCH, TOY.mdp, n="weighted_1")
    with pytest.raises(GuerdonError, match="p >= 1"):
        RewardNorm(0.5)
