"""How well scores against a reference rank answers, and tell policies apart that no training has seen."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean
from guerdon.metrics.pair_accuracy import pair_outcomes

__all__ = ["Discrimination", "policy_discrimination", "reference_preference_accuracy"]


def reference_preference_accuracy(
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """With the best answer as reference, how often is a better one of the others scored above a worse one?

    scores: [N, K >= 2], of the 2nd, 3rd, ... best answer to each prompt, each against the best; with K = 2 the share of
    rows where the 2nd scores above the 3rd. Equal scores count half; chance gives 0.5.
    groups: [N], resampled as a whole (prompts that belong together); default a group a row.

    Source: POLAR (arXiv 2507.05197), section 4.2. Raises GuerdonError for shapes or a nan.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise GuerdonError(f"scores must be [N, K] of at least 2 ranked answers; got shape {list(table.shape)}")
    better, worse = np.triu_indices(table.shape[1], k=1)
    outcome = np.mean([pair_outcomes(table[:, i], table[:, j]) for i, j in zip(better, worse)], axis=0)
    return bootstrap_mean(outcome, groups=groups, resamples=resamples, level=level, seed=seed)


@dataclass(frozen=True)
class Discrimination:
    """Accuracy over all triples, and that of each policy as the reference's; ``triples`` of each."""

    accuracy: Interval
    by_policy: dict[Hashable, float]
    triples: dict[Hashable, int]


def policy_discrimination(
    positive: ArrayLike,
    negative: ArrayLike,
    policies: Sequence[tuple[Hashable, Hashable]],
    *,
    trained_on: Collection[Hashable] = (),
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Discrimination:
    """How often another answer of the reference's policy scores above an answer of a different policy.

    positive, negative: [N], scores against the reference. policies: (of reference and positive, of negative) of each
    triple. Ties count half. The interval resamples whole policies of the reference: triples of one are not independent.
    trained_on: policies that the model was trained on; one of them among ``policies`` is an error, since telling known
    policies apart is not the ability that is claimed.

    Source: POLAR (arXiv 2507.05197), sections 3.3 and 4. Raises GuerdonError for shapes, a nan, a policy that was
    trained on, or a triple of one policy.
    """
    outcome = pair_outcomes(positive, negative)
    if len(policies) != outcome.size:
        raise GuerdonError(f"{outcome.size} triples need as many pairs of policies; got {len(policies)}")
    for row, (own, other) in enumerate(policies):
        if own == other:
            raise GuerdonError(f"triple {row} compares policy {own!r} with itself")
        seen = {own, other} & set(trained_on)
        if seen:
            raise GuerdonError(f"triple {row} is of policy {seen.pop()!r}, which was trained on; hold policies out")
    names = list(dict.fromkeys(own for own, _ in policies))
    place = {name: number for number, name in enumerate(names)}
    index = np.array([place[own] for own, _ in policies])
    found = bootstrap_mean(outcome, groups=index, resamples=resamples, level=level, seed=seed)
    return Discrimination(
        found,
        {name: float(outcome[index == number].mean()) for name, number in place.items()},
        {name: int((index == number).sum()) for name, number in place.items()},
    )
