"""The length constraint: drop pairs whose chosen answer is much longer than the rejected one, and look what it did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Pair, text_of
from guerdon.metrics.pair_accuracy import length_correlation, length_weight

Side = Literal["chosen_longer", "symmetric"]
Unit = Literal["words", "tokens", "characters"]
SIDES: tuple[str, ...] = get_args(Side)
UNITS: tuple[str, ...] = get_args(Unit)


@dataclass(frozen=True)
class LengthBias:
    """What labels know of length: ``pairs`` counted, the ``longer`` answer's share of wins (equal lengths half), the
    rank ``correlation`` of winning with log-length within pairs, and the ``weight`` of log-length in a Bradley-Terry
    model of the labels, in logits (see `guerdon.metrics.pair_accuracy.length_weight`); nan for no pairs."""

    pairs: int
    longer: float
    correlation: float
    weight: float


@dataclass(frozen=True)
class LengthReport:
    """``kept`` [N] and the bias before and after; the weight after should be near 0, neither positive nor negative."""

    kept: NDArray[np.bool_]
    before: LengthBias
    after: LengthBias
    max_ratio: float

    def table(self) -> dict[str, Any]:
        """For a report: one row a measure."""
        rows = [
            ["pairs", str(self.before.pairs), str(self.after.pairs)],
            *(
                [name, f"{getattr(self.before, field):+.3f}", f"{getattr(self.after, field):+.3f}"]
                for name, field in (
                    ("share of wins of the longer answer", "longer"),
                    ("rank correlation of winning and length", "correlation"),
                    ("length weight (0 is none)", "weight"),
                )
            ),
        ]
        return {
            "title": f"Length, capped at {self.max_ratio:g}",
            "columns": ["measure", "before", "after"],
            "rows": rows,
        }


def length_constraint(
    pairs: Sequence[Pair],
    max_ratio: float,
    side: Side = "chosen_longer",
    unit: Unit = "words",
    *,
    tokenizer: Any = None,
    score_gap: ArrayLike | None = None,
) -> LengthReport:
    """Which pairs keep |chosen| <= max_ratio |rejected|.

    Args:
        max_ratio: at least 1.
        side: "chosen_longer", as published, drops a pair only where the chosen answer is too much longer. That is a
            selection on the label: a tight cap leaves pairs whose shorter answer won, and so teaches that short is
            good. "symmetric" drops both kinds, and leaves the labels' bias as it was.
        unit: of length; "tokens" needs ``tokenizer``. An empty answer counts as length 1.
        score_gap: [N], chosen less rejected quality by the best proxy there is; the length weight is then what length
            decides beside it.
    Raises:
        GuerdonError: a ratio below 1, an unknown choice, no tokenizer, no pairs.
    Source: IXC-2.5-Reward (arXiv 2501.12368), which drops pairs whose chosen answer is "significantly longer". The
    ratio is not published: choose it with `nearest_cap`.
    """
    return constrain_lengths(answer_lengths(pairs, unit, tokenizer), max_ratio, side, score_gap=score_gap)


def answer_lengths(pairs: Sequence[Pair], unit: Unit = "words", tokenizer: Any = None) -> NDArray[np.float64]:
    """Lengths of (chosen, rejected), float64 [N, 2], at least 1. Raises as `length_constraint`."""
    if unit not in UNITS:
        raise unknown("unit of length", unit, UNITS)
    if (unit == "tokens") != (tokenizer is not None):
        raise GuerdonError("lengths in tokens need a tokenizer, and other lengths take none")

    def length(answer: Any) -> int:
        text = text_of(answer)
        if tokenizer is not None:
            return len(tokenizer(text, add_special_tokens=False)["input_ids"])
        return len(text) if unit == "characters" else len(text.split())

    counts = [[length(pair.chosen), length(pair.rejected)] for pair in pairs]
    return np.maximum(np.array(counts, dtype=np.float64).reshape(-1, 2), 1.0)


def constrain_lengths(
    lengths: ArrayLike, max_ratio: float, side: Side = "chosen_longer", *, score_gap: ArrayLike | None = None
) -> LengthReport:
    """`length_constraint` on lengths [N, 2] of (chosen, rejected), each at least 1."""
    table = np.asarray(lengths, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 2 or not len(table) or not (table >= 1).all():
        raise GuerdonError(f"a length constraint needs lengths >= 1 of at least one pair, [N, 2]: {list(table.shape)}")
    if not max_ratio >= 1:
        raise GuerdonError(f"max_ratio must be at least 1, got {max_ratio}")
    if side not in SIDES:
        raise unknown("side", side, SIDES)
    ratio = table[:, 0] / table[:, 1]
    kept = (ratio if side == "chosen_longer" else np.maximum(ratio, 1 / ratio)) <= max_ratio
    gap = None if score_gap is None else np.asarray(score_gap, dtype=np.float64)
    everything = np.ones(len(table), dtype=bool)
    return LengthReport(kept, _bias(table, everything, gap), _bias(table, kept, gap), float(max_ratio))


def nearest_cap(
    lengths: ArrayLike,
    ratios: Sequence[float],
    side: Side = "chosen_longer",
    *,
    score_gap: ArrayLike | None = None,
) -> LengthReport:
    """Of the caps ``ratios`` (with infinity, if none at all may be best) the one whose length weight is nearest 0.

    Arguments and errors as `constrain_lengths`; a cap that keeps no pair is passed over.
    """
    reports = [constrain_lengths(lengths, ratio, side, score_gap=score_gap) for ratio in ratios]
    usable = [report for report in reports if report.after.pairs]
    if not usable:
        raise GuerdonError(f"no cap among {list(ratios)} keeps a pair")
    return min(usable, key=lambda report: abs(report.after.weight))


def _bias(lengths: NDArray[np.float64], kept: NDArray[np.bool_], gap: NDArray[np.float64] | None) -> LengthBias:
    rows = lengths[kept]
    if not len(rows):
        return LengthBias(0, math.nan, math.nan, math.nan)
    log_gap = np.log(rows[:, 0] / rows[:, 1])
    longer = float(np.mean((log_gap > 0) + 0.5 * (log_gap == 0)))
    # Within pairs: a long prompt's answers are long on both sides, which says nothing about what wins.
    won = np.repeat([1.0, 0.0], len(rows))
    correlation = length_correlation(won, np.concatenate([log_gap, -log_gap]) / 2)
    return LengthBias(len(rows), longer, correlation, length_weight(None if gap is None else gap[kept], log_gap))
