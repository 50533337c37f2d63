"""Distances from samples: what they are of tables, of one-step rewards, and where noise shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.canonical import epic, value_adjusted
from guerdon.metrics.mdp import TabularMDP, policy_values, random_mdp, shape
from guerdon.metrics.reward_distance import reward_distance
from guerdon.metrics.sampled_distance import (
    canonical_distance,
    group_distance,
    group_distance_interval,
    group_moments,
    sampled_epic,
    sampled_starc,
)

Array = NDArray[np.float64]


def made(seed: int, successors: int) -> tuple[TabularMDP, Array, Array, Array]:
    """A process, a reward table, and every (s, a) as rows."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(6, 3, rng, successors=successors, discount=0.9)
    states, actions = (grid.ravel() for grid in np.meshgrid(np.arange(6), np.arange(3), indexing="ij"))
    return mdp, rng.normal(size=(6, 3, 6)), states, actions


# Transitions


def test_val_of_a_deterministic_process_needs_one_sample() -> None:
    mdp, table, states, actions = made(0, 1)
    following = mdp.transition.argmax(-1)[states, actions][:, None]
    value = policy_values(table, mdp)
    found = sampled_starc(lambda s, a, t: table[s, a, t], states, actions, following, lambda s: value[s], 0.9)
    assert found == pytest.approx(value_adjusted(table, mdp)[..., 0].ravel())


def test_val_is_met_with_many_next_states_and_noise_leaves_a_floor() -> None:
    mdp, table, states, actions = made(1, 3)
    rng = np.random.default_rng(0)
    value = policy_values(table, mdp)
    exact = value_adjusted(table, mdp)[..., 0].ravel()

    def drawn(count: int) -> Array:
        following = np.stack(
            [rng.choice(6, size=count, p=mdp.transition[s, a]) for s, a in zip(states, actions)]
        )  # fmt: skip
        return sampled_starc(lambda s, a, t: table[s, a, t], states, actions, following, lambda s: value[s], 0.9)

    assert drawn(4000) == pytest.approx(exact, abs=0.15)
    floors = [canonical_distance(drawn(count), drawn(count)) for count in (1, 10, 1000)]
    assert floors[0] > floors[1] > floors[2] > 0
    # The same draws for a reward and its own shaping: the noise is not the same, and does not cancel.
    phi = rng.normal(size=6)
    shaped = shape(2 * table, phi, 0.9)
    following = np.stack([rng.choice(6, size=2, p=mdp.transition[s, a]) for s, a in zip(states, actions)])
    own = sampled_starc(lambda s, a, t: table[s, a, t], states, actions, following, lambda s: value[s], 0.9)
    other_value = policy_values(shaped, mdp)
    other = sampled_starc(lambda s, a, t: shaped[s, a, t], states, actions, following, lambda s: other_value[s], 0.9)
    assert canonical_distance(own, other) == pytest.approx(0, abs=1e-9)


def test_epic_from_samples_that_cover_everything_is_the_tables() -> None:
    mdp, table, _, _ = made(2, 2)
    s, a, t = (grid.ravel() for grid in np.meshgrid(np.arange(6), np.arange(3), np.arange(6), indexing="ij"))
    mean_actions, mean_states = (grid.ravel() for grid in np.meshgrid(np.arange(3), np.arange(6), indexing="ij"))
    found = sampled_epic(lambda s, a, t: table[s, a, t], s, a, t, mean_actions, mean_states, 0.9)
    assert found == pytest.approx(epic(table, mdp).ravel())
    other = np.random.default_rng(5).normal(size=table.shape)
    second = sampled_epic(lambda s, a, t: other[s, a, t], s, a, t, mean_actions, mean_states, 0.9)
    assert canonical_distance(found, second) == pytest.approx(reward_distance(table, other, mdp, "epic"))


def test_epic_from_few_samples_removes_shaping_exactly() -> None:
    """The mean over fixed draws is one more potential: that of shaping cancels draw by draw but for its own mean."""
    rng = np.random.default_rng(0)
    points, following, means = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), rng.normal(size=(16, 2))
    none = np.zeros(40)

    def reward(s: Array, a: Array, t: Array) -> Array:
        return np.sin(s[:, 0]) * t[:, 1]

    def shaped(s: Array, a: Array, t: Array) -> Array:
        return 3 * reward(s, a, t) + 0.9 * t[:, 0] ** 2 - s[:, 0] ** 2

    pair = [sampled_epic(one, points, none, following, none[:16], means, 0.9) for one in (reward, shaped)]
    assert canonical_distance(*pair) == pytest.approx(0, abs=1e-9)


def test_canonical_distance_by_hand() -> None:
    assert canonical_distance([1.0, -1.0], [2.0, -2.0]) == pytest.approx(0)
    assert canonical_distance([1.0, -1.0], [-1.0, 1.0]) == pytest.approx(2)
    assert canonical_distance([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.sqrt(2))
    assert canonical_distance([1.0, 0.0], [0.0, 1.0], p=1.0) == pytest.approx(2)
    assert canonical_distance([1.0, 3.0], [0.0, 0.0]) == pytest.approx(1)
    assert canonical_distance([0.0, 0.0], [0.0, 0.0]) == 0


def test_samples_that_do_not_fit() -> None:
    with pytest.raises(GuerdonError, match=r"next_states must be \[N, K"):
        sampled_starc(lambda s, a, t: s, np.zeros(3), np.zeros(3), np.zeros(3), lambda s: s, 0.9)
    with pytest.raises(GuerdonError, match="3 finite numbers"):
        sampled_starc(
            lambda s, a, t: s * np.nan, np.zeros(3), np.zeros(3), np.zeros((3, 1)), lambda s: np.zeros(3), 0.9
        )
    with pytest.raises(GuerdonError, match="pair up; got 2 and 1"):
        sampled_epic(lambda s, a, t: s, np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(1), 0.9)
    with pytest.raises(GuerdonError, match="the same samples"):
        canonical_distance([1.0], [1.0, 2.0])
    with pytest.raises(GuerdonError, match="finite, non-empty"):
        canonical_distance([1.0, np.inf], [1.0, 2.0])


# Completions of prompts


def scores(seed: int, prompts: int = 30, each: int = 4) -> tuple[Array, Array, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return *rng.normal(size=(2, prompts * each)), np.repeat(np.arange(prompts), each)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(0, 1e3))
def test_offsets_a_prompt_and_scale_are_not_seen(seed: int, scale: float, offset: float) -> None:
    first, second, groups = scores(seed)
    moved = scale * first + offset * np.random.default_rng(seed).normal(size=30)[groups]
    assert group_distance(first, moved, groups) < 1e-5
    assert group_distance(first, -moved, groups) == pytest.approx(2)
    assert group_distance(moved, second, groups) == pytest.approx(group_distance(first, second, groups), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_it_is_a_metric(seed: int) -> None:
    first, second, groups = scores(seed)
    third = np.random.default_rng(seed + 3).normal(size=first.size)
    ab, bc, ac = (
        group_distance(x, y, groups) for x, y in ((first, second), (second, third), (first, third))
    )  # fmt: skip
    assert 0 <= ac <= ab + bc + 1e-9 and ac <= 2
    assert ab == group_distance(second, first, groups)


def test_it_is_starcs_distance_of_the_one_step_process() -> None:
    """Prompts are states, completions actions, an end without reward follows; the policy is uniform."""
    first, second, groups = scores(3, prompts=5, each=4)
    transition = np.zeros((6, 4, 6))
    transition[..., 5] = 1.0
    mdp = TabularMDP(transition, 0.9)
    tables = []
    for values in (first, second):
        table = np.zeros((6, 4, 1))
        table[:5, :, 0] = values.reshape(5, 4)
        tables.append(table)
    assert group_distance(first, second, groups) == pytest.approx(reward_distance(*tables, mdp, "val"))
    centred = [values - values.reshape(5, 4).mean(1)[groups] for values in (first, second)]
    assert group_distance(first, second, groups) == pytest.approx(canonical_distance(*centred))


def test_unequal_prompts_weigh_alike() -> None:
    first = np.array([0.0, 2.0, 0.0, 1.0, 2.0, 1.0])
    second = np.array([0.0, 2.0, 2.0, 1.0, 0.0, 1.0])
    groups = np.array([0, 0, 1, 1, 1, 1])
    moments = group_moments(first, second, groups)
    assert moments.first == pytest.approx([2.0, 2 / 3]) and moments.both == pytest.approx([2.0, -2 / 3])
    rho = (2 - 2 / 3) / (2 + 2 / 3)
    assert group_distance(first, second, groups) == pytest.approx(math.sqrt(2 - 2 * rho))


def test_constant_rewards() -> None:
    first, _, groups = scores(4)
    offsets = 1e6 * np.random.default_rng(0).normal(size=30)[groups]
    assert group_distance(first, offsets, groups) == 1 and group_distance(offsets, first, groups) == 1
    assert group_distance(offsets, np.zeros_like(first), groups) == 0


def test_missing_scores_and_lonely_completions_are_left_out() -> None:
    first, second, groups = scores(5)
    broken, more = first.copy(), np.append(groups, 99)
    broken[[0, 7]] = np.nan
    kept = ~np.isnan(broken)
    assert group_distance(broken, second, groups) == group_distance(first[kept], second[kept], groups[kept])
    assert group_distance(np.append(first, 50.0), np.append(second, -50.0), more) == pytest.approx(
        group_distance(first, second, groups)
    )
    with pytest.raises(GuerdonError, match="no prompt has two completions"):
        group_distance(first, second, np.arange(first.size))
    with pytest.raises(GuerdonError, match="infinite"):
        group_distance(np.append(first, np.inf), np.append(second, 0), np.append(groups, 0))
    with pytest.raises(GuerdonError, match="score the same"):
        group_distance(first, second[:-1], groups)


def test_the_interval_covers_the_truth() -> None:
    """Two rewards of correlation 0.5 within prompts are sqrt(2 - 2 x 0.5) = 1 apart."""
    covered, values = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        first, noise = rng.normal(size=(2, 240))
        second = 0.5 * first + math.sqrt(0.75) * noise
        found = group_distance_interval(first, second, np.repeat(np.arange(60), 4), resamples=200, seed=seed)
        covered += found.low <= 1.0 <= found.high
        values.append(found.value)
    assert covered >= 50 and np.mean(values) == pytest.approx(1, abs=0.02)
    # Two completions a prompt bias nothing: their own mean is no worse a baseline.
    rng = np.random.default_rng(0)
    first, noise = rng.normal(size=(2, 40_000))
    second = 0.5 * first + math.sqrt(0.75) * noise
    assert group_distance(first, second, np.repeat(np.arange(20_000), 2)) == pytest.approx(1, abs=0.02)


def test_intervals_are_repeatable() -> None:
    first, second, groups = scores(6)
    found = group_distance_interval(first, second, groups, resamples=100, seed=3)
    assert found == group_distance_interval(first, second, groups, resamples=100, seed=3)
    assert found != group_distance_interval(first, second, groups, resamples=100, seed=4)
    assert found.value == group_distance(first, second, groups) and found.low < found.value < found.high
