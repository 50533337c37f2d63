"""The translation run, and its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.recipes import extrans
from guerdon.rewards.text.similarity import ReferenceMatch

TINY = dict(
    steps=2, prompts_per_step=2, num_generations=2, learning_rate=1e-3, max_completion_length=24, save_every=1,
    watch_every=1, watch_samples=2,
)  # fmt: skip
ROW = {
    "prompt": [{"role": "user", "content": "Translate: The dog."}], "source": "The dog.", "direction": "en-de",
    "target_language": "de", "exemplar": "Der Hund.", "reference": "Der Hund.",
}  # fmt: skip


def config(**changes: Any) -> extrans.ExTransConfig:
    tiny = dict(problems=12, watched=2, tested=3, samples=2, begin_steps=3, begin_rows=40, training=TINY)
    return extrans.CONFIG(**{**tiny, **changes})


def test_from_start_to_summary_and_again(tmp_path: Path) -> None:
    given = config()
    folder = RunFolder.open(tmp_path / "run", given)
    summary = extrans.run(given, folder)
    assert summary["system"] == "extrans" and summary["rows"] == {"training": 12, "watched": 2, "tested": 3}
    assert (folder.path / "begin" / "complete").is_file()
    assert extrans.run(given, folder, True)["tables"] == summary["tables"]


def test_each_direction_has_its_reward() -> None:
    other = {**ROW, "source": "Der Hund.", "direction": "de-en", "target_language": "en", "reference": "The dog."}
    reward = extrans.routed(config(), extrans.checked([ROW, other], config()))

    def score(row: dict[str, Any], said: str) -> Any:
        columns = {key: [value] for key, value in row.items() if key != "prompt"}
        return reward([row["prompt"]], [f"<think>Hm.</think>{said}"], **columns)[0]

    same, worse = score(ROW, "Der Hund."), score(ROW, "Xyzzy quux.")
    assert same == pytest.approx(0.5) and worse == pytest.approx(0.0), "a tie is the middle of the grades"
    long = "The dog is old and the cat is not."
    assert score(other, long) == 1.0, "form and language alone, whatever it says"


def test_what_rows_lack_is_named(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="'Translate: The dog.' needs the column 'exemplar'"):
        extrans.checked([{key: value for key, value in ROW.items() if key != "exemplar"}], config())
    with pytest.raises(GuerdonError, match="needs the column 'reference'"):
        extrans.checked([{key: value for key, value in ROW.items() if key != "reference"}], config())
    with pytest.raises(GuerdonError, match="judge_model"):
        extrans.run(config(data="x.jsonl"), RunFolder.open(tmp_path / "run", {"a": 1}))
    given = config(anchors=["en-fr"])
    with pytest.raises(GuerdonError, match="en-fr"):
        extrans.run(given, RunFolder.open(tmp_path / "other", given))


def test_the_judge_asks_for_the_reference() -> None:
    said = ["<think>x</think>Der  Hund.", "Der Hund", "Die Katze."]
    assert ReferenceMatch()(None, said, reference=["Der Hund.", "Der Hund.", None]) == [1.0, 0.0, None]
    assert 0 < ReferenceMatch(exact=False)(None, ["Der Hut."], reference=["Der Hund."])[0] < 1  # type: ignore[operator]
    with pytest.raises(GuerdonError, match="needs the column 'reference'"):
        ReferenceMatch()(None, said)
    assert ReferenceMatch().identity() != ReferenceMatch(exact=False).identity()
