"""Rewards of translations: the gates' unit facts, the gated sum of DeepTrans, exemplars, and the router."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.models.translation_judge import OverlapJudge
from guerdon.rewards.text.exemplar import Comparison, ExemplarComparisonReward, ExemplarStore, GradeMonitor
from guerdon.rewards.text.translation import (
    DirectionRouter,
    LanguageGate,
    LightweightTranslationReward,
    PureOutput,
    ThinkFormatGate,
    ThoughtReward,
    extrans_reward,
    gated_sum,
)

SOURCE = "The moon hung over the quiet river."
GOOD = "<think>The image is of stillness.</think>月亮悬在寂静的河上。"


def constant(value: float, name: str, low: float = 0.0, high: float = 100.0):
    return reward(name=name, range=(low, high))(lambda prompts, completions, **columns: [value] * len(completions))


def test_format() -> None:
    cases = [GOOD, "月亮", "<think>a</think>", "x<think>a</think>b", "<think>a<think>b</think>c", "</think>a<think>"]
    assert ThinkFormatGate()(cases, cases) == [1, 0, 0, 0, 0, 0]


def test_deeptrans_rule() -> None:
    for thought, wanted in ((2.0, 125.0), (1.0, 105.0)):
        parts = {"translation": (constant(85, "t"), 1.0), "thought": (constant(thought, "h", 0, 2), 20.0)}
        composed = gated_sum([ThinkFormatGate(), PureOutput()], parts)
        announced = "<think>a</think>Here is the translation: 月亮"
        assert composed([SOURCE] * 3, [GOOD, "no form", announced]) == [wanted, 0, 0]
    with pytest.raises(GuerdonError, match="at least one gate"):
        gated_sum([], parts)


def test_judges_are_not_asked_behind_a_closed_gate() -> None:
    asked: list[str] = []

    def pure(text: str) -> float:
        asked.append(text)
        return 1.0

    composed = gated_sum([ThinkFormatGate(), PureOutput(pure)], {"one": (constant(1, "one"), 1.0)})
    assert composed([SOURCE] * 3, [GOOD, "malformed", GOOD]) == [1, 0, 1]
    assert asked == ["月亮悬在寂静的河上。"], "survivors only, and each text once"


def test_language_gate() -> None:
    said = [
        GOOD,
        "<think>a</think>",
        f"<think>a</think>{SOURCE}",
        "<think>a</think>The moon is over the river and it is quiet",
    ]
    assert LanguageGate("zh")([SOURCE] * 4, said) == [1, 0, 0, 0]
    assert LanguageGate("en")([SOURCE], [f"<think>a</think>{SOURCE}"]) == [0], "a copied source is no translation"
    rows = LanguageGate()([SOURCE] * 2, [GOOD, GOOD], target_language=["zh", "en"])
    assert rows == [1, 0]
    with pytest.raises(GuerdonError, match="target_language"):
        LanguageGate()([SOURCE], [GOOD])
    light = LightweightTranslationReward("zh")
    assert light([SOURCE] * 2, [GOOD, "月亮悬在寂静的河上。"]) == [1, 0]
    assert LightweightTranslationReward("zh", think=False)([SOURCE], ["月亮悬在寂静的河上。"]) == [1]


def test_thoughts() -> None:
    reward = ThoughtReward(
        lambda source, thought: 2.0 if "image" in thought else Failed("off", "unavailable"), unit=True
    )
    found = reward([SOURCE] * 3, [GOOD, "no thought", "<think>x</think>y"])
    assert found[:2] == [1.0, 0.0] and isinstance(found[2], Failed)


def test_comparison() -> None:
    store = ExemplarStore()
    store.add(SOURCE, "one two three", producer="strong")
    graded = {("better", "one two three"): 4, ("one two three", "better"): 2}
    reward = ExemplarComparisonReward(lambda source, first, second: graded.get((first, second), 5), store)
    said = ["<think>a</think>better", "<think>a</think>biased", "<think>a</think>"]
    assert reward([SOURCE] * 3, said) == [4, 3, 1]
    (told, tie, _) = reward.explain([SOURCE] * 3, said)
    assert told == Comparison(4.0, False, 4.0, 2.0, "one two three", "better")
    assert isinstance(tie, Comparison) and tie.tie
    assert reward(["unknown source"], said[:1]) == [None]
    assert ExemplarComparisonReward(reward.judge, store, unit=True)([SOURCE], said[:1]) == [0.75]
    assert ExemplarComparisonReward(reward.judge, store, swap=False)([SOURCE], said[1:2]) == [5]
    for broken in (Failed("off", "unavailable"), 7, True, "4"):
        (found,) = ExemplarComparisonReward(lambda *case, one=broken: one, store)([SOURCE], said[:1])
        assert isinstance(found, Failed)


def test_store(tmp_path: Path) -> None:
    store = ExemplarStore()
    store.add(SOURCE, "月亮", producer="r1", date="2025-05-19", direction="en-zh")
    with pytest.raises(GuerdonError, match="two producers are two levels"):
        store.add("other", "x", producer="v3")
    store.save(tmp_path / "store.jsonl")
    again = ExemplarStore.load(tmp_path / "store.jsonl")
    assert again.get(SOURCE, "en-zh") == store.get(SOURCE, "en-zh") and again.get(SOURCE) is None
    assert again.identity() == store.identity() and len(again) == 1
    with open(tmp_path / "store.jsonl", "a", encoding="utf-8") as file:
        file.write('{"key": "k", "text": "t"}\n')
    with pytest.raises(GuerdonError, match="line 2"):
        ExemplarStore.load(tmp_path / "store.jsonl")


def test_monitor_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    monitor = GradeMonitor(10)
    with caplog.at_level(logging.WARNING):
        monitor.see([5] * 9)
        assert not caplog.records, "the window is not full"
        monitor.see([5])
        monitor.see([5])
        assert len(caplog.records) == 1 and "too weak" in caplog.text
        monitor.see([3] * 10)
        monitor.see([1] * 10)
    assert len(caplog.records) == 2 and "too strong" in caplog.text


def test_full_reward_asks_for_parts_of_one_scale() -> None:
    store = ExemplarStore()
    store.add(SOURCE, "月亮挂在河上。", producer="strong")
    judge = OverlapJudge({SOURCE: "月亮悬在寂静的河上。"})
    with pytest.raises(GuerdonError, match="unit=True"):
        extrans_reward(ExemplarComparisonReward(judge, store))
    full = extrans_reward(ExemplarComparisonReward(judge, store, unit=True), quality=constant(0.5, "quality", 0, 1))
    found = full.scores([SOURCE] * 2, [GOOD, "malformed"])
    assert found.values.tolist() == [1.25, 0.0]


def test_router() -> None:
    seen: dict[str, int] = {}

    def counting(name: str, value: float):
        def score(prompts, completions, **columns):
            seen[name] = len(completions)
            assert len(columns["direction"]) == len(completions)
            return [value] * len(completions)

        return reward(name=name, range=(0, 10))(score)

    router = DirectionRouter({"en-zh": counting("full", 7.0)}, counting("light", 1.0))
    directions = ["en-zh", "en-zh", "de-fr"]
    assert router(["a", "a", "b"], ["x", "y", "z"], direction=directions) == [7, 7, 1]
    assert seen == {"full": 2, "light": 1}
    assert DirectionRouter({"en-zh": counting("full", 7.0)})(["a", "b"], ["x", "z"], direction=directions[1:]) == [
        7,
        None,
    ]
    with pytest.raises(GuerdonError, match="one group holds"):
        router(["a", "a"], ["x", "y"], direction=directions[1:])
    with pytest.raises(GuerdonError, match="column 'direction'"):
        router(["a"], ["x"])
