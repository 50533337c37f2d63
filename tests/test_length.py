"""The length constraint: what it keeps, what it reports, and how the one-sided cut can turn the bias round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.curation.length import answer_lengths, constrain_lengths, length_constraint, nearest_cap
from guerdon.models.scalar.tiny import tiny_tokenizer


def pair(chosen: int, rejected: int) -> Pair:
    answer = [[{"role": "assistant", "content": "ab " * words}] for words in (chosen, rejected)]
    return Pair([{"role": "user", "content": "q"}], *answer)


PAIRS = [pair(10, 10), pair(20, 10), pair(21, 10), pair(10, 40), pair(0, 1)]


def test_what_is_kept() -> None:
    assert length_constraint(PAIRS, 2.0).kept.tolist() == [True, True, False, True, True]
    assert length_constraint(PAIRS, 2.0, "symmetric").kept.tolist() == [True, True, False, False, True]
    assert length_constraint(PAIRS, 1.0).kept.tolist() == [True, False, False, True, True]


def test_units() -> None:
    assert answer_lengths(PAIRS[:1]).tolist() == [[10, 10]] and answer_lengths(PAIRS[4:]).tolist() == [[1, 1]]
    assert answer_lengths(PAIRS[:1], "characters").tolist() == [[30, 30]]
    tokenizer = tiny_tokenizer(["x"], vocab=300)
    assert answer_lengths(PAIRS[4:], "tokens", tokenizer).tolist() == [[1, len("ab ")]]
    assert length_constraint(PAIRS, 2.0, unit="tokens", tokenizer=tokenizer).kept.tolist()[:3] == [True, True, False]


@pytest.mark.parametrize(
    "arguments, options, said",
    [
        ((0.9,), {}, "at least 1, got 0.9"),
        ((2.0, "both"), {}, "unknown side"),
        ((2.0,), {"unit": "token"}, "did you mean 'tokens'"),
        ((2.0,), {"unit": "tokens"}, "need a tokenizer"),
        ((2.0,), {"tokenizer": len}, "need a tokenizer"),
    ],
)
def test_arguments_are_checked(arguments: tuple, options: dict, said: str) -> None:
    with pytest.raises(GuerdonError, match=said):
        length_constraint(PAIRS, *arguments, **options)
    with pytest.raises(GuerdonError, match="at least one pair"):
        length_constraint([], 2.0)


def biased(count: int = 6000, bias: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and quality gaps [N] of pairs labelled by quality + bias * log-length, chosen first."""
    rng = np.random.default_rng(1)
    quality, length = rng.normal(size=(count, 2)), rng.normal(math.log(150), 0.6, size=(count, 2))
    first = rng.random(count) < expit((quality[:, 0] - quality[:, 1]) + bias * (length[:, 0] - length[:, 1]))
    order = np.where(first[:, None], [[0, 1]], [[1, 0]])
    pick = [np.take_along_axis(table, order, 1) for table in (np.maximum(np.exp(length), 1), quality)]
    return pick[0], pick[1][:, 0] - pick[1][:, 1]


def test_the_weight_finds_the_judges_bias_and_the_cap_takes_it_away() -> None:
    lengths, gap = biased()
    free = constrain_lengths(lengths, math.inf, score_gap=gap)
    assert free.before == free.after and free.before.weight == pytest.approx(1.5, abs=0.12)
    assert free.before.longer > 0.6 and free.before.correlation > 0.2
    weights = [constrain_lengths(lengths, ratio, score_gap=gap).after.weight for ratio in (3.0, 2.0, 1.5, 1.0)]
    assert all(a > b for a, b in zip(weights, weights[1:])) and weights[-1] < -3
    symmetric = constrain_lengths(lengths, 1.5, "symmetric", score_gap=gap).after
    assert symmetric.weight == pytest.approx(1.5, abs=0.4)
    best = nearest_cap(lengths, (math.inf, 3.0, 2.0, 1.5, 1.0), score_gap=gap)
    assert best.max_ratio in (2.0, 3.0) and abs(best.after.weight) < 0.7


def test_on_an_honest_judge_the_best_cap_is_none() -> None:
    lengths, gap = biased(bias=0.0)
    assert nearest_cap(lengths, (math.inf, 3.0, 2.0, 1.5), score_gap=gap).max_ratio == math.inf
    assert constrain_lengths(lengths, 1.5, score_gap=gap).after.weight < -1


def test_a_report_of_nothing_left_and_its_table() -> None:
    report = constrain_lengths([[30, 10], [40, 10]], 2.0)
    assert report.after.pairs == 0 and math.isnan(report.after.weight)
    assert report.table()["rows"][0] == ["pairs", "2", "0"]
    with pytest.raises(GuerdonError, match="keeps a pair"):
        nearest_cap([[30, 10]], [2.0])
