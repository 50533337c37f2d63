"""Rewards R(s, a, s') on a finite Markov decision process: dense tables and sparse ones, values, returns, equivalents.

A reward is one of three things, wherever this package takes one for a process of S states and A actions:

- an array [..., S, A, S], with leading dimensions for several rewards at once;
- an array [..., S, A, 1], the same for every next state;
- a sparse matrix [S * A, S], row s * A + a, zero where nothing is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.linalg import bicgstab, splu

from guerdon.core.errors import GuerdonError

__all__ = [
    "Reward",
    "TabularMDP",
    "as_reward",
    "expected_reward",
    "next_mean",
    "occupancy",
    "policy_return",
    "policy_values",
    "random_mdp",
    "redistribute",
    "shape",
]

Reward: TypeAlias = Any
"""A float64 array or a sparse matrix, as the module says."""

ROW_SUM = 1e-6
# Relative residual asked of an iteration, and what may be left of it beside a target of size 1.
SOLVED, LEFT = 1e-12, 1e-11


@dataclass(frozen=True)
class TabularMDP:
    """Dynamics of a finite process, without a reward.

    transition:  tau, [S, A, S] or a sparse matrix [S * A, S] (row s * A + a); rows are distributions over next states.
    discount:    gamma, in [0, 1).
    initial:     [S], distribution of the first state; None: uniform.

    Raises GuerdonError naming the state and action of a row that is no distribution, or the shape that does not fit.
    """

    transition: Any
    discount: float
    initial: Any = None

    def __post_init__(self) -> None:
        if sparse.issparse(self.transition):
            given = sparse.csr_array(self.transition, dtype=np.float64)
            given.sum_duplicates()
            given.eliminate_zeros()
            if given.ndim != 2 or not given.shape[1] or not given.shape[0] or given.shape[0] % given.shape[1]:
                raise GuerdonError(f"a sparse transition must be [S * A, S]; got {list(given.shape)}")
            _check_rows(given.sum(axis=1), given.data, given.shape[0] // given.shape[1])
        else:
            given = np.asarray(self.transition, dtype=np.float64)
            if given.ndim != 3 or given.shape[0] != given.shape[2] or not given.size:
                raise GuerdonError(f"transition must be [S, A, S]; got {list(given.shape)}")
            _check_rows(given.sum(-1).ravel(), given, given.shape[1])
        object.__setattr__(self, "transition", given)
        if not 0 <= self.discount < 1:
            raise GuerdonError(f"discount must lie in [0, 1); got {self.discount}")
        count = given.shape[-1]
        start = np.full(count, 1 / count) if self.initial is None else np.asarray(self.initial, dtype=np.float64)
        if start.shape != (count,):
            raise GuerdonError(f"initial must be [{count}], a probability for each state; got {list(start.shape)}")
        if not (start >= 0).all() or abs(start.sum() - 1) > ROW_SUM:
            raise GuerdonError(
                f"initial must be a distribution; its smallest is {start.min():g}, its sum {start.sum():g}"
            )
        object.__setattr__(self, "initial", start)

    @property
    def states(self) -> int:
        return int(self.transition.shape[-1])

    @property
    def actions(self) -> int:
        return int(self.rows.shape[0]) // self.states

    @property
    def is_sparse(self) -> bool:
        return sparse.issparse(self.transition)

    @property
    def rows(self) -> Any:
        """tau as a matrix [S * A, S]."""
        return self.transition if self.is_sparse else self.transition.reshape(-1, self.states)

    def uniform_policy(self) -> NDArray[np.float64]:
        """[S, A], every action alike."""
        return np.full((self.states, self.actions), 1 / self.actions)

    def policy_rows(self, policy: ArrayLike) -> Any:
        """P_pi [S, S], the chain under ``policy`` [S, A]; sparse where the process is."""
        given = checked_policy(policy, self)
        if not self.is_sparse:
            return np.einsum("sa,sat->st", given, self.transition)
        pairs = np.arange(self.states * self.actions)
        mixing = sparse.csr_array((given.ravel(), (pairs // self.actions, pairs)), shape=(self.states, pairs.size))
        return mixing @ self.rows


def _check_rows(sums: NDArray[np.float64], values: NDArray[np.float64], actions: int) -> None:
    if not np.isfinite(values).all() or (values < 0).any():
        raise GuerdonError("transition holds a probability that is negative or not finite")
    wrong = np.flatnonzero(np.abs(sums - 1) > ROW_SUM)
    if wrong.size:
        state, action = divmod(int(wrong[0]), actions)
        raise GuerdonError(
            f"transition: the probabilities from state {state} by action {action} add up to {sums[wrong[0]]:.6g}, not 1"
            + (f"; so do not {wrong.size - 1} other rows" if wrong.size > 1 else "")
        )


def checked_policy(policy: ArrayLike, mdp: TabularMDP) -> NDArray[np.float64]:
    """``policy`` as float64 [S, A]. Raises GuerdonError for another shape or a row that is no distribution."""
    given = np.asarray(policy, dtype=np.float64)
    if given.shape != (mdp.states, mdp.actions):
        raise GuerdonError(f"a policy must be [{mdp.states}, {mdp.actions}] here; got {list(given.shape)}")
    wrong = np.flatnonzero((given < 0).any(1) | ~(np.abs(given.sum(1) - 1) <= ROW_SUM))
    if wrong.size:
        raise GuerdonError(f"policy: the probabilities in state {wrong[0]} are no distribution")
    return given


def as_reward(reward: Reward, mdp: TabularMDP) -> Reward:
    """``reward`` as float64 in one of the three forms. Raises GuerdonError for another shape or a value not finite."""
    size, actions = mdp.states, mdp.actions
    if sparse.issparse(reward):
        given = sparse.csr_array(reward, dtype=np.float64)
        if given.shape != (size * actions, size):
            raise GuerdonError(f"a sparse reward must be [{size * actions}, {size}] here; got {list(given.shape)}")
        finite = np.isfinite(given.data).all()
    else:
        given = np.asarray(reward, dtype=np.float64)
        if given.ndim < 3 or given.shape[-3:] not in ((size, actions, size), (size, actions, 1)):
            raise GuerdonError(f"a reward must be [..., {size}, {actions}, {size} or 1] here; got {list(given.shape)}")
        finite = np.isfinite(given).all()
    if not finite:
        raise GuerdonError("a reward holds a value that is not finite")
    return given


def expected_reward(reward: Reward, mdp: TabularMDP) -> NDArray[np.float64]:
    """q(s, a) = E_{s' ~ tau(s, a)} R(s, a, s'), [..., S, A]: all of a reward that any policy's return depends on."""
    given, shape_ = as_reward(reward, mdp), (mdp.states, mdp.actions)
    if sparse.issparse(given):
        held = given.multiply(mdp.rows)
        return np.asarray(held.sum(axis=1), dtype=np.float64).reshape(shape_)
    if given.shape[-1] == 1:
        return given[..., 0]
    if not mdp.is_sparse:
        return np.einsum("sat,...sat->...sa", mdp.transition, given)
    tau = mdp.rows
    flat = given.reshape(*given.shape[:-3], -1, mdp.states)
    row = np.repeat(np.arange(tau.shape[0]), np.diff(tau.indptr))
    # Rows add up to 1, so that none is empty, which reduceat would not survive.
    summed = np.add.reduceat(flat[..., row, tau.indices] * tau.data, tau.indptr[:-1], axis=-1)
    return summed.reshape(*given.shape[:-3], *shape_)


def next_mean(values: ArrayLike, mdp: TabularMDP) -> NDArray[np.float64]:
    """E_{s' ~ tau(s, a)} f(s') of f [..., S]: [..., S, A]."""
    given = np.asarray(values, dtype=np.float64)
    flat = given.reshape(-1, mdp.states)
    return (mdp.rows @ flat.T).T.reshape(*given.shape[:-1], mdp.states, mdp.actions)


def policy_values(reward: Reward, mdp: TabularMDP, policy: ArrayLike | None = None) -> NDArray[np.float64]:
    """V^pi [..., S] = (I - gamma P_pi)^{-1} r_pi, the discounted sum of rewards from each state on.

    reward: as the module says. policy: [S, A], None for uniform.
    Dense: one LU solve. Sparse: BiCGSTAB, checked by its residual, and a sparse LU where it does not converge.
    """
    chosen = mdp.uniform_policy() if policy is None else checked_policy(policy, mdp)
    gained = (expected_reward(reward, mdp) * chosen).sum(-1)
    flat = gained.reshape(-1, mdp.states)
    chain = mdp.policy_rows(chosen)
    if mdp.is_sparse:
        found = solve_chain(chain, mdp.discount, flat)
    else:
        found = np.linalg.solve(np.eye(mdp.states) - mdp.discount * chain, flat.T).T
    return found.reshape(gained.shape)


def solve_chain(chain: Any, discount: float, targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """x [K, S] with (I - gamma P) x = b for sparse P [S, S] and each row b of ``targets`` [K, S]."""
    system = sparse.csr_array(sparse.eye_array(chain.shape[0]) - discount * chain)
    found = np.zeros_like(targets)
    exact = None
    for row, target in enumerate(targets):
        size = np.abs(target).max()
        if not size:
            continue
        scaled = target / size
        guess = np.zeros_like(scaled)
        for _ in range(2):  # the second time for what rounding left
            guess += bicgstab(system, scaled - system @ guess, rtol=SOLVED, atol=0.0)[0]
        if not np.abs(system @ guess - scaled).max() <= LEFT:
            exact = splu(system.tocsc()) if exact is None else exact
            guess = exact.solve(scaled)
        found[row] = guess * size
    return found


def policy_return(reward: Reward, mdp: TabularMDP, policy: ArrayLike | None = None) -> NDArray[np.float64]:
    """J(pi) = E sum_t gamma^t R, [...]: the values under the initial distribution. Arguments as `policy_values`."""
    return policy_values(reward, mdp, policy) @ mdp.initial


def occupancy(mdp: TabularMDP, policy: ArrayLike | None = None) -> NDArray[np.float64]:
    """x(s, a) = sum_t gamma^t P(s_t = s, a_t = a), [S, A], of total mass 1 / (1 - gamma); J(pi) = sum x q."""
    chosen = mdp.uniform_policy() if policy is None else checked_policy(policy, mdp)
    backwards = mdp.policy_rows(chosen).T
    if mdp.is_sparse:
        visits = solve_chain(backwards, mdp.discount, mdp.initial[None])[0]
    else:
        visits = np.linalg.solve(np.eye(mdp.states) - mdp.discount * backwards, mdp.initial)
    return visits[:, None] * chosen


def shape(reward: ArrayLike, potential: ArrayLike, discount: float) -> NDArray[np.float64]:
    """R(s, a, s') + gamma Phi(s') - Phi(s), [..., S, A, S]: moves the returns of all policies by one constant.

    reward: [..., S, A, S]. potential: [..., S]. Source: Ng, Harada and Russell (1999).
    """
    phi = np.asarray(potential, dtype=np.float64)
    given = np.asarray(reward, dtype=np.float64)
    if given.ndim < 3 or given.shape[-3] != phi.shape[-1] or given.shape[-1] not in (1, phi.shape[-1]):
        raise GuerdonError(f"a potential {list(phi.shape)} does not fit a reward {list(given.shape)}")
    return given + discount * phi[..., None, None, :] - phi[..., :, None, None]


def redistribute(reward: ArrayLike, mdp: TabularMDP, change: ArrayLike) -> NDArray[np.float64]:
    """R + change - E_{s' ~ tau} change, [..., S, A, S]: another reward with the same expectation for every (s, a).

    change: [..., S, A, S], free; what it says of impossible transitions enters as it is. No policy's return moves.
    """
    moved = np.asarray(change, dtype=np.float64)
    return np.asarray(reward, dtype=np.float64) + moved - expected_reward(moved, mdp)[..., None]


def random_mdp(
    states: int, actions: int, rng: np.random.Generator, *, successors: int | None = None, discount: float = 0.95
) -> TabularMDP:
    """A process with random dynamics: each (s, a) has ``successors`` next states (None: all) of Dirichlet(1) weights.

    The initial state is uniform. Sparse transitions leave impossible ones, on which a reward may say anything.
    """
    count = states if successors is None else successors
    if not 1 <= count <= states:
        raise GuerdonError(f"successors must lie in [1, {states}]; got {count}")
    keys = rng.random((states, actions, states))
    chosen = np.argpartition(keys, count - 1, axis=-1)[..., :count]
    transition = np.zeros((states, actions, states))
    np.put_along_axis(transition, chosen, rng.dirichlet(np.ones(count), size=(states, actions)), axis=-1)
    return TabularMDP(transition, discount)
