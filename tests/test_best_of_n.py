"""Best-of-n: the highest score is kept, failures are no scores, and it is a sampler again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.reward import reward
from guerdon.policies.best_of_n import best_of_n


def numbered(prompts: Sequence[str], seed: int) -> list[str]:
    """prompt0, prompt1, ... of each prompt, in an order that the seed shifts."""
    seen: dict[str, int] = {}
    made = []
    for prompt in prompts:
        made.append(f"{prompt}{(seen.get(prompt, 0) + seed) % 10}")
        seen[prompt] = seen.get(prompt, 0) + 1
    return made


def last_digit(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float(one[-1]) for one in completions]


def test_the_best_is_kept() -> None:
    policy = best_of_n(numbered, last_digit, 4)
    assert policy(["a", "b"]) == ["a3", "b3"] and policy(["a"], 8) == ["a9"]
    pick = policy.picks(["a"], 8)[0]
    assert pick.scores.tolist() == [8, 9, 0, 1] and (pick.place, pick.score) == (1, 9.0)
    assert best_of_n(numbered, last_digit, 1)(["a"], 5) == ["a5"] and policy([]) == []


def test_of_equals_the_first_and_never_one_without_a_score() -> None:
    assert best_of_n(numbered, lambda prompts, completions, **columns: [1.0] * len(completions), 3)(["a"]) == ["a0"]

    def some(prompts, completions, **columns):
        return [None if one[-1] > "1" else -5.0 + int(one[-1]) for one in completions]

    pick = best_of_n(numbered, some, 4).picks(["a"])[0]
    assert pick.completion == "a1" and np.isnan(pick.scores[2:]).all()
    with pytest.raises(GuerdonError, match="prompt 0: none of its 2 completions"):
        best_of_n(numbered, lambda prompts, completions, **columns: [None] * len(completions), 2)(["a"])


def test_columns_and_groups_reach_the_reward() -> None:
    seen = []

    @reward(groupwise=True)
    def ranks(prompts, completions, solution=None, **columns):
        seen.append((list(prompts), list(solution)))
        return [float(one == wanted) for one, wanted in zip(completions, solution)]

    policy = best_of_n(numbered, ranks, 3)
    assert policy(["a", "a", "b"], solution=["a2", "a4", "b1"]) == ["a2", "a4", "b1"]
    assert seen == [(["a"] * 3, ["a2"] * 3), (["a"] * 3, ["a4"] * 3), (["b"] * 3, ["b1"] * 3)]


def test_it_is_a_sampler_again_and_judges_what_is_there() -> None:
    twice = best_of_n(best_of_n(numbered, last_digit, 3), last_digit, 2)
    assert twice(["a"]) == ["a5"]
    policy = best_of_n(numbered, last_digit, 2)
    assert [pick.completion for pick in policy.choose(["a", "b"], ["7", "3", "1", "2"])] == ["7", "2"]
    with pytest.raises(GuerdonError, match="need 4 completions"):
        policy.choose(["a", "b"], ["7"])
    with pytest.raises(GuerdonError, match="n >= 1"):
        best_of_n(numbered, last_digit, 0)
    with pytest.raises(GuerdonError, match="gave 1 completions to 2 prompts"):
        best_of_n(lambda prompts, seed: ["x"], last_digit, 2)(["a"])
