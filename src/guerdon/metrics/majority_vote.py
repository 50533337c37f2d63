"""The vote of several answers to one question, and how much it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from guerdon.core.errors import GuerdonError, unknown
from guerdon.metrics.answer_selection import answer_classes

Tie = Literal["first", "random", "none"]


@dataclass(frozen=True)
class Vote:
    """What the answers elected.

    label:    the elected answer, "" where nobody voted, the tie was not broken or too few agreed.
    share:    of the voters, how many gave it (in [0, 1]; 0 without voters).
    entropy:  of the votes, in nats; 0 where all agree.
    voters:   answers that were not empty.
    """

    label: str
    share: float
    entropy: float
    voters: int


def majority_vote(
    answers: Sequence[str | None],
    *,
    equal: Callable[[str, str], bool] | None = None,
    tie: Tie = "first",
    min_share: float = 0.0,
    seed: int = 0,
) -> Vote:
    """The most frequent answer; empty ones (None, white space) do not vote.

    equal:      when two answers are the same; None compares words. By words alone "1/2" and "0.5" are two parties: give
                an equivalence wherever answers are numbers.
    tie:        "first" the party whose first vote came first (as ``Counter.most_common``), "random" one drawn by
                ``seed``, "none" no label.
    min_share:  less agreement than this elects nobody.

    The label is the first vote of the elected party as it was written. Source: Co-Reward (arXiv 2508.00410), eq. 6.
    """
    if tie not in get_args(Tie):
        raise unknown("rule for ties", tie, get_args(Tie))
    if not 0 <= min_share <= 1:
        raise GuerdonError(f"min_share must lie in [0, 1], got {min_share}")
    votes = [answer.strip() for answer in answers if answer is not None and answer.strip()]
    if not votes:
        return Vote("", 0.0, 0.0, 0)
    parties = answer_classes(votes, equal)
    counts = np.bincount(parties)
    shares = counts / len(votes)
    # Entropy as a sum of -p log p: 0.0 and never -0.0 for one party.
    entropy = float(abs((shares * np.log(shares)).sum()))
    best = np.flatnonzero(counts == counts.max())
    share = float(shares[best[0]])
    if (len(best) > 1 and tie == "none") or share < min_share:
        return Vote("", share, entropy, len(votes))
    chosen = int(np.random.default_rng(seed).choice(best)) if tie == "random" else int(best[0])
    return Vote(votes[int(np.argmax(parties == chosen))], share, entropy, len(votes))


def majority_right(right: float, voters: int) -> float:
    """Probability that the majority of ``voters`` independent answers, each right with probability ``right`` among two
    possible answers, is right; ties are lost half the time.

    Where it exceeds ``right``, learning from one's own vote moves toward the truth, and else away from it: with two
    answers that turns at 1/2. Source: Condorcet's jury theorem.
    """
    if not 0 <= right <= 1 or voters < 1:
        raise GuerdonError(f"right must lie in [0, 1] and voters be positive, got {right} and {voters}")
    total = 0.0
    for count in range(voters + 1):
        weight = 1.0 if 2 * count > voters else 0.5 if 2 * count == voters else 0.0
        total += weight * math.comb(voters, count) * right**count * (1 - right) ** (voters - count)
    return total
