"""Pairwise verdicts turned into win rates and ratings that do not depend on who was shown first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.intervals import Interval, bootstrap_mean, group_index, percentile_interval

__all__ = ["ArenaScore", "Ratings", "bradley_terry", "win_rate"]

_NO_MAXIMUM = 25.0  # logits; sigmoid(25) is 1 - 1e-11, which no finite set of verdicts supports


@dataclass(frozen=True)
class ArenaScore:
    """A candidate against its opponent, every pair judged in both orders.

    win_rate: mean over pairs of 1 (won in both orders), 0 (lost in both), 0.5 (anything else); 0.5 = equal.
    consistency: share of pairs decided the same way in both orders, i.e. not 0.5.
    slot_bias: P(the image in slot 1 is chosen) - 0.5, ties counting half, in [-0.5, 0.5]; 0 = no preference for a slot.
    shown_first, shown_second: the win rate that one order alone would have reported.
    tie_rate: share of verdicts that were ties. pairs, incomplete: pairs counted, and left out for want of a verdict.
    """

    win_rate: Interval
    consistency: float
    slot_bias: Interval
    shown_first: float
    shown_second: float
    tie_rate: float
    pairs: int
    incomplete: int


def _outcomes(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    wrong = ~np.isin(array, (0.0, 0.5, 1.0)) & ~np.isnan(array)
    if array.ndim != 1 or wrong.any():
        found = f"{array[wrong][0]:g} at index {int(wrong.argmax())}" if array.ndim == 1 else f"shape {array.shape}"
        raise GuerdonError(f"{name} must be an [N] array of 1 (win), 0.5 (tie), 0 (loss) or nan (failed); got {found}")
    return array


def win_rate(
    as_first: ArrayLike,
    as_second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> ArenaScore:
    """Win rate of a candidate from verdicts in both orders, with slot consistency and slot bias.

    ``as_first`` [N]: the candidate's outcome (1 win, 0.5 tie, 0 loss, nan no verdict) when shown in slot 1;
    ``as_second`` [N]: when the same pair was shown with the candidate in slot 2. Pairs that lack either verdict are
    left out and counted. ``groups`` [N]: the prompt of each pair, resampled whole for the interval.
    Source: both orders, RealGen card (RealBench scored one order); compare Zheng et al. 2023, section 3.4. A win in one
    order and a tie in the other counts 0.5.
    Raises GuerdonError when no pair has both verdicts.
    """
    first, second = _outcomes(as_first, "as_first"), _outcomes(as_second, "as_second")
    if first.shape != second.shape:
        raise GuerdonError(f"as_first and as_second differ in length: {first.size} and {second.size}")
    whole = ~(np.isnan(first) | np.isnan(second))
    if not whole.any():
        raise GuerdonError(f"none of the {first.size} pairs has a verdict in both orders")
    kept = None if groups is None else np.asarray(groups)[whole]
    a, b = first[whole], second[whole]
    outcome = np.where((a == b) & (a != 0.5), a, 0.5)
    options = {"groups": kept, "resamples": resamples, "level": level, "seed": seed}
    return ArenaScore(
        win_rate=bootstrap_mean(outcome, **options),  # type: ignore[arg-type]
        consistency=float((outcome != 0.5).mean()),
        slot_bias=bootstrap_mean((a + 1.0 - b) / 2.0 - 0.5, **options),  # type: ignore[arg-type]
        shown_first=float(a.mean()),
        shown_second=float(b.mean()),
        tie_rate=float((np.concatenate([a, b]) == 0.5).mean()),
        pairs=int(whole.sum()),
        incomplete=int((~whole).sum()),
    )


@dataclass(frozen=True)
class Ratings:
    """Bradley-Terry ratings in logits, ``reference`` = 0; slot effect in logits favouring slot 1 (0 if not fitted)."""

    ratings: dict[str, Interval]
    slot: Interval
    reference: str
    verdicts: int

    def probability(self, player: str, opponent: str) -> float:
        """P(player beats opponent) with the slot effect removed, in (0, 1)."""
        gap = self.ratings[player].value - self.ratings[opponent].value
        return 1.0 / (1.0 + math.exp(-gap))


def bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    outcome: ArrayLike,
    *,
    reference: str,
    slot: bool = True,
    groups: ArrayLike | None = None,
    prior_deviation: float = 10.0,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Ratings:
    """Ratings of players from ordered verdicts: logit P(i in slot 1 beats j) = th_i - th_j + b, ``reference`` at 0.

    ``first``, ``second`` [N]: who was shown in slot 1 and 2; ``outcome`` [N]: 1 (slot 1 won), 0, 0.5 (tie = half a win
    to each), nan (no verdict, left out). Intervals resample whole ``groups`` (prompts).
    ``prior_deviation``: deviation in logits of a normal prior on ratings and slot effect. It keeps a player that won
    everything finite and is otherwise too weak to see; math.inf gives the exact maximum likelihood (resamples keep a
    prior of 10, because a resample may be one-sided when the data are not).
    Sources: Bradley and Terry 1952; order effect as an additive term, Davidson and Beaver 1977, equation 2.2 (in
    logits).
    Raises GuerdonError for an unknown reference, players not linked by any chain of verdicts, a slot effect that the
    orders shown cannot tell from strength, or (prior math.inf) a maximum at infinity.
    """
    result = _outcomes(outcome, "outcome")
    if not len(first) == len(second) == result.size:
        raise GuerdonError(f"first, second and outcome differ in length: {len(first)}, {len(second)}, {result.size}")
    if not prior_deviation > 0:
        raise GuerdonError(f"prior_deviation must be positive; got {prior_deviation}")
    players = sorted({*first, *second})
    if reference not in players:
        raise GuerdonError(f"reference player {reference!r} is in no pair; players: {', '.join(players)}")
    if any(i == j for i, j in zip(first, second, strict=True)):
        raise GuerdonError("a player cannot meet itself; both slots hold the same name in some pair")
    free = [player for player in players if player != reference]
    column = {player: index for index, player in enumerate(free)}
    judged = [n for n in range(result.size) if not np.isnan(result[n])]

    # Verdicts with the same (slot 1, slot 2) share a design row, so a resample is only a reweighting of few cells.
    cells = sorted({(first[n], second[n]) for n in judged})
    cell_number = {pair: index for index, pair in enumerate(cells)}
    design = np.zeros((len(cells), len(free) + slot))
    for row, (i, j) in enumerate(cells):
        if i != reference:
            design[row, column[i]] += 1.0
        if j != reference:
            design[row, column[j]] -= 1.0
        if slot:
            design[row, -1] = 1.0
    strength_rank = np.linalg.matrix_rank(design[:, : len(free)]) if cells else 0
    if strength_rank < len(free):
        raise GuerdonError(f"{len(players)} players are not linked by verdicts; add pairs until a chain joins them all")
    if slot and np.linalg.matrix_rank(design) < len(free) + 1:
        raise GuerdonError("the slot effect cannot be told from strength; show pairs in both orders or pass slot=False")

    group = group_index(groups, result.size)[judged]
    cell = np.array([cell_number[first[n], second[n]] for n in judged])
    shape = (int(group.max()) + 1, len(cells))
    wins, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(wins, (group, cell), result[judged])
    np.add.at(counts, (group, cell), 1.0)
    present = counts.sum(1) > 0
    wins, counts = wins[present], counts[present]

    estimate = _maximise(design, wins.sum(0), counts.sum(0), prior_deviation)
    if np.abs(estimate).max() > _NO_MAXIMUM and not math.isfinite(prior_deviation):
        worst = [*free, "the slot effect"][int(np.abs(estimate).argmax())]
        raise GuerdonError(f"the likelihood has no maximum: {worst} won or lost everything; pass a prior_deviation")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(wins), np.full(len(wins), 1 / len(wins)), size=resamples)
    prior = min(prior_deviation, 10.0)
    draws = np.stack([_maximise(design, w @ wins, w @ counts, prior) for w in weights])
    found = [percentile_interval(float(v), draws[:, k], level) for k, v in enumerate(estimate)]
    zero = Interval(0.0, 0.0, 0.0, level)
    ratings = {player: zero if player == reference else found[column[player]] for player in players}
    return Ratings(ratings, found[-1] if slot else zero, reference, len(judged))


def _maximise(
    design: NDArray[np.float64], wins: NDArray[np.float64], counts: NDArray[np.float64], prior_deviation: float
) -> NDArray[np.float64]:
    """Newton's method on the (penalised) log-likelihood of wins [C] out of counts [C]; concave, so one maximum."""
    precision = 1.0 / prior_deviation**2
    estimate = np.zeros(design.shape[1])

    def objective(at: NDArray[np.float64]) -> float:
        logit = design @ at
        return float(wins @ logit - counts @ np.logaddexp(0.0, logit) - 0.5 * precision * at @ at)

    best = objective(estimate)
    for _ in range(100):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ estimate, -500, 500)))
        gradient = design.T @ (wins - counts * chance) - precision * estimate
        curvature = (design * (counts * chance * (1 - chance))[:, None]).T @ design
        curvature += max(precision, 1e-12) * np.eye(len(estimate))
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-8 and objective(estimate + size * step) < best:
            size /= 2
        estimate = estimate + size * step
        best = objective(estimate)
        if np.abs(size * step).max() < 1e-10 or np.abs(estimate).max() > 2 * _NO_MAXIMUM:
            break
    return estimate
