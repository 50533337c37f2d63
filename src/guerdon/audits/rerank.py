"""Can a metric be raised by re-scoring whole groups, without ranking anything better inside a group?

A detector's classes under a cap on detections an image; a judge's tasks under one global threshold. The attack lifts or
sinks whole groups and leaves the order inside every group as it is, ties included, so a metric that grades what it says
it grades does not move. Source: Dave et al. (2021), arXiv 2102.01066, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.progress import progress
from guerdon.core.sheet import Line, Lines, Sheet, Table

__all__ = ["Metric", "RerankAttack", "RerankResult", "lifted"]

Metric = Callable[[NDArray[np.float64]], float]
"""Scores [N] -> what is to be raised. Only their order may matter."""
# Sums of a few thousand precisions differ by this much when they are taken in another order.
SAME = 1e-12


def lifted(score: ArrayLike, group: ArrayLike, tier: ArrayLike) -> NDArray[np.float64]:
    """Scores [N] with each group moved up by its ``tier`` [G], in lengths of the whole ranking; inside, all as before.

    group: [N] numbers below G. Groups a whole number above others lie wholly above them; at the same height scores
    compare as they did, ties included, also between groups.
    Raises GuerdonError for shapes, a nan, or a group without a tier.
    """
    scores, groups, tiers = np.asarray(score, dtype=np.float64), np.asarray(group), np.asarray(tier, dtype=np.float64)
    if scores.ndim != 1 or groups.shape != scores.shape or groups.dtype.kind not in "iu":
        raise GuerdonError(f"score and group must be the same [N]; got {list(scores.shape)} and {list(groups.shape)}")
    if np.isnan(scores).any():
        raise GuerdonError(f"score {int(np.isnan(scores).argmax())} is nan; drop failures first")
    if groups.size and not 0 <= groups.min() <= groups.max() < len(tiers):
        raise GuerdonError(f"group {int(groups.max())} has no tier; there are {len(tiers)}")
    # Ranks instead of the scores themselves: adding a number to them could round two of them together.
    values, rank = np.unique(scores, return_inverse=True)
    return tiers[groups] + (rank + 1) / (len(values) + 1)


@dataclass(frozen=True)
class RerankResult:
    """What the attack reached.

    before, after:  the metric of the given scores and of the best re-scoring; ``gain`` between them.
    policies:       name -> the metric under each fixed re-scoring that was tried.
    tier:           [G] of the best one; use it with `lifted` on other rows to see whether it holds there.
    curve:          (evaluations, best so far).
    """

    name: str
    before: float
    after: float
    policies: Mapping[str, float]
    tier: NDArray[np.float64]
    curve: Sequence[tuple[int, float]]

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def safe(self) -> bool:
        """Nothing that was tried raised the metric."""
        return self.gain <= SAME

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "metric": self.name, "before": self.before, "after": self.after, "gain": self.gain, "safe": self.safe,
            "policies": dict(self.policies), "evaluations": self.curve[-1][0], "lifted": int((self.tier > 0).sum()),
            "sunk": int((self.tier < 0).sum()),
        }  # fmt: skip

    def sheet(self) -> Sheet:
        """Tables and the search's course."""
        found = "was not raised" if self.safe else f"rose by {self.gain:.4f}"
        rows: list[tuple[str, float]] = [
            ("as given", self.before),
            *self.policies.items(),
            ("best found", self.after),
        ]
        return Sheet(
            "audit",
            f"Re-ranking against {self.name}",
            f"{self.name} {found} by re-scoring whole groups, with every group's own ranking as it was.",
            {"evaluations": str(self.curve[-1][0]), "groups lifted": str(int((self.tier > 0).sum())),
             "groups sunk": str(int((self.tier < 0).sum()))},
            [Table(self.name, ["scores", "value"], rows),
             Lines("Search", [Line(self.name, [x for x, _ in self.curve], [y for _, y in self.curve])],
                   "evaluations", "best so far")],
        )  # fmt: skip


@dataclass(frozen=True)
class RerankAttack:
    """Search for a re-scoring by whole groups that raises a metric.

    score, group:  [N]; groups are numbers below G, the length of the policies' tiers or the highest number plus one.
    policies:      name -> tiers [G] to try first, such as rare classes above common above frequent ones.
    budget:        evaluations of the metric for the search that follows: from the best policy, lift or sink random
                   halves of the groups, then quarters, down to single ones, by a whole, a half or a quarter of the
                   ranking, and keep what helps. 0: policies only.

    The search sees what the metric sees, labels included: a gain says what can be had, not that a blind policy has it.
    """

    score: NDArray[np.float64]
    group: NDArray[np.integer]
    policies: Mapping[str, ArrayLike] = field(default_factory=dict)
    budget: int = 60
    seed: int = 0

    def run(self, metric: Metric, name: str = "metric") -> RerankResult:
        """Attack a metric. Raises GuerdonError if it gives a nan for the scores as they are."""
        groups = max(
            [int(np.max(self.group, initial=-1)) + 1, *(len(np.asarray(one)) for one in self.policies.values())]
        )
        before = float(metric(np.asarray(self.score, dtype=np.float64)))
        if np.isnan(before):
            raise GuerdonError(f"{name} is nan for the scores as they are: there is nothing to raise")
        best, best_tier = before, np.zeros(groups)
        tried: dict[str, float] = {}
        curve = [(1, before)]

        def attempt(tier: NDArray[np.float64]) -> float:
            nonlocal best, best_tier
            value = float(metric(lifted(self.score, self.group, tier)))
            if value > best + SAME:
                best, best_tier = value, tier
            curve.append((len(curve) + 1, best))
            return value

        for policy, tiers in self.policies.items():
            tried[policy] = attempt(np.asarray(tiers, dtype=np.float64))
        rng = np.random.default_rng(self.seed)
        present = np.unique(self.group)
        with progress(self.budget, f"re-ranking against {name}") as bar:
            for step in range(self.budget):
                # Each size of set gets its share of the budget, the largest first.
                halvings = 1 + step * max(1, int(np.log2(max(len(present), 2)))) // self.budget
                chosen = rng.choice(present, max(1, len(present) >> halvings), replace=False)
                tier = best_tier.copy()
                tier[chosen] += (1 if step % 2 == 0 else -1) * rng.choice([1.0, 0.5, 0.25])
                attempt(tier)
                bar.advance(best=best)
        return RerankResult(name, before, best, tried, best_tier, curve)
