"""One right answer against several wrong ones: is it first, where does it stand, and what would chance give?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError

__all__ = ["OneToMany", "one_to_many", "pairwise_to_one_to_many"]

Unparsable = Literal["loss", "leave_out"]


@dataclass(frozen=True)
class OneToMany:
    """What became of N items, float64 [N] each; NaN in all of them for an item that could not be measured.

    first:            1 where the right answer scores strictly above every wrong one, else 0.
    first_or_tied:    1 where no wrong answer scores above it.
    first_by_lot:     1 / (1 + wrong answers equal to it) where none scores above it, else 0: ties drawn by lot.
    reciprocal_rank:  1 / (1 + wrong answers at or above it): equal scores rank the wrong one first.
    beaten:           share of wrong answers below it, an equal one counting half.
    wrong:            how many wrong answers the item has, int64 [N].
    """

    first: NDArray[np.float64]
    first_or_tied: NDArray[np.float64]
    first_by_lot: NDArray[np.float64]
    reciprocal_rank: NDArray[np.float64]
    beaten: NDArray[np.float64]
    wrong: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.wrong)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Items with a score for every answer, bool [N]."""
        return ~np.isnan(self.first)

    @property
    def acc(self) -> float:
        """Share of measured items whose right answer is strictly first, in [0, 1]; nan for none."""
        return _mean(self.first)

    @property
    def acc_tie(self) -> float:
        """The same where a tie for the first place is enough: far above ``acc`` for a judge of few grades."""
        return _mean(self.first_or_tied)

    @property
    def acc_by_lot(self) -> float:
        """The same where a tie is drawn by lot: the one of the three that is ``chance`` for a constant score."""
        return _mean(self.first_by_lot)

    @property
    def tie_rate(self) -> float:
        """Share of measured items on which the right answer shares the first place."""
        return _mean(self.first_or_tied - self.first)

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank in (0, 1], pessimistic on ties."""
        return _mean(self.reciprocal_rank)

    @property
    def mean_pairwise(self) -> float:
        """Mean share of wrong answers beaten: what a benchmark of pairs would report of the same scores."""
        return _mean(self.beaten)

    @property
    def chance(self) -> float:
        """What a random order gives for ``acc_by_lot``, and without ties for ``acc``: the mean of 1 / K."""
        return _mean(1.0 / (1 + self.wrong[self.measured]))

    @property
    def chance_mrr(self) -> float:
        """What it gives for ``mrr``: the mean of H_K / K, H_K = 1 + 1/2 + ... + 1/K."""
        sizes = 1 + self.wrong[self.measured]
        return _mean(np.array([(1.0 / np.arange(1, size + 1)).sum() / size for size in sizes]))

    def summary(self) -> dict[str, float]:
        """All of them by name, and how many items there are and could be measured."""
        names = ("acc", "acc_tie", "acc_by_lot", "tie_rate", "mrr", "mean_pairwise", "chance", "chance_mrr")
        known = {name: float(getattr(self, name)) for name in names}
        return {**known, "items": float(len(self)), "measured": float(self.measured.sum())}


def one_to_many(scores: Sequence[ArrayLike] | ArrayLike, correct_idx: int | ArrayLike = 0) -> OneToMany:
    """Rank the right answer of each item among its wrong ones.

    acc = mean[c > max r], acc_tie = mean[c >= max r], MRR = mean[1 / (1 + #{j: r_j >= c})], c the score of the right
    answer and r_j those of the wrong ones.

    Args:
        scores: [N, K], or N rows of any lengths >= 2. NaN is an answer without a score; its item is not measured,
            because what is missing might have been first.
        correct_idx: place of the right answer, one for all items or [N].
    Returns:
        `OneToMany` over the N items.
    Raises:
        GuerdonError: no items, an item without a wrong answer, a place outside its row, an infinite score.
    Source: RewardMATH (arXiv 2410.01729), one correct solution against nine; MRR as its released evaluation sorts.
    """
    rows = _rows(scores, "item")
    table, real = _padded(rows)
    sizes = real.sum(1)
    places = np.broadcast_to(np.asarray(correct_idx), (len(rows),))
    for item in np.flatnonzero((places < 0) | (places >= sizes)):
        raise GuerdonError(f"item {item} has {sizes[item]} answers; there is no answer {places[item]} to be right")
    right = np.zeros_like(real)
    right[np.arange(len(rows)), places] = True
    own = table[right][:, None]
    others = real & ~right
    above, level = (others & (table > own)).sum(1), (others & (table == own)).sum(1)
    known = (real & np.isnan(table)).sum(1) == 0
    return _outcomes(above, level, (sizes - 1).astype(np.int64), known)


def pairwise_to_one_to_many(wins: Sequence[ArrayLike] | ArrayLike, *, unparsable: Unparsable = "loss") -> OneToMany:
    """The same from a judge that compared the right answer with each wrong one: w wins of n rank it 1 + n - w.

    Args:
        wins: [N, n], or N rows of any lengths >= 1: 1 where the right answer won, 0 where it lost, 0.5 for a tie, NaN
            where the judge's word could not be read.
        unparsable: what NaN counts as. "loss" is the published rule; "leave_out" does not measure the item.
    Raises:
        GuerdonError: no items, an item without a comparison, another value.
    Source: RewardMATH (arXiv 2410.01729), pairwise judges: acc = mean[w = n], MRR = mean[1 / (1 + n - w)].
    """
    rows = _rows(wins, "item", shortest=1)
    table, real = _padded(rows)
    if not np.isin(table[real & ~np.isnan(table)], (0.0, 0.5, 1.0)).all():
        raise GuerdonError("a comparison is won (1), lost (0), tied (0.5) or unparsable (nan)")
    unread = real & np.isnan(table)
    lost = unread | real & (table == 0)
    tied = real & (table == 0.5)
    known = np.full(len(rows), unparsable == "loss") | (unread.sum(1) == 0)
    return _outcomes(lost.sum(1), tied.sum(1), real.sum(1), known)


def _outcomes(
    above: NDArray[np.int64], level: NDArray[np.int64], wrong: NDArray[np.int64], known: NDArray[np.bool_]
) -> OneToMany:
    def where_known(values: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.where(known, values.astype(np.float64), np.nan)

    return OneToMany(
        first=where_known(above + level == 0),
        first_or_tied=where_known(above == 0),
        first_by_lot=where_known((above == 0) / (1.0 + level)),
        reciprocal_rank=where_known(1.0 / (1 + above + level)),
        beaten=where_known(1.0 - (above + 0.5 * level) / wrong),
        wrong=wrong,
    )


def _rows(values: Sequence[ArrayLike] | ArrayLike, what: str, shortest: int = 2) -> list[NDArray[np.float64]]:
    rows = [np.asarray(row, dtype=np.float64) for row in values]  # type: ignore[union-attr]
    if not rows:
        raise GuerdonError(f"there is no {what} to measure")
    for place, row in enumerate(rows):
        if row.ndim != 1 or row.size < shortest:
            raise GuerdonError(f"{what} {place} needs at least {shortest} values in a row; got shape {list(row.shape)}")
        if np.isinf(row).any():
            raise GuerdonError(f"{what} {place} holds a score that is infinite, at place {int(np.isinf(row).argmax())}")
    return rows


def _padded(rows: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows as [N, longest] with what is real in it."""
    sizes = np.array([row.size for row in rows])
    real = np.arange(sizes.max()) < sizes[:, None]
    table = np.full(real.shape, np.nan)
    table[real] = np.concatenate(rows)
    return table, real


def _mean(values: NDArray[np.float64]) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")
