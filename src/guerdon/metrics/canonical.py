"""Canonicalisation: one reward for all that differ only in potential shaping and in how next states share their mean.

Of the functions here, `value_adjusted` and `minimal` remove both and nothing else, as STARC's Definition 1 asks; the
others remove shaping only (`identity`: nothing), so that what a reward says of impossible transitions stays in them.

All take and give rewards [..., S, A, S] (see `guerdon.metrics.mdp`); a sparse process gives the compact forms named in
each docstring. Source: STARC (arXiv 2309.15257), Definitions 1 to 3, and lucyfarnik/starc for what it leaves open; EPIC
(arXiv 2006.13900), Definition 4.2; DARD (arXiv 2201.10081), Definition 4. Numbers of definitions are UNVERIFIED.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.linalg import lsmr

from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.mdp import Reward, TabularMDP, as_reward, expected_reward, next_mean, policy_values

__all__ = [
    "CANONICALISATIONS",
    "STARC",
    "Canonicalise",
    "canonicalisation",
    "dard",
    "epic",
    "identity",
    "minimal",
    "minimal_potential",
    "value_adjusted",
    "value_adjusted_potential",
]

FITTED = 1e-14


class Canonicalise(Protocol):
    """c(R), given a reward and the process it stands in."""

    def __call__(self, reward: Reward, mdp: TabularMDP, /) -> Reward: ...


def identity(reward: Reward, mdp: TabularMDP) -> Reward:
    """C = R: the baseline without canonicalisation."""
    return as_reward(reward, mdp)


def value_adjusted(reward: Reward, mdp: TabularMDP, policy: ArrayLike | None = None) -> NDArray[np.float64]:
    """C(s, a, s') = E_{S' ~ tau(s, a)}[R(s, a, S') + gamma V(S') - V(s)], the same for every s' (VAL).

    policy: [S, A], whose values V are (None: uniform, as in the repository). A STARC canonicalisation.
    Returns a read-only [..., S, A, S]; [..., S, A, 1] for a sparse process.
    """
    gain = expected_reward(reward, mdp)
    value = policy_values(gain[..., None], mdp, policy)
    levelled = (gain + mdp.discount * next_mean(value, mdp) - value[..., None])[..., None]
    return levelled if mdp.is_sparse else np.broadcast_to(levelled, (*gain.shape, mdp.states))


def value_adjusted_potential(reward: Reward, mdp: TabularMDP, policy: ArrayLike | None = None) -> NDArray[np.float64]:
    """C = R + gamma V(s') - V(s) with the values V of ``policy``: removes shaping only. Dense processes."""
    given = _dense("val-potential", reward, mdp)
    value = policy_values(given, mdp, policy)
    return given + mdp.discount * value[..., None, None, :] - value[..., :, None, None]


def minimal(reward: Reward, mdp: TabularMDP) -> Reward:
    """The c(R) of least L2 norm among all rewards that differ from R by shaping and redistribution.

    With m(s, a) = E R + gamma (tau Phi)(s, a) - Phi(s), the smallest redistribution of mean m is
    m tau(s, a, .) / |tau(s, a, .)|^2, of squared norm m^2 / |tau(s, a, .)|^2; Phi is therefore a weighted least-squares
    fit. Closed form: own derivation (the repository descends with Adam). A STARC canonicalisation.
    Returns [..., S, A, S]; for a sparse process a sparse [S * A, S] of one reward.
    """
    gain, size = expected_reward(reward, mdp), mdp.states
    tau = mdp.rows
    length = np.sqrt(np.asarray((tau * tau).sum(axis=1), dtype=np.float64).ravel())
    target = gain.reshape(-1, length.size) / length
    if mdp.is_sparse:
        if len(target) > 1:
            raise GuerdonError("minimal takes one reward at a time where the process is sparse")
        own = sparse.csr_array(
            (np.ones(length.size), np.arange(length.size) // mdp.actions, np.arange(length.size + 1))
        )
        moved = (sparse.diags_array(1 / length) @ (mdp.discount * tau - own)).tocsr()
        scale = np.abs(target).max()
        fitted = target[0]
        if scale:
            # A second fit to the residual takes what rounding left in the first.
            for _ in range(2):
                fitted = fitted - moved @ lsmr(moved, fitted, atol=FITTED, btol=FITTED, conlim=0, maxiter=10 * size)[0]
        return sparse.csr_array(sparse.diags_array(fitted / length) @ tau)
    moved = mdp.discount * tau - np.repeat(np.eye(size), mdp.actions, axis=0)
    directions = np.linalg.qr(moved / length[:, None])[0]
    for _ in range(2):
        target = target - (target @ directions) @ directions.T
    return target.reshape(*gain.shape, 1) * (tau / length[:, None]).reshape(mdp.transition.shape)


def minimal_potential(reward: Reward, mdp: TabularMDP) -> NDArray[np.float64]:
    """R + gamma Phi(s') - Phi(s) of least L2 norm over all (s, a, s'): removes shaping only. Dense processes.

    The normal matrix is c I - 2 gamma A 11' with c = S A (1 + gamma^2), inverted by Sherman and Morrison's formula.
    """
    given, gamma = _dense("minimal-potential", reward, mdp), mdp.discount
    right = given.sum(axis=(-2, -1)) - gamma * given.sum(axis=(-3, -2))
    own, cross = mdp.states * mdp.actions * (1 + gamma**2), 2 * gamma * mdp.actions
    shared = cross / (own - cross * mdp.states) * right.sum(-1, keepdims=True)
    phi = (right + shared) / own
    return given + gamma * phi[..., None, None, :] - phi[..., :, None, None]


def epic(
    reward: Reward, mdp: TabularMDP, states: ArrayLike | None = None, actions: ArrayLike | None = None
) -> NDArray[np.float64]:
    """C = R + gamma m(s') - m(s) - gamma E m(S), m(s) = E R(s, A, S') with A ~ D_A and S, S' ~ D_S independent.

    states, actions: D_S [S] and D_A [A], uniform by default; the dynamics play no part. Removes shaping only. Dense
    processes. Source: EPIC, Definition 4.2.
    """
    given, gamma = _dense("epic", reward, mdp), mdp.discount
    over_states, over_actions = coverage(mdp, states, actions)
    mean = np.einsum("...sat,a,t->...s", given, over_actions, over_states)
    return (
        given
        + gamma * mean[..., None, None, :]
        - mean[..., :, None, None]
        - gamma * (mean @ over_states)[..., None, None, None]
    )


def dard(reward: Reward, mdp: TabularMDP, actions: ArrayLike | None = None) -> NDArray[np.float64]:
    """C = R + E[gamma R(s', A, S'') - R(s, A, S') - gamma R(S', A, S'')], S' ~ tau(s, A), S'' ~ tau(s', A).

    actions: D_A [A], uniform by default; the same A throughout. Near the transitions that happen, but R(S', A, S'')
    asks for next states of another state, so impossible transitions enter still. Removes shaping only. Dense processes.
    Source: DARD, Definition 4.
    """
    given, gamma = _dense("dard", reward, mdp), mdp.discount
    over_actions = coverage(mdp, None, actions)[1]
    mean = np.einsum("...sa,a->...s", expected_reward(given, mdp), over_actions)
    by_action = np.moveaxis(given, -2, -3)  # [..., A, S, S]
    step = np.moveaxis(mdp.transition, 1, 0)
    crossed = step @ by_action @ np.swapaxes(step, -1, -2)
    third = np.einsum("...ast,a->...st", crossed, over_actions)
    return given + gamma * mean[..., None, None, :] - mean[..., :, None, None] - gamma * third[..., :, None, :]


CANONICALISATIONS: Mapping[str, Canonicalise] = {
    "val": value_adjusted,
    "minimal": minimal,
    "val-potential": value_adjusted_potential,
    "minimal-potential": minimal_potential,
    "epic": epic,
    "dard": dard,
    "none": identity,
}
"""By the names used in tables and on the command line."""

STARC = ("val", "minimal")
"""Those that fulfil Definition 1: distances on them bound worst-case regret from above and below."""


def canonicalisation(name: str | Canonicalise) -> Canonicalise:
    """The function of a name; a function is itself. Raises GuerdonError with the nearest name."""
    if not isinstance(name, str):
        return name
    if name not in CANONICALISATIONS:
        raise unknown("canonicalisation", name, CANONICALISATIONS)
    return CANONICALISATIONS[name]


def coverage(
    mdp: TabularMDP, states: ArrayLike | None, actions: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """D_S [S] and D_A [A], uniform where None. Raises GuerdonError for one that is no distribution of that length."""
    made = []
    for name, given, size in (("state", states, mdp.states), ("action", actions, mdp.actions)):
        row = np.full(size, 1 / size) if given is None else np.asarray(given, dtype=np.float64)
        if row.shape != (size,) or not (row >= 0).all() or abs(row.sum() - 1) > 1e-6:
            raise GuerdonError(f"the {name} distribution must hold {size} probabilities that add up to 1")
        made.append(row)
    return made[0], made[1]


def _dense(name: str, reward: Reward, mdp: TabularMDP) -> NDArray[np.float64]:
    given = as_reward(reward, mdp)
    if mdp.is_sparse:
        raise GuerdonError(f"{name} fills a table [S, A, S], which a sparse process does not have; use val or minimal")
    if sparse.issparse(given):
        given = given.toarray().reshape(mdp.states, mdp.actions, mdp.states)
    return np.broadcast_to(given, (*given.shape[:-1], mdp.states))
