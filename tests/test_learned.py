"""Comparing learned rewards by their scores: figures, floors, examples, and what the sheet says."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guerdon.comparisons.learned import (
    LearnedComparison,
    compare_rewards,
    compare_scores,
    floor_sample,
    prompt_groups,
    shown,
)
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.sheet import Bars, Examples, Heat
from guerdon.metrics.order_agreement import agreement
from guerdon.metrics.sampled_distance import group_distance, group_distance_interval

PROMPTS = [f"prompt {n}" for n in range(40) for _ in range(3)]
TEXTS = [f"answer {n}" for n in range(120)]


def made(**noise: float) -> dict[str, np.ndarray]:
    """One quality, seen with more or less noise."""
    rng = np.random.default_rng(0)
    quality = rng.normal(size=120)
    return {name: quality + size * rng.normal(size=120) for name, size in noise.items()}


def test_figures_are_those_of_the_metrics() -> None:
    scores = made(a=0, b=0.5, c=2)
    found = compare_scores(scores, PROMPTS, TEXTS, resamples=200)
    groups = np.repeat(np.arange(40), 3)
    assert [pair.names for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in found.pairs:
        both = [scores[name] for name in pair.names]
        assert pair.distance == group_distance_interval(*both, groups, resamples=200)
        assert pair.agreement == agreement(*both, groups, resamples=200)
    assert found.rows == 120 and found.prompts == 40
    ab, ac = (found.pairs[place].distance.value for place in (0, 1))
    assert found.matrix("distance")[0] == [0, ab, ac] and ab < ac < math.sqrt(2)
    assert found.matrix("order")[0][1] == found.pairs[0].agreement.order.value


def test_the_sheet() -> None:
    two, three = made(a=0, b=0.5), made(a=0, b=0.5, c=2)
    sheet = compare_scores(two, PROMPTS, TEXTS, facts={"data": "rows.jsonl"}, resamples=100).sheet()
    assert sheet.lead.startswith("a and b are related: distance 0.") and "of the pairs alike" in sheet.lead
    assert sheet.facts["data"] == "rows.jsonl" and sheet.facts["rows, prompts"] == "120, 40"
    assert not any(isinstance(part, Heat) for part in sheet.parts)
    bars = next(part for part in sheet.parts if isinstance(part, Bars))
    assert bars.mark == pytest.approx(math.sqrt(2)) and bars.high == 2
    assert any("guarantees nothing about completions that were not sampled" in note for note in sheet.notes)
    more = compare_scores(three, PROMPTS, TEXTS, resamples=100).sheet()
    assert sum(isinstance(part, Heat) for part in more.parts) == 2 and "a and b (" in more.lead
    few = compare_scores({k: v[:9] for k, v in two.items()}, PROMPTS[:9], TEXTS[:9], resamples=100).sheet()
    assert few.notes[0].startswith("Fewer than 20 prompts")


def test_proportional_and_opposite_rewards() -> None:
    first = made(a=0)["a"]
    offsets = np.repeat(np.random.default_rng(1).normal(size=40), 3)
    same = compare_scores({"a": first, "b": 3 * first + offsets}, PROMPTS, TEXTS, resamples=50)
    assert same.pairs[0].proportional and "up to scale and an offset a prompt" in same.sheet().lead
    assert not same.examples
    turned = compare_scores({"a": first, "b": offsets - first}, PROMPTS, TEXTS, resamples=50)
    assert turned.pairs[0].distance.value == pytest.approx(2) and "opposed" in turned.sheet().lead


def test_examples_are_the_strongest_disagreements() -> None:
    prompts = ["p"] * 3 + ["q"] * 2 + ["r"] * 2
    first, second = [3.0, 2.0, 1.0, 1.0, 0.0, 1.0, 0.0], [1.0, 2.0, 3.0, 0.0, 0.4, 1.0, 0.0]
    found = compare_scores({"a": first, "b": second}, prompts, list("uvwxyzo"), resamples=10)
    assert [(one.prompt, one.first_prefers, one.second_prefers) for one in found.examples] == [
        ("p", "u", "w"),
        ("q", "x", "y"),
    ]
    top = found.examples[0]
    assert top.first_scores == (3.0, 1.0) and top.second_scores == (1.0, 3.0)
    # Gaps of 2 in units of the usual deviation: variances 1, 0.5, 0.5 and 1, 0.08, 0.5 of the prompts.
    assert top.strength == pytest.approx(min(2 / math.sqrt(2 / 3), 2 / math.sqrt(1.58 / 3)))
    part = next(part for part in found.sheet().parts if isinstance(part, Examples))
    assert part.items[0].fields["a prefers"] == "u" and part.items[0].fields["scores by b"] == "1 against 3"
    assert len(compare_scores({"a": first, "b": second}, prompts, list("uvwxyzo"), examples=1).examples) == 1
    three = compare_scores({"a": first, "b": second, "c": second}, prompts, list("uvwxyzo"), resamples=10)
    assert three.examples == found.examples


def test_long_texts_are_cut_in_examples() -> None:
    found = compare_scores({"a": [1.0, 0.0], "b": [0.0, 1.0]}, ["p", "p"], ["x" * 5000, "y"], resamples=10)
    part = next(part for part in found.sheet().parts if isinstance(part, Examples))
    assert len(part.items[0].fields["a prefers"]) < 1600 and "(5000 characters)" in part.items[0].fields["a prefers"]


def test_rows_without_a_score_are_counted_and_left_out() -> None:
    scores = made(a=0, b=0.5)
    scores["b"][:7] = np.nan
    absent = {"b": {"does not apply": 4, "failed": 3}, "a": {"does not apply": 0, "failed": 0}}
    found = compare_scores(scores, PROMPTS, TEXTS, absent=absent, resamples=50)
    assert found.rewards["b"].scored == 113 and found.rewards["b"].absent["failed"] == 3
    groups = np.repeat(np.arange(40), 3)
    assert found.pairs[0].distance.value == group_distance(scores["a"][7:], scores["b"][7:], groups[7:])
    table = next(one for one in found.sheet().tables() if one.title == "Rewards")
    assert table.rows[1][:4] == ["b", 113, 4, 3]


def test_what_a_reward_spreads() -> None:
    scores = made(a=0)
    offsets = 100 * np.repeat(np.random.default_rng(1).normal(size=40), 3)
    scores |= {"offsets": scores["a"] + offsets, "flat": offsets}
    found = compare_scores(scores, PROMPTS, TEXTS, resamples=20).rewards
    assert found["a"].within > 0.8 and found["offsets"].within < 0.01
    assert found["offsets"].spread == pytest.approx(found["a"].spread)
    assert found["flat"].spread == 0 and math.isnan(found["flat"].floor)


def test_prompts_are_told_apart_by_what_they_say() -> None:
    chat = [{"role": "user", "content": "hi"}]
    assert prompt_groups(["x", "y", "x", chat, [dict(chat[0])]]) == [0, 1, 0, 2, 2]


def test_what_is_shown() -> None:
    assert shown("text") == "text" and shown(None) == ""
    assert (
        shown([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}])
        == "user: hi\nassistant: yes"
    )
    assert shown({"bytes": b"", "path": "a/b.png"}) == "[a/b.png]" and shown(Image.new("RGB", (2, 2))) == "[Image]"


# Rewards that are called


def length(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def vowels(prompts: Any, completions: Any, **columns: Any) -> list[Any]:
    return [Failed("no text") if not text else float(sum(c in "aeiou" for c in text)) for text in completions]


class Restless:
    """Length with noise that is new with every call."""

    __name__ = "restless"

    def __init__(self, size: float) -> None:
        self.rng, self.size = np.random.default_rng(0), size

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        return [len(text) + self.size * float(self.rng.normal()) for text in completions]


def texts(count: int = 400) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), size=rng.integers(3, 40))) for _ in range(count)]
    return [f"p{place // 4}" for place in range(count)], words


def compared(rewards: dict[str, Any], **options: Any) -> LearnedComparison:
    return compare_rewards(rewards, *texts(), resamples=50, **options)


def test_rewards_are_scored_and_their_floors_measured() -> None:
    spread = math.sqrt(np.mean([np.var([len(t) for t in texts()[1][p : p + 4]], ddof=1) for p in range(0, 400, 4)]))
    found = compared({"length": length, "restless": Restless(0.3 * spread)}, floor_rows=400)
    assert found.rewards["length"].floor == 0 and found.rewards["length"].identity.startswith("length@")
    # Noise of 0.3 deviations in each scoring: sqrt(2) 0.3 of the clean deviation, sqrt(1.09) of which is the noisy one.
    expected = 0.3 * math.sqrt(2) / math.sqrt(1.09)
    assert found.rewards["restless"].floor == pytest.approx(expected, rel=0.15)
    # The distance from the clean reward is that of one noise, which its own floor exceeds: the lead says so.
    assert 0.2 < found.pairs[0].distance.value < expected
    assert "differs from itself" in found.sheet().lead
    part = compared({"length": length, "restless": Restless(0.3 * spread)}, floor_rows=100)
    assert part.rewards["restless"].floor == pytest.approx(expected, rel=0.35)
    none = compared({"length": length, "vowels": vowels}, floor_rows=0)
    assert math.isnan(none.rewards["length"].floor) and json.dumps(none.to_dict())


def test_failures_of_rewards_are_counted() -> None:
    prompts, completions = texts()
    completions[5] = ""
    found = compare_rewards({"length": length, "vowels": vowels}, prompts, completions, resamples=20)
    assert found.rewards["vowels"].absent == {"does not apply": 0, "failed": 1}
    assert found.rewards["vowels"].scored == 399 and found.rewards["length"].scored == 400


def test_the_second_scoring_takes_whole_prompts_in_another_order() -> None:
    groups = [0, 0, 0, 1, 2, 2, 0, 3, 3]
    chosen = floor_sample(groups, 1000, seed=0)
    assert sorted(chosen) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert floor_sample(groups, 3, seed=1) != floor_sample(groups, 3, seed=1)[::-1]
    for rows in (1, 3, 5):
        some = floor_sample(groups, rows, seed=2)
        assert len(some) >= rows and {groups[row] for row in some} == {
            g for g in set(groups) if g in [groups[r] for r in some]
        }
        assert all(groups.count(groups[row]) == sum(groups[other] == groups[row] for other in some) for row in some)
    assert floor_sample(groups, 0) == []


def test_nothing_to_compare() -> None:
    with pytest.raises(GuerdonError, match="at least two rewards; got a"):
        compare_scores({"a": [1.0]}, ["p"], ["x"])
    with pytest.raises(GuerdonError, match=r"'b' has scores \[1\] for 2 rows"):
        compare_scores({"a": [1.0, 2.0], "b": [1.0]}, ["p", "p"], ["x", "y"])
    with pytest.raises(GuerdonError, match="a and b: no prompt has two completions"):
        compare_scores({"a": [1.0, 2.0], "b": [1.0, 2.0]}, ["p", "q"], ["x", "y"])
