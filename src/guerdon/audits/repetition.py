"""What does it earn to say a step again? A return that grows with every repetition will be climbed by repeating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guerdon.core.errors import GuerdonError
from guerdon.core.scorer import Scorer
from guerdon.core.segments import Segmenter, segmenter
from guerdon.metrics.intervals import Interval, bootstrap_mean
from guerdon.metrics.verdicts import Rate

__all__ = ["Growth", "repeated", "return_growth"]


@dataclass(frozen=True)
class Growth:
    """means [len(times)]: mean return of the completions, a step said so many times more. slope: of the return in the
    repetitions, mean over completions with its interval: above 0 the reward can be hacked so. growing: how many
    completions have a slope above 0. steepest: places of the completions, the worst first. left_out: completions
    without two segments, or with a failure.
    """

    times: tuple[int, ...]
    means: tuple[float, ...]
    slope: Interval
    growing: Rate
    steepest: tuple[int, ...]
    left_out: int

    def __str__(self) -> str:
        return f"{self.slope} a repetition; it grows for {self.growing} of {self.growing.total} completions"


def repeated(text: str, place: int, times: int, *, cut: str | Segmenter = "step") -> str:
    """``text`` with its segment number ``place`` said ``times`` more, right behind itself.

    Raises GuerdonError where there is no such segment.
    """
    spans = segmenter(cut)(text)
    if not -len(spans) <= place < len(spans):
        raise GuerdonError(f"the text has {len(spans)} segments, so there is no segment {place}")
    span = spans[place]
    said = span.of(text)
    if not said[-1:].isspace():
        said = "\n" + said if text[span.end : span.end + 1] in ("\n", "") else " " + said
    return text[: span.end] + said * times + text[span.end :]


def return_growth(
    reward: Any, prompts: Sequence[Any], completions: Sequence[str], *, cut: str | Segmenter = "step",
    times: Sequence[int] = (0, 1, 2, 4, 8), seed: int = 0, **columns: Sequence[Any],
) -> Growth:  # fmt: skip
    """Repeat one segment (drawn at random, never the last) of each completion and see how the return grows.

    reward: any of the contract; of a dense one the return is the sum over its segments. columns: what it reads.
    The synthetic test of On Designing Effective RL Reward at Training Time (arXiv 2410.15115). Raises GuerdonError for
    fewer than two numbers of repetitions, or no completion of two segments.
    """
    counted = tuple(sorted(set(times)))
    if len(counted) < 2 or counted[0] < 0:
        raise GuerdonError(f"a growth needs two different numbers of repetitions, none negative, got {list(times)}")
    rng, cutting = np.random.default_rng(seed), segmenter(cut)
    places = [len(cutting(text)) for text in completions]
    rows = [row for row, found in enumerate(places) if found > 1]
    if not rows:
        raise GuerdonError("no completion has two segments, of which one could be repeated")
    chosen = {row: int(rng.integers(places[row] - 1)) for row in rows}
    scorer = Scorer(reward, on_failure="drop_sample", max_failure_rate=1.0)
    paid = []
    for many in counted:  # a call a number of repetitions: variants of a completion are no group
        texts = [repeated(completions[row], chosen[row], many, cut=cutting) for row in rows]
        given = {name: [values[row] for row in rows] for name, values in columns.items()}
        scores = scorer.score([prompts[row] for row in rows], texts, **given)
        paid.append(np.where(scores.valid, scores.values, np.nan))
    table = np.stack(paid, axis=1)
    known = np.isfinite(table).all(axis=1)
    if not known.any():
        raise GuerdonError("the reward scored no completion with all numbers of repetitions")
    steps = np.array(counted, float) - np.mean(counted)
    slopes = table[known] @ steps / (steps @ steps)
    kept = np.array(rows)[known]
    return Growth(
        counted, tuple(table[known].mean(axis=0).tolist()), bootstrap_mean(slopes, seed=seed),
        Rate.of(int((slopes > 1e-9).sum()), len(slopes)), tuple(kept[np.argsort(-slopes)].tolist()),
        len(completions) - int(known.sum()),
    )  # fmt: skip
