"""Mining pairs by a reward: each strategy, ties, failures, and KTO rows."""

from __future__ import annotations

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.curation.reward_pairs import kto_rows, mine_preferences

SAMPLES = ["aaa", "a", "aaaaa", "aa"]


def length(prompts, completions, **columns):
    return [float(len(one)) if one != "bad" else Failed("no", "unparseable") for one in completions]


length.on_failure = "drop_sample"  # type: ignore[attr-defined]


def draw(prompt, k):
    return SAMPLES[:k]


def test_max_min() -> None:
    found = mine_preferences(["p"], draw, length, k=4)
    assert found.rows == [{"prompt": "p", "chosen": "aaaaa", "rejected": "a", "margin": 4.0}] and not found.left_out


def test_margin() -> None:
    assert not mine_preferences(["p"], draw, length, k=4, strategy="margin", margin=4.5).rows
    found = mine_preferences(["p"], draw, length, k=4, strategy="margin", margin=4.0)
    assert len(found.rows) == 1


def test_threshold() -> None:
    found = mine_preferences(["p"], draw, length, k=4, strategy="threshold", threshold=2.5)
    assert [(row["chosen"], row["rejected"]) for row in found.rows] == [("aaaaa", "a"), ("aaa", "aa")]


def test_ties_and_failures_make_no_pair() -> None:
    found = mine_preferences(["p", "q"], lambda prompt, k: ["xx", "bad", "yy"], length, k=3)
    assert not found.rows and found.left_out == {"samples without a score": 2, "prompts without a pair": 2}


def test_settings_are_checked() -> None:
    for options in ({"k": 1}, {"strategy": "best"}, {"threshold": 1.0}, {"strategy": "threshold"}, {"margin": -1.0}):
        with pytest.raises(GuerdonError):
            mine_preferences(["p"], draw, length, **options)
    with pytest.raises(GuerdonError, match="4 samples were asked for, 1 came"):
        mine_preferences(["p"], lambda prompt, k: ["a"], length, k=4)


def test_kto_rows() -> None:
    rows = kto_rows(mine_preferences(["p"], draw, length, k=4).rows)
    assert rows == [
        {"prompt": "p", "completion": "aaaaa", "label": True},
        {"prompt": "p", "completion": "a", "label": False},
    ]
