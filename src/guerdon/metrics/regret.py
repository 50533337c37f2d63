"""What it costs to follow one reward when another counts: worst case, best response, and the bounds of distances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.linalg import block_diag, null_space
from scipy.optimize import linprog

from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.canonical import STARC, coverage, value_adjusted
from guerdon.metrics.mdp import (
    Reward,
    TabularMDP,
    as_reward,
    checked_policy,
    expected_reward,
    next_mean,
    policy_return,
    policy_values,
)
from guerdon.metrics.reward_distance import ZERO, epic_distance

__all__ = [
    "RegretBounds",
    "WorstCase",
    "best_response_regret",
    "epic_regret_bound",
    "return_range",
    "starc_bounds",
    "worst_case_regret",
]

# Actions whose values differ by less, of the values' own size, are equally good.
TIE = 1e-9
EXACT = {"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9}


@dataclass(frozen=True)
class WorstCase:
    """The most return under R1 that is lost by going from pi1 to a pi2 that R2 finds no worse.

    regret: J1(pi1) - J1(pi2), in units of J1. range: max J1 - min J1. pi1, pi2: [S, A], uniform where never visited.
    """

    regret: float
    range: float
    pi1: NDArray[np.float64]
    pi2: NDArray[np.float64]

    @property
    def share(self) -> float:
        """Regret as a share of the range, in [0, 1]; nan where R1 finds all policies alike."""
        return self.regret / self.range if self.range else math.nan


def worst_case_regret(first: Reward, second: Reward, mdp: TabularMDP) -> WorstCase:
    """max J1(pi1) - J1(pi2) over all policies with J2(pi2) >= J2(pi1), exactly: a linear programme.

    first, second: R1 and R2, one reward each. The unknowns are the occupancies x1, x2 >= 0 [S, A] of both policies:
    r1.(x1 - x2) is maximal where r2.(x2 - x1) >= 0 and each x has the flow of the process. Random policies count:
    deterministic ones alone miss the lower bound. Source: own formulation of the regret of STARC's section on
    soundness and completeness. To about 1e-8 of the range.
    """
    gains = [_levelled(reward, mdp) for reward in (first, second)]
    scales = [float(np.abs(gain).max()) for gain in gains]
    low, high = return_range(first, mdp)
    uniform = mdp.uniform_policy()
    if not scales[0]:
        return WorstCase(0.0, 0.0, uniform, uniform)
    one, two = (gain.ravel() / (scale or 1.0) for gain, scale in zip(gains, scales, strict=True))
    flow = _flow(mdp)
    found = linprog(
        np.concatenate([-one, one]), A_ub=np.concatenate([two, -two])[None], b_ub=[0.0],
        A_eq=sparse.block_diag([flow, flow], format="csr"), b_eq=np.tile(mdp.initial, 2), method="highs", options=EXACT,
    )  # fmt: skip
    if found.status != 0:
        raise GuerdonError(f"the linear programme of the worst-case regret was not solved: {found.message}")
    visits = found.x.reshape(2, mdp.states, mdp.actions)
    total = visits.sum(-1, keepdims=True)
    policies = np.where(total > 0, visits / np.where(total > 0, total, 1.0), uniform)
    return WorstCase(min(max(-found.fun * scales[0], 0.0), high - low), high - low, policies[0], policies[1])


def return_range(reward: Reward, mdp: TabularMDP) -> tuple[float, float]:
    """(min J, max J) over all policies, by policy iteration; equal for a trivial reward."""
    level = float(policy_return(reward, mdp))
    gain = _levelled(reward, mdp)
    return level - _optimum(-gain, mdp)[0], level + _optimum(gain, mdp)[0]


def best_response_regret(first: Reward, second: Reward, mdp: TabularMDP) -> float:
    """(max J1 - J1(pi2)) / (max J1 - min J1) of the pi2 that is best for R2, in [0, 1]: what optimising R2 costs.

    Among several best ones it is the worst for R1. nan where R1 finds all policies alike. By policy iteration.
    """
    gain, other = _levelled(first, mdp), _levelled(second, mdp)
    low, high = -_optimum(-gain, mdp)[0], _optimum(gain, mdp)[0]
    if high <= low:
        return math.nan
    actions = _optimum(other, mdp)[1]
    slack = TIE * max(float(np.abs(actions).max()), float(np.abs(other).max()))
    best = actions >= actions.max(-1, keepdims=True) - slack
    worst = -_optimum(-gain, mdp, best)[0]
    return float(np.clip((high - worst) / (high - low), 0.0, 1.0))


def _levelled(reward: Reward, mdp: TabularMDP) -> NDArray[np.float64]:
    """E R less the shaping that gives the uniform policy the value 0, [S, A]: returns are those above that policy's."""
    given = as_reward(reward, mdp)
    gain = expected_reward(given, mdp)
    if gain.ndim != 2:
        raise GuerdonError(f"regret is a matter of one reward each; got {list(gain.shape[:-2])} of them")
    level = value_adjusted(gain[..., None], mdp)[..., 0]
    size = float(np.abs(given).max())
    return np.zeros_like(level) if float(np.abs(level).max()) <= ZERO * size else np.asarray(level)


def _optimum(
    gain: NDArray[np.float64], mdp: TabularMDP, allowed: NDArray[np.bool_] | None = None
) -> tuple[float, NDArray[np.float64]]:
    """(max J, Q* [S, A]) of a reward on (s, a), by Howard's policy iteration; only ``allowed`` [S, A] actions."""
    shut = np.zeros(gain.shape) if allowed is None else np.where(allowed, 0.0, -np.inf)
    choice = np.argmax(gain + shut, axis=-1)
    every, before = np.arange(mdp.states), -math.inf
    while True:
        policy = np.zeros(gain.shape)
        policy[every, choice] = 1.0
        value = policy_values(gain[..., None], mdp, policy)
        action = gain + mdp.discount * next_mean(value, mdp)
        best = np.argmax(action + shut, axis=-1)
        # Only what is better beyond rounding is changed, so that the iteration ends.
        slack = 1e-12 * max(float(np.abs(value).max()), float(np.abs(gain).max()))
        better = action[every, best] > action[every, choice] + slack
        # Each round raises the values; one that does not has met the rounding of the solver.
        if not better.any() or float(value.sum()) <= before:
            return float(value @ mdp.initial), action
        before = float(value.sum())
        choice = np.where(better, best, choice)


def _flow(mdp: TabularMDP) -> Any:
    """F [S, S * A] with F x = mu0 for occupancies: sum_a x(s, a) - gamma sum tau(s', a', s) x(s', a')."""
    pairs = np.arange(mdp.states * mdp.actions)
    own = sparse.csr_array((np.ones(pairs.size), (pairs // mdp.actions, pairs)), shape=(mdp.states, pairs.size))
    return sparse.csr_array(own - mdp.discount * sparse.csr_array(mdp.rows).T)


@dataclass(frozen=True)
class RegretBounds:
    """lower d <= worst-case regret / range <= upper d for a STARC distance d, over all rewards of one process.

    upper holds for every pair of policies that R2 does not tell apart in R1's favour, lower for the worst pair.
    lower 0 and upper inf where some state is never reached: nothing can be said of rewards there.

    radius:    of the largest ball among the occupancies. diameter: no two occupancies are further apart.
    alignment: least share of a canonical reward's norm that policies can feel, in (0, 1].
    """

    lower: float
    upper: float
    radius: float
    diameter: float
    alignment: float


def starc_bounds(mdp: TabularMDP, canon: str = "val", policy: ArrayLike | None = None) -> RegretBounds:
    """Constants L and U of STARC's completeness and soundness, for n = m = L2 and the canonicalisation ``canon``.

    With r, D and sigma the `RegretBounds.radius`, diameter and alignment: U = D / (2 r sigma) and L = r sigma / D.
    The returns of two policies differ by (x1 - x2).c at most D |c|, and for some two by at least 2 r sigma |c|; rewards
    of one distance d on the unit sphere leave, at right angles to c2, at least sigma d / 2 of c1. The paper proves that
    such constants exist; these are an own derivation. Computed in the coordinates in which |c(R)| is a plain norm:
    c(s, a) sqrt(S) for "val" (``policy`` [S, A], None: uniform), m(s, a) / |tau(s, a, .)| for "minimal". Takes a null
    space of S * A columns: for small processes.

    Raises GuerdonError for a canonicalisation that is not STARC's.
    """
    if canon not in STARC:
        raise unknown("STARC canonicalisation", canon, STARC)
    size = mdp.states
    tau = mdp.rows.toarray() if mdp.is_sparse else mdp.rows
    scale = np.full(len(tau), size**-0.5) if canon == "val" else np.linalg.norm(tau, axis=1)
    flow = _flow(mdp).toarray() / scale
    diameter = float(np.sqrt(2) * scale.max() / (1 - mdp.discount))
    felt = null_space(flow)
    if not felt.shape[1]:
        # One action: one policy, and no reward is anything but trivial.
        return RegretBounds(0.0, math.inf, 0.0, diameter, 1.0)
    walls = np.linalg.norm(felt, axis=1)
    # x >= 0 in these coordinates too; a wall at distance r along the flow's own directions.
    found = linprog(
        np.append(np.zeros(scale.size), -1.0),
        A_ub=np.hstack([-np.eye(scale.size), walls[:, None]]), b_ub=np.zeros(scale.size),
        A_eq=np.hstack([flow, np.zeros((size, 1))]), b_eq=mdp.initial, method="highs", options=EXACT,
    )  # fmt: skip
    if found.status != 0:
        raise GuerdonError(f"the linear programme of the largest ball of occupancies was not solved: {found.message}")
    radius = float(found.x[-1])
    alignment = 1.0
    if canon == "val":
        # Canonical: the policy gains nothing in any state. The minimal ones lie in the flow's null space itself.
        chosen = mdp.uniform_policy() if policy is None else checked_policy(policy, mdp)
        basis = block_diag(*(null_space(row[None]) for row in chosen))
        alignment = float(np.linalg.svd(felt.T @ basis, compute_uv=False).min())
    if radius <= 1e-9 * diameter:
        return RegretBounds(0.0, math.inf, 0.0, diameter, alignment)
    narrow = radius * alignment
    return RegretBounds(narrow / diameter, diameter / (2 * narrow), radius, diameter, alignment)


def epic_regret_bound(
    first: Reward, second: Reward, mdp: TabularMDP, states: ArrayLike | None = None, actions: ArrayLike | None = None
) -> float:
    """16 K |R1|_2 EPIC(R1, R2) / (1 - gamma), an upper bound on max J1 - J1(pi2) for the best pi2 of R2; units of J1.

    |R1|_2 is taken under D_S x D_A x D_S, which impossible transitions can make as large as they like, and K is the
    largest ratio of a transition's probability to its weight there (infinite where that is 0). There is no lower bound.
    Source: EPIC (arXiv 2006.13900), Theorem 4.9; constant UNVERIFIED.
    """
    if mdp.is_sparse:
        raise GuerdonError("EPIC fills a table [S, A, S], which a sparse process does not have")
    given = np.asarray(as_reward(first, mdp).toarray() if sparse.issparse(first) else as_reward(first, mdp))
    over_states, over_actions = coverage(mdp, states, actions)
    weights = over_states[:, None, None] * over_actions[:, None] * over_states
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.nanmax(mdp.transition / weights))
    given = given.reshape(mdp.states, mdp.actions, -1)
    size = math.sqrt(float((weights * given**2).sum()))
    distance = epic_distance(first, second, mdp, states, actions)
    return 16 * ratio * size * distance / (1 - mdp.discount) if size * distance else 0.0
