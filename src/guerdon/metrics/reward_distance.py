"""How far two rewards are apart: the norm of the difference of their canonical forms, each scaled to norm 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.canonical import Canonicalise, canonicalisation, coverage, epic
from guerdon.metrics.mdp import Reward, TabularMDP, as_reward

__all__ = ["NORMS", "RewardNorm", "distance_matrix", "epic_distance", "reward_distance", "standardised"]

ZERO = 1e-10
"""A canonical reward below this share of its reward's own norm is zero: rounding left it."""


@dataclass(frozen=True)
class RewardNorm:
    """|x|_p over all (s, a, s'), or weighted by what happens: (sum tau |x|^p)^{1/p}, and max tau |x| for p = inf.

    p: 1, 2 or inf (any p >= 1). Source: the norms of lucyfarnik/starc. The weighted ones do not see impossible
    transitions: on STARC's canonical forms they are norms, on EPIC's and DARD's they are not.
    """

    p: float = 2.0
    weighted: bool = False

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise GuerdonError(f"a norm needs p >= 1; got {self.p}")

    @property
    def name(self) -> str:
        return ("weighted-" if self.weighted else "") + f"{self.p:g}"

    def __call__(self, reward: Reward, mdp: TabularMDP) -> NDArray[np.float64]:
        """Of a reward in any of its forms, [...]."""
        given = as_reward(reward, mdp)
        if sparse.issparse(given):
            size: Reward = abs(given)
            if self.weighted and not math.isinf(self.p):
                return np.asarray((size.power(self.p) * mdp.rows).sum() ** (1 / self.p))
            return self._plain((size * mdp.rows).tocsr().data if self.weighted else size.data)
        size, repeats = np.abs(given), mdp.states if given.shape[-1] == 1 else 1
        if not self.weighted:
            found = self._plain(size.reshape(*size.shape[:-3], -1))
            return found if math.isinf(self.p) else found * repeats ** (1 / self.p)
        if given.shape[-1] == 1 or mdp.is_sparse:
            if given.shape[-1] != 1:
                raise GuerdonError("a full table [S, A, S] has no weighted norm in a sparse process; store it sparsely")
            # Every row of tau adds up to 1.
            if not math.isinf(self.p):
                return self._plain(size.reshape(*size.shape[:-3], -1))
            most = mdp.rows.max(axis=1)
            most = most.toarray().ravel() if sparse.issparse(most) else np.asarray(most)
            return (size[..., 0] * most.reshape(mdp.states, mdp.actions)).max(axis=(-2, -1))
        if math.isinf(self.p):
            return (size * mdp.transition).max(axis=(-3, -2, -1))
        return (size**self.p * mdp.transition).sum(axis=(-3, -2, -1)) ** (1 / self.p)

    def _plain(self, size: NDArray[np.float64]) -> NDArray[np.float64]:
        if not size.shape[-1]:
            return np.zeros(size.shape[:-1])
        largest = size.max(-1)
        if math.isinf(self.p):
            return largest
        # Divided by the largest first: a power neither overflows nor vanishes.
        scale = np.where(largest > 0, largest, 1.0)
        return scale * ((size / scale[..., None]) ** self.p).sum(-1) ** (1 / self.p)


NORMS: Mapping[str, RewardNorm] = {
    norm.name: norm for norm in (RewardNorm(p, weighted) for weighted in (False, True) for p in (1.0, 2.0, math.inf))
}
""" "1", "2", "inf", "weighted-1", "weighted-2", "weighted-inf"."""


def norm_of(name: str | RewardNorm) -> RewardNorm:
    """The norm of a name; a norm is itself. Raises GuerdonError with the nearest name."""
    if isinstance(name, RewardNorm):
        return name
    if name not in NORMS:
        raise unknown("norm", name, NORMS)
    return NORMS[name]


def standardised(
    reward: Reward, mdp: TabularMDP, canon: str | Canonicalise = "val", norm: str | RewardNorm | None = "2"
) -> Reward:
    """s(R) = c(R) / n(c(R)) of one reward, 0 where c(R) is 0 up to rounding; ``norm`` None: c(R) itself.

    "Up to rounding": n(c(R)) is at most 1e-10 of n(R), or exactly 0. Source: STARC, Definition 3.
    """
    made = canonicalisation(canon)(reward, mdp)
    return made if norm is None else normalised(made, reward, mdp, norm)


def normalised(canonical: Reward, reward: Reward, mdp: TabularMDP, norm: str | RewardNorm) -> Reward:
    """``canonical`` over its norm, 0 where that is nothing beside the norm of the ``reward`` it came from."""
    by = norm_of(norm)
    size = float(by(canonical, mdp))
    return canonical * 0.0 if size <= ZERO * float(by(reward, mdp)) else canonical / size


def reward_distance(
    first: Reward,
    second: Reward,
    mdp: TabularMDP,
    canon: str | Canonicalise = "val",
    n: str | RewardNorm | None = "2",
    m: str | RewardNorm = "2",
) -> float:
    """d(R1, R2) = m(s(R1) - s(R2)): 0 where both order all policies alike, for n = m in [0, 2], 2 for opposite rewards.

    first, second:  one reward each (see `guerdon.metrics.mdp`).
    canon:          a name of `CANONICALISATIONS` or a function; a STARC distance for those in `STARC`.
    n, m:           norm that standardises (None: none does) and norm of the difference, names of `NORMS`.

    One of the two trivial (no policy better than another): 1 for n = m; both: 0. With "epic" and the default norms it
    is twice EPIC's published distance (`epic_distance`). Source: STARC, Definition 3. Raises GuerdonError for shapes.
    """
    return float(distance_matrix([first, second], mdp, canon, n, m)[0, 1])


def distance_matrix(
    rewards: Sequence[Reward],
    mdp: TabularMDP,
    canon: str | Canonicalise = "val",
    n: str | RewardNorm | None = "2",
    m: str | RewardNorm = "2",
) -> NDArray[np.float64]:
    """`reward_distance` of every two of K rewards, symmetric [K, K]; each is canonicalised once."""
    made = [standardised(reward, mdp, canon, n) for reward in rewards]
    return pairwise(made, mdp, m)


def pairwise(made: Sequence[Reward], mdp: TabularMDP, m: str | RewardNorm = "2") -> NDArray[np.float64]:
    """m(x - y) of every two of K standardised rewards, [K, K]."""
    by, found = norm_of(m), np.zeros((len(made), len(made)))
    for i in range(len(made)):
        for j in range(i):
            found[i, j] = found[j, i] = float(by(made[i] - made[j], mdp))
    return found


def epic_distance(
    first: Reward, second: Reward, mdp: TabularMDP, states: ArrayLike | None = None, actions: ArrayLike | None = None
) -> float:
    """sqrt((1 - rho) / 2) in [0, 1], rho the Pearson correlation of canonical rewards under D_S x D_A x D_S.

    The canonical rewards have mean 0 there, so this is half the L2 distance of the standardised ones; with uniform
    distributions half of ``reward_distance(..., "epic")``. A trivial reward has no correlation; the L2 form is taken
    then: 1/2 from any other, 0 from a trivial one. Source: EPIC (arXiv 2006.13900), Definitions 4.1 to 4.3.
    """
    over_states, over_actions = coverage(mdp, states, actions)
    weights = over_states[:, None, None] * over_actions[:, None] * over_states
    made = []
    for reward in (first, second):
        given = as_reward(reward, mdp)
        raw = given.toarray().reshape(weights.shape) if sparse.issparse(given) else given
        canonical = epic(raw, mdp, over_states, over_actions)
        size, own = (math.sqrt(float((weights * one**2).sum())) for one in (canonical, raw))
        made.append(canonical * 0.0 if size <= ZERO * own else canonical / size)
    return 0.5 * math.sqrt(float((weights * (made[0] - made[1]) ** 2).sum()))
