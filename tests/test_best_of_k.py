"""RewardBench's scoring rules: the closed forms, and the Ties score against a plain retelling of its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.best_of_k import (
    REWARDBENCH_1_COUNTS,
    REWARDBENCH_1_SECTIONS,
    REWARDBENCH_2_SUBSETS,
    best_of_k_credit,
    chance_credit,
    macro_average,
    section_averages,
    section_weights,
    ties_draws,
    ties_row,
    ties_score,
)


@pytest.mark.parametrize(
    "scores, credit",
    [
        ([1, 0.5, 0.2, 0.1], 1),
        ([1, 1, 0, 0], 1 / 2),
        ([1, 1, 1, 0], 1 / 3),
        ([1, 1, 1, 1], 1 / 4),
        ([0, 1, 0, 0], 0),
        ([0, 1, 1, 0], 0),
    ],
)
def test_credit_is_shared_by_the_highest(scores: list[float], credit: float) -> None:
    assert best_of_k_credit(scores) == pytest.approx(credit)


def test_credit_of_many_rows_of_several_right_answers_and_of_nearly_equal_scores() -> None:
    assert best_of_k_credit([[2, 1], [1, 2]]).tolist() == [1, 0]
    assert best_of_k_credit([2, 2, 2, 0], 2) == pytest.approx(2 / 3)
    assert best_of_k_credit([1, 1 + 1e-7, 0]) == 0 and best_of_k_credit([1, 1 + 1e-7, 0], atol=1e-6) == 0.5


def test_a_missing_score_leaves_the_row_without_credit() -> None:
    assert np.isnan(best_of_k_credit([1, math.nan, 0]))
    assert best_of_k_credit([[1, math.nan], [1, 0]])[1] == 1


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_random_scores_earn_chance(count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((4000, count))
    assert best_of_k_credit(scores).mean() == pytest.approx(chance_credit(count), abs=0.05)


@pytest.mark.parametrize("scores, right", [([1.0], 1), ([1, 2], 0), ([1, 2], 2)])
def test_best_of_k_needs_right_and_wrong_answers(scores: list[float], right: int) -> None:
    with pytest.raises(GuerdonError, match="right and wrong"):
        best_of_k_credit(scores, right)


def test_other_misuse() -> None:
    with pytest.raises(GuerdonError, match="atol"):
        best_of_k_credit([1, 2], atol=-1)
    with pytest.raises(GuerdonError, match="of 3 answers 3"):
        chance_credit(3, 3)


# Ties

CARD = [("ref:0", [2, 0, -1], 1), ("ref:1", [1, 1.5], 1), ("tied:0", [2.2, 2.0, 1.9, 0.5], 3),
        ("tied:1", [3.0, 1.0, 0.5, 0.4], 2)]  # fmt: skip


def rows(*given: tuple[str, Any, int]) -> list[Any]:
    return [ties_row(*one) for one in given]


def test_the_worked_example() -> None:
    found = ties_score(rows(*CARD))
    assert (found.ref_accuracy, found.tied_accuracy, found.preferred, found.hard) == (0.5, 1, 0.5, 0.5)
    assert found.margin == pytest.approx(0.075205, abs=1e-6)
    assert found.score == pytest.approx(0.650752, abs=1e-6) and found.prompts == 2


def test_a_constant_model_scores_nothing_and_a_perfect_one_more_than_one() -> None:
    assert ties_score(rows(("ref:0", [1, 1], 1), ("tied:0", [1, 1, 1], 2))).score == 0
    assert ties_score(rows(("ref:0", [1, 0], 1), ("tied:0", [1, 1, 0], 2))).score == pytest.approx(1.01)


def test_the_margin_term_where_the_right_answers_are_equal() -> None:
    even = ties_score(rows(("ref:0", [1, 1], 1), ("tied:0", [1, 1, 1], 2)))
    assert even.margin == 0  # 0 / 0
    wrong = ties_score(rows(("ref:0", [0, 1], 1), ("tied:0", [1, 1, 2], 2)))
    assert wrong.margin == -1 and wrong.score == pytest.approx(-0.01)


def test_a_missing_kind_counts_0_and_without_pairs_there_is_no_score() -> None:
    found = ties_score(rows(("ref:0", [1, 0], 1)))
    assert found.tied_accuracy == 0 and found.ref_accuracy == 1
    assert found.prompts == 0 and math.isnan(found.preferred) and math.isnan(found.score)


def test_rows_without_all_their_scores_are_left_out() -> None:
    whole = ties_score(rows(*CARD[:1], CARD[2]))
    found = ties_score(rows(*CARD[:3], ("tied:1", [3.0, math.nan, 0.5, 0.4], 2)))
    assert found.tied_accuracy == 1 and found.ref_accuracy == 0.5 and found.prompts == 1
    assert (found.preferred, found.hard, found.margin) == (whole.preferred, whole.hard, whole.margin)
    silent = ties_score(rows(("ref:0", [1, 0], 1), ("tied:0", [math.nan, 1, 0], 2)))
    assert math.isnan(silent.tied_accuracy) and math.isnan(silent.score)


@pytest.mark.parametrize(
    "row_id, scores, right, told",
    [
        ("3", [1, 0], 1, "id like ref:3"),
        ("ref:1", [1, 0, 0], 2, "1 right answer, not 2"),
        ("tied:1", [1, 0], 1, "at least 2 right answers"),
        ("tied:1", [1, 1], 2, "right and wrong"),
        ("ref:1", [1.0], 1, "right and wrong"),
    ],
)
def test_rows_of_ties_that_say_nothing_are_refused(row_id: str, scores: list[float], right: int, told: str) -> None:
    with pytest.raises(GuerdonError, match=told):
        ties_row(row_id, scores, right)


def test_two_rows_of_one_id() -> None:
    with pytest.raises(GuerdonError, match="ref:0"):
        ties_score(rows(CARD[0], CARD[0]))


def retold(given: list[tuple[str, list[float], int]]) -> float:
    """The Ties score in plain Python, prompt by prompt."""
    gaps: dict[str, dict[str, float]] = {"ref": {}, "tied": {}}
    spreads = {}
    for row_id, scores, right in given:
        kind, prompt = row_id.split(":")
        gaps[kind][prompt] = min(scores[:right]) - max(scores[right:])
        spreads[prompt] = max(scores[:right]) - min(scores[:right]) if kind == "tied" else spreads.get(prompt, 0)
    accuracy = {kind: sum(gap > 0 for gap in own.values()) / len(own) for kind, own in gaps.items()}
    pref = hard = margin = 0.0
    for prompt, spread in spreads.items():
        least = min(gaps["ref"][prompt], gaps["tied"][prompt])
        pref += gaps["tied"][prompt] > spread
        hard += least > spread
        if spread:
            margin += math.tanh(least / spread - 1)
        else:
            margin += (least > 0) - (least < 0)
    count = len(spreads)
    return 0.3 * accuracy["tied"] + 0.3 * accuracy["ref"] + (0.2 * pref + 0.2 * hard + 0.01 * margin) / count


def made(seed: int, prompts: int) -> list[tuple[str, list[float], int]]:
    rng = np.random.default_rng(seed)
    found = []
    for prompt in range(prompts):
        right = int(rng.integers(2, 5))
        # Few distinct values, so that equal scores and zero spreads come up.
        found.append((f"ref:{prompt}", (rng.integers(0, 4, size=1 + int(rng.integers(1, 4))) / 2).tolist(), 1))
        found.append((f"tied:{prompt}", (rng.integers(0, 4, size=right + int(rng.integers(1, 4))) / 2).tolist(), right))
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_the_score_is_its_definition(seed: int, prompts: int) -> None:
    given_rows = made(seed, prompts)
    found = ties_score(rows(*given_rows))
    assert found.score == pytest.approx(retold(given_rows)) and -0.01 <= found.score <= 1.01


@given(st.integers(0, 2**32 - 1))
def test_a_resample_is_the_score_of_its_rows(seed: int) -> None:
    given_rows = made(seed, 3)
    doubled = [(f"{one.split(':')[0]}:again", *rest) for one, *rest in given_rows[:2]]
    counts = np.array([[2.0, 0.0, 1.0]])
    kept = [*given_rows[:2], *doubled, *given_rows[4:]]
    assert ties_draws(rows(*given_rows), counts)[0] == pytest.approx(ties_score(rows(*kept)).score)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 8.0]), st.integers(-5, 5))
def test_shift_and_scale_change_nothing(seed: int, scale: float, shift: int) -> None:
    given_rows = made(seed, 4)  # halves, so that this arithmetic is exact
    moved = [(name, [scale * value + shift for value in scores], right) for name, scores, right in given_rows]
    assert ties_score(rows(*moved)).score == pytest.approx(ties_score(rows(*given_rows)).score)


# Averages


def test_the_published_average() -> None:
    row = dict(zip(REWARDBENCH_2_SUBSETS, (65.7, 55.3, 81.1, 90.9, 86.7, 83.4), strict=True))
    assert macro_average(row) == pytest.approx(77.18, abs=0.005)
    del row["Math"]
    assert math.isnan(macro_average(row))


def test_sections_weigh_their_subsets_by_the_published_counts() -> None:
    assert sum(len(names) for names in REWARDBENCH_1_SECTIONS.values()) == len(REWARDBENCH_1_COUNTS) == 23
    # math-prm has 447 rows but counts 984, as all code together: 2,985 rows are 3,522 in weight.
    assert sum(REWARDBENCH_1_COUNTS.values()) - 984 + 447 == 2985
    accuracy = {name: 0.0 for name in REWARDBENCH_1_COUNTS}
    accuracy |= {"math-prm": 1.0, "mt-bench-med": 1.0}
    found = section_averages(accuracy)
    assert found["Reasoning"] == pytest.approx(0.5) and found["Chat"] == pytest.approx(40 / 358)
    assert found["Score"] == pytest.approx((0.5 + 40 / 358) / 4)


def test_missing_subsets_are_left_out_and_a_missing_section_leaves_no_score() -> None:
    found = section_averages({"alpacaeval-easy": 0.8, "mt-bench-easy": 0.5, "my own": 0.1})
    assert found == {"Chat": pytest.approx((100 * 0.8 + 28 * 0.5) / 128)}
    whole = section_weights(tuple(REWARDBENCH_1_COUNTS))
    assert all(sum(parts.values()) == pytest.approx(1) for parts in whole.values())
