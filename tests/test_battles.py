from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from guerdon.benchmarks.battles import BattleLog, fight
from guerdon.benchmarks.image_sets import Equaliser, ImageSet
from guerdon.benchmarks.judges import DetectorJudge, Verdict
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed

PNG = Equaliser("png", None)


def levels(name: str, *values: float) -> ImageSet:
    return ImageSet(name, torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous())


def bright() -> DetectorJudge:
    return DetectorJudge(lambda images: images.mean((1, 2, 3)), name="brightness")


class Scripted:
    """Plays a list of outcomes, one a call, and keeps what it was shown."""

    def __init__(self, *script: Any, deterministic: bool = False, identity: str = "scripted") -> None:
        self.script, self.deterministic, self.identity = list(script), deterministic, identity
        self.shown: list[tuple[int, int, str | None]] = []
        self.lock = threading.Lock()

    def compare(self, image_1: Image.Image, image_2: Image.Image, prompt: str | None) -> Verdict:
        with self.lock:
            self.shown.append((image_1.getpixel((0, 0))[0], image_2.getpixel((0, 0))[0], prompt))  # type: ignore[index]
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BaseException):
            raise step
        return step


def test_every_pair_is_shown_in_both_orders() -> None:
    judge = Scripted("first")
    first, second = fight(levels("m", 0.0, 0.2), levels("r", 1.0, 0.4), judge, BattleLog(None), PNG, prompts=["a", "b"])
    assert judge.shown == [(0, 255, "a"), (255, 0, "a"), (51, 102, "b"), (102, 51, "b")]
    assert [b.outcome for b in first] == [1.0, 1.0] and [b.outcome for b in second] == [0.0, 0.0]


def test_outcomes_are_the_players() -> None:
    first, second = fight(levels("m", 0.9, 0.1, 0.5), levels("r", 0.5, 0.5, 0.5), bright(), BattleLog(None), PNG)
    assert [b.outcome for b in first] == [b.outcome for b in second] == [1.0, 0.0, 0.5]


def test_a_second_run_asks_nothing_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "arena.jsonl"
    judge = Scripted("first", "second", "tie", "first")
    before = fight(levels("m", 0.1, 0.2), levels("r", 0.9, 0.8), judge, BattleLog(path), PNG)
    again = Scripted(RuntimeError("must not be asked"))
    assert fight(levels("m", 0.1, 0.2), levels("r", 0.9, 0.8), again, BattleLog(path), PNG) == before
    assert again.shown == []


def test_failed_rows_are_stored_and_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "arena.jsonl"
    judge = Scripted("first", Failed("server down", "unavailable"))
    first, second = fight(levels("m", 0.1), levels("r", 0.9), judge, BattleLog(path), PNG)
    assert first[0].outcome == 1.0 and math.isnan(second[0].outcome)
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["order"], row["verdict"], row["kind"], row["cause"]) for row in stored] == [
        ("12", "first", "", ""),
        ("21", "failed", "unavailable", "server down"),
    ]
    healed = Scripted("second")
    first, second = fight(levels("m", 0.1), levels("r", 0.9), healed, BattleLog(path), PNG)
    assert healed.shown == [(230, 26, None)]  # only the failed order
    assert (first[0].outcome, second[0].outcome) == (1.0, 1.0)
    assert len(path.read_text().splitlines()) == 3


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "arena.jsonl"

    class Crash(BaseException):
        pass

    with pytest.raises(Crash):
        fight(levels("m", 0.1, 0.2), levels("r", 0.9, 0.8), Scripted("first", "tie", Crash()), BattleLog(path), PNG)
    text = path.read_text()
    assert len(text.splitlines()) == 2
    path.write_text(text + text.splitlines()[0][:40])  # a row that was being written when the power went
    rest = Scripted("second")
    first, second = fight(levels("m", 0.1, 0.2), levels("r", 0.9, 0.8), rest, BattleLog(path), PNG)
    assert len(rest.shown) == 2
    assert [b.verdict for b in (*first, *second)] == ["first", "second", "tie", "second"]
    assert [json.loads(line)["verdict"] for line in path.read_text().splitlines()] == [
        "first",
        "tie",
        "second",
        "second",
    ]


@pytest.mark.parametrize("changed", ["pixels", "prompt", "judge"])
def test_verdicts_on_something_else_are_not_reused(tmp_path: Path, changed: str) -> None:
    path = tmp_path / "arena.jsonl"
    fight(levels("m", 0.1), levels("r", 0.9), Scripted("first"), BattleLog(path), PNG, prompts=["a cat"])
    log, judge = BattleLog(path), Scripted("second", identity="other" if changed == "judge" else "scripted")
    images = levels("m", 0.2 if changed == "pixels" else 0.1)
    prompts = ["a dog" if changed == "prompt" else "a cat"]
    first, _ = fight(images, levels("r", 0.9), judge, log, PNG, prompts=prompts)
    assert len(judge.shown) == 2 and log.outdated == 2 and first[0].verdict == "second"


def test_corrupt_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "arena.jsonl"
    fight(levels("m", 0.1), levels("r", 0.9), Scripted("first"), BattleLog(path), PNG)
    good = path.read_text().splitlines()
    for bad, says in (
        ("{broken", "not a line of JSON"),
        (json.dumps({**json.loads(good[0]), "extra": 1}), "missing or unknown: extra"),
        (json.dumps({**json.loads(good[0]), "verdict": "third"}), "verdict 'third'"),
    ):
        path.write_text(f"{good[0]}\n{bad}\n{good[1]}\n")
        with pytest.raises(GuerdonError, match=f"arena.jsonl:2: .*{says}"):
            BattleLog(path)


def test_retries_wait_twice_as_long_each_time() -> None:
    waits: list[float] = []
    judge = Scripted(Failed("mumbled", "unparseable"), ValueError("flaky"), "first")
    first, _ = fight(levels("m", 0.1), levels("r", 0.9), judge, BattleLog(None), PNG, backoff=0.5, sleep=waits.append)
    assert waits == [0.5, 1.0] and first[0].verdict == "first" and first[0].attempts == 3


def test_what_repeating_cannot_help_is_not_repeated() -> None:
    for judge in (
        Scripted(Failed("mumbled", "unparseable"), deterministic=True),
        Scripted(Failed("status 400", "refused")),
    ):
        first, second = fight(levels("m", 0.1), levels("r", 0.9), judge, BattleLog(None), PNG, sleep=lambda s: None)
        assert len(judge.shown) == 2 and first[0].verdict == second[0].verdict == "failed"


def test_an_error_of_the_judge_is_a_failed_verdict_with_its_cause() -> None:
    judge = Scripted(RuntimeError("out of memory"))
    first, _ = fight(levels("m", 0.1), levels("r", 0.9), judge, BattleLog(None), PNG, sleep=lambda s: None)
    assert (first[0].kind, first[0].cause, first[0].attempts) == ("exception", "RuntimeError: out of memory", 3)
    with pytest.raises(GuerdonError, match="returned 'third'; want first, second, tie or Failed"):
        fight(levels("m", 0.1), levels("r", 0.9), Scripted("third"), BattleLog(None), PNG)


def test_an_outage_ends_the_run_and_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "arena.jsonl"
    sets = levels("m", *[0.1] * 30), levels("r", *[0.9] * 30)
    judge = Scripted("first", "first", Failed("http://host answered 503", "unavailable"))
    with pytest.raises(GuerdonError, match="10 times in a row: http://host answered 503; .*arena.jsonl, run again"):
        fight(*sets, judge, BattleLog(path), PNG)
    assert len(judge.shown) == 12 and len(path.read_text().splitlines()) == 12
    with pytest.raises(GuerdonError, match="10 times in a row: ValueError: broken"):
        fight(*sets, Scripted(ValueError("broken")), BattleLog(None), PNG, attempts=1)
    mumbling = fight(*sets, Scripted(Failed("mumbled", "unparseable")), BattleLog(None), PNG, attempts=1)
    assert len(mumbling[0]) == 30  # a judge that answers, however badly, is measured and not stopped


def test_threads_give_the_same_verdicts(tmp_path: Path) -> None:
    values = [i / 40 for i in range(40)]
    sets = levels("m", *values), levels("r", *values[::-1])
    alone = fight(*sets, bright(), BattleLog(None), PNG)
    together = fight(*sets, bright(), BattleLog(tmp_path / "arena.jsonl"), PNG, workers=6)
    assert alone == together
    assert len((tmp_path / "arena.jsonl").read_text().splitlines()) == 80
    assert fight(*sets, bright(), BattleLog(tmp_path / "arena.jsonl"), PNG, workers=3) == alone
    assert len((tmp_path / "arena.jsonl").read_text().splitlines()) == 80
    with pytest.raises(GuerdonError, match="returned 'third'"):
        fight(*sets, Scripted("third"), BattleLog(None), PNG, workers=4)


def test_sets_that_do_not_pair_are_refused() -> None:
    with pytest.raises(GuerdonError, match="pairs images one to one: m has 1 images, r has 2"):
        fight(levels("m", 0.1), levels("r", 0.9, 0.8), Scripted("first"), BattleLog(None), PNG)
