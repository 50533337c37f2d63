"""A rule above a reward model, and a pairwise judge as a scalar."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.scorer import Scorer
from guerdon.rewards.hybrid import CEILING, HybridReward, pairwise_to_scalar


@reward(name="rule")
def rule(prompts, completions, solution=None, **columns):
    """1 where the completion is the solution; None where there is none."""
    return [None if s is None else float(c == s) for c, s in zip(completions, solution)]


def model(values: dict[str, Any], on_failure: Any = "raise"):
    @reward(name="rm", on_failure=on_failure)
    def rm(prompts, completions, **columns):
        return [values[c] for c in completions]

    return rm


def scored(hybrid: HybridReward, completions: list[str], solution: list[Any]) -> list[float | None]:
    return hybrid([""] * len(completions), completions, solution=solution)


def test_one_where_the_rule_matches_else_the_squashed_model() -> None:
    hybrid = HybridReward(rule, model({"x": 0.0, "y": 2.0, "z": -50.0}))
    found = scored(hybrid, ["x", "x", "y", "z"], ["x", "y", None, None])
    assert found[:2] == [1.0, 0.5]  # r = 0 unmatched -> 0.5
    assert found[2] == pytest.approx(1 / (1 + np.exp(-2))) and 0 <= found[3] < 1e-20


def test_an_unmatched_answer_never_reaches_a_matched_one() -> None:
    hybrid = HybridReward(rule, model({"x": 1000.0, "y": 0.0}))
    assert scored(hybrid, ["x", "y"], ["y", "y"]) == [CEILING, 1.0]
    assert Scorer(hybrid).range == (0.0, 1.0)


def test_saturation_is_logged() -> None:
    logged: dict[str, float] = {}
    hybrid = HybridReward(rule, model({"a": 8.0, "b": -8.0, "c": 0.0, "d": 4.0}))
    hybrid([""] * 4, list("abcd"), solution=[None] * 4, log_metric=logged.__setitem__)
    assert logged["hybrid/saturated"] == 0.5 and logged["hybrid/rm"] == 1.0  # sigmoid(4) = 0.982


def test_the_running_offset_is_off_by_default_and_brings_a_drifted_model_back() -> None:
    drifted = {"a": 60.0, "b": 62.0}
    assert scored(HybridReward(rule, model(drifted)), ["a", "b"], [None] * 2) == [CEILING] * 2
    hybrid = HybridReward(rule, model(drifted), offset=0.5)
    assert scored(hybrid, ["a", "b"], [None] * 2) == pytest.approx([0.26894, 0.73106], abs=1e-5) and hybrid.centre == 61
    scored(hybrid, ["b"], [None])
    assert hybrid.centre == 61.5
    with pytest.raises(GuerdonError, match="offset must lie"):
        HybridReward(rule, model(drifted), offset=1.0)


def test_failures_and_what_does_not_apply() -> None:
    table = {"x": Failed("no head", "unavailable"), "y": None, "z": 0.0}
    settled = HybridReward(rule, model(table, "drop_sample")).scores([""] * 3, list("xyz"), solution=list("x--"))
    assert settled.as_list() == [1.0, None, 0.5] and not settled.failures  # the first needs no model
    failed = HybridReward(rule, model(table, "drop_sample")).scores([""] * 3, list("xyz"), solution=list("---"))
    assert failed.as_list() == [None, None, 0.5]
    assert list(failed.failures) == [0] and failed.failures[0].kind == "unavailable"
    with pytest.raises(GuerdonError, match="both named 'rule'"):
        HybridReward(rule, rule)


def test_another_squash_and_the_identity() -> None:
    def half(values):
        return np.clip(0.5 + values / 10, 0, 1)

    rm = model({"a": 1.0})
    hybrid = HybridReward(rule, rm, squash=half)
    assert scored(hybrid, ["a"], [None]) == [0.6]
    assert len({h.identity() for h in (hybrid, HybridReward(rule, rm), HybridReward(rule, rm, offset=0.9))}) == 3


# ---- pairwise


def test_all_ordered_pairs() -> None:
    calls: list[tuple[int, int]] = []

    def judge(first: int, second: int) -> float:
        calls.append((first, second))
        return 0.5 if first == second else float(first > second)

    assert pairwise_to_scalar(judge, [3, 1, 2]) == [2.0, 0.0, 1.0] and len(calls) == 6
    calls.clear()
    found = pairwise_to_scalar(judge, list(range(8)))
    assert len(calls) == 56 and sum(found) == 28  # type: ignore[arg-type]
    calls.clear()
    assert pairwise_to_scalar(judge, [3, 1, 2], "one_order") == [2.0, 0.0, 1.0] and len(calls) == 3
    assert pairwise_to_scalar(judge, [1, 1]) == [0.5, 0.5] and pairwise_to_scalar(judge, [1]) == [0.0]


def test_a_judge_of_places_gives_all_the_same_only_in_all_orders() -> None:
    assert pairwise_to_scalar(lambda a, b: True, "abc") == [2.0, 2.0, 2.0]
    assert pairwise_to_scalar(lambda a, b: True, "abc", "one_order") == [2.0, 1.0, 0.0]


def test_a_failed_comparison_is_no_number() -> None:
    def judge(first: str, second: str) -> Any:
        return Failed("silent", "unavailable") if (first, second) == ("a", "b") else np.float32(1)

    found = pairwise_to_scalar(judge, "abc")
    assert isinstance(found[0], Failed) and found[1:] == [2.0, 2.0]
    both = pairwise_to_scalar(judge, "abc", "one_order")
    assert isinstance(both[0], Failed) and isinstance(both[1], Failed) and both[2] == 0.0


@pytest.mark.parametrize("value", [2, -0.1, float("nan"), "first", None])
def test_a_judgement_is_checked(value: Any) -> None:
    with pytest.raises(GuerdonError, match=r"a number in \[0, 1\]"):
        pairwise_to_scalar(lambda a, b: value, "ab")
    with pytest.raises(GuerdonError, match="did you mean 'one_order'"):
        pairwise_to_scalar(lambda a, b: 1, "ab", "oneorder")  # type: ignore[arg-type]
