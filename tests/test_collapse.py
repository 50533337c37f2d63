"""The watch for collapsed policies: each mark by itself, and as a callback of a real GRPO run."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from guerdon.core.errors import GuerdonError
from guerdon.core.reward import reward
from guerdon.trainers.collapse import CollapseMonitor, CollapseWatch, key_reward


def names(watch: CollapseWatch) -> list[str]:
    return [alarm.measure for alarm in watch.alarms]


def test_short_answers_after_long_ones() -> None:
    watch = CollapseWatch(patience=2)
    for step, length in enumerate([80, 20, 40, 20, 20]):
        watch.measure(step, length=length)
    assert names(watch) == ["length"] and watch.alarms[0].step == 4 and watch.alarms[0].times == 2
    assert str(watch.alarms[0]) == "step 4: length is 20, beyond 30 (2 in a row)"
    short = CollapseWatch(patience=1)
    for step in range(3):
        short.measure(step, length=5)
    assert names(short) == [], "a task of short answers is not measured by its length"


def test_one_answer_to_everything() -> None:
    watch = CollapseWatch(patience=1)
    prompts = [f"p{place}" for place in range(8)]
    watch.measure(0, responses=[f"r{place}" for place in range(8)], prompts=prompts)
    watch.measure(1, responses=["Solution"] * 5 + ["a", "b", "c"], prompts=prompts)
    assert names(watch) == ["top_share"] and watch.alarms[0].value == pytest.approx(5 / 8)
    few = CollapseWatch(patience=1)
    few.measure(0, responses=["x"] * 6, prompts=["a", "b"] * 3)
    assert names(few) == [], "two prompts cannot tell"
    with pytest.raises(GuerdonError, match="2 responses to 1 prompts"):
        few.measure(1, responses=["x", "y"], prompts=["a"])


def test_kl_and_paid_keys() -> None:
    watch = CollapseWatch(patience=1)
    for step, kl in enumerate([0.0, 0.01, 0.1, 0.3]):
        watch.measure(step, kl=kl)
    assert names(watch) == ["kl"] and watch.alarms[0].bound == pytest.approx(0.2), "twenty times the first above zero"
    off = CollapseWatch(most_kl=float("inf"), key_reward=None, patience=1)
    off.measure(0, kl=9.0, key_reward=1.0)
    assert names(off) == []
    with pytest.raises(GuerdonError, match="got 0 and 0.5"):
        CollapseWatch(patience=0)


@reward(name="fooled", range=(0.0, 1.0))
def fooled(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
    return [None if text == "," else float("process" in text) for text in completions]


def test_what_keys_are_paid() -> None:
    paid = key_reward(fooled, ["p", "q"])
    assert paid["Thought process:"] == 1.0 and paid["."] == 0.0 and paid[","] != paid[","]
    assert CollapseMonitor.probing(fooled, ["p"])() == 1.0


def test_the_callback_measures_warns_and_stops(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    monitor = CollapseMonitor(
        CollapseWatch(patience=1), probe=CollapseMonitor.probing(fooled, ["p"]), every=10, stop=True,
        on_alarm=lambda alarm: heard.append(alarm.measure),
    )  # fmt: skip
    watched = monitor.watching(fooled)
    assert watched.__name__ == "fooled" and watched.identity()
    watched(prompts=[f"p{place}" for place in range(8)], completions=["one"] * 8)
    state, control, logs = TrainerState(), TrainerControl(), {"kl": 0.0}
    state.global_step = 1
    monitor.on_log(None, state, control, logs)  # type: ignore[arg-type]
    assert heard == ["top_share", "key_reward"] and control.should_training_stop
    assert logs["collapse/top_share"] == 1.0 and "the policy may have collapsed" in caplog.text
    later: dict[str, float] = {"kl": 0.0}
    state.global_step = 5
    monitor.on_log(None, state, control, later)  # type: ignore[arg-type]
    assert "collapse/key_reward" not in later and "collapse/top_share" not in later, "probed every 10 steps; no texts"
    with pytest.raises(GuerdonError, match="at least 1 step"):
        CollapseMonitor(every=0)
