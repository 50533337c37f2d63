"""RewardMATH's claim: its sums and styles are what the docstrings say, and the experiment made tiny runs through."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.claims import rewardmath
from guerdon.claims.rewardmath import (
    ANY,
    MODELS,
    SETS,
    STEPS_RULE,
    TERSE,
    WORDY,
    Benchmarks,
    Size,
    agreement,
    answer_of,
    drawn,
    features,
    items_of,
    looks_wrong,
    solution,
    sums,
    trained,
)

TINY = Size(trained=60, problems=30, prompts=12, samples=8)


def test_a_solution_without_slips_is_right() -> None:
    rng = np.random.default_rng(0)
    for numbers in sums(30, TINY, rng):
        assert len(numbers) == TINY.operations + 1 and min(np.cumsum(numbers)) >= 0
        for group in (1, 2, 3, 5):
            lines = solution(numbers, group, 0.0, 0.0, rng)
            assert answer_of(lines) == sum(numbers) and len(lines) == -(-TINY.operations // group) + 1
            assert looks_wrong(lines, 0.0, rng) == 0


def test_styles_and_errors() -> None:
    rng = np.random.default_rng(0)
    numbers = sums(1, TINY, rng)[0]
    for style in (TERSE, WORDY, ANY):
        right, wrong = (drawn(numbers, style, good, rng) for good in (True, False))
        assert answer_of(right) == sum(numbers) != answer_of(wrong) and looks_wrong(wrong, 0.0, rng) >= 1
    lengths = {style: np.mean([len(drawn(numbers, style, True, rng)) for _ in range(60)]) for style in (TERSE, WORDY)}
    assert lengths[WORDY] > lengths[TERSE] + 2


def test_a_reader_misjudges_long_lines_more_often() -> None:
    rng = np.random.default_rng(0)
    numbers = [50, 10, 10, 10, 10, 10]
    rates = {}
    for group in (1, 5):
        lines = solution(numbers, group, 0.0, 0.0, rng)
        rates[group] = np.mean([looks_wrong(lines, 0.1, rng) for _ in range(2000)]) / (len(lines) - 1)
    assert rates[1] == pytest.approx(0.1, abs=0.02) and rates[5] == pytest.approx(1 - 0.9**5, abs=0.04)


def test_items_and_what_models_see_of_them() -> None:
    rng = np.random.default_rng(0)
    items = items_of(20, 9, 1.0, TINY, rng)
    rows = features(items, TINY, rng)
    assert {len(item.answers) for item in items} == {10} and {row.shape for row in rows} == {(10, 4)}
    steps = np.array([row[:, 0] for row in rows])
    assert steps[:, 0].mean() < steps[:, 1:].mean() - 1  # the right one is terse


def test_training_on_confounded_pairs_learns_style() -> None:
    size = Size(trained=300)
    styled, balanced = (trained(share, size, np.random.default_rng(1)) for share in (1.0, 0.0))
    rows = np.stack(features(items_of(200, 1, 1.0, size, np.random.default_rng(2)), size, np.random.default_rng(3)))
    gap = rows[:, 0] - rows[:, 1]
    assert (gap @ styled > 0).mean() > (gap @ balanced > 0).mean() + 0.05
    assert styled[3] < 0 and balanced[3] < 0  # both have learnt that what looks wrong is wrong


def test_ranks_agree_or_not() -> None:
    models = {str(n): {"set": float(n), "turned": -float(n), "flat": 1.0, "best of n": float(n) ** 2} for n in range(5)}
    assert agreement(models, "set") == pytest.approx(1) and agreement(models, "turned") == pytest.approx(-1)
    assert agreement(models, "flat") == 0


def test_a_perfect_score_selects_what_there_is() -> None:
    made = Benchmarks.made(TINY, np.random.default_rng(0))
    assert set(made.sets) == set(SETS) and made.samples.shape == (12, 8, 4)
    curve = made.curve(np.array([0.0, 0.0, 0.0, -1.0]))
    assert list(curve) == [1, 2, 4, 8] and curve[8] >= curve[1]
    audit = made.audit("pairs", np.random.default_rng(1))
    assert set(audit) == {"pairs: first", "pairs: pairwise"}


def test_tiny() -> None:
    result = rewardmath.run((1, 2), size=TINY)
    found = result.to_json()
    assert found["slug"] == "rewardmath" and found["verdict"] in ("inconclusive", "fails")  # two seeds cannot hold
    arms = found["details"]["arms"]
    assert {*MODELS, STEPS_RULE, *SETS, "steps, permuted"} == set(arms) - {"steps"}
    gain = [a - b for a, b in zip(arms["one to many"]["correlation"], arms["pairs"]["correlation"])]
    assert found["effect"] == pytest.approx(sum(gain) / 2)
    again = rewardmath.run((1,), size=TINY).to_json()["details"]["arms"]
    assert all(again[name][key] == values[key][:1] for name, values in arms.items() for key in values)


@pytest.mark.slow
def test_full_claim() -> None:
    """Three seeds leave one check unclear (how far best of n turns down varies); six say that all hold."""
    result = rewardmath.run((11, 12, 13, 14, 15, 16))
    assert result.verdict == "holds", "\n".join(f"{c.outcome}: {c.name}: {c.detail}" for c in result.checks)
