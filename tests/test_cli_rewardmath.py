"""``guerdon bench rewardmath`` as a function: published files, own solutions, and what is said wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.cli.benching import Graded, On
from guerdon.cli.benching_rewardmath import bench_rewardmath
from guerdon.core.errors import GuerdonError

REWARD = """
def brevity(prompts, completions, **columns):
    return [-float(len(text)) for text in completions]

def silent(prompts, completions, **columns):
    return [None] * len(completions)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"q{n}", "completion": "short" if right else "much too long", "label": right, "question_id": n}
        for n in range(4) for right in (True, False)
    ]  # fmt: skip
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "a_reward.json").write_text(json.dumps([{"problem": f"p{n}", "score": [n, 1]} for n in range(4)]))
    steps = [{"problem": f"p{n}", "score": [[0.9, 0.2], [0.5]]} for n in range(4)]
    (tmp_path / "b_reward.json").write_text(json.dumps(steps))
    (tmp_path / f"reward_{tmp_path.name}.py").write_text(REWARD)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_published_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_rewardmath(Graded(scores=str(folder / "a_reward.json")), On(), as_json=True)
    assert said(capsys)["score"] == 0.5


def test_two_published_files_and_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graded = Graded(scores=str(folder / "b_reward.json"), against=str(folder / "a_reward.json"))
    bench_rewardmath(graded, On(out=folder / "run"), "max")
    shown = capsys.readouterr().out
    assert "One against many" in shown and "Step scores of b reduced" in shown and "geometric_mean" in shown
    assert json.loads((folder / "run" / "result.json").read_text())["score"] == 1
    assert "Step scores of b reduced" in (folder / "run" / "report.html").read_text()


def test_own_solutions_with_a_reward(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graded = Graded(reward=f"{folder / f'reward_{folder.name}.py'}:brevity")
    bench_rewardmath(graded, On(data=str(folder / "own.jsonl"), out=folder / "run"), as_json=True)
    result = said(capsys)
    assert result["score"] == 1 and result["best_of_n"]["curves"]["brevity"] == [1, 1]
    assert (folder / "run" / "rows.jsonl").is_file()
    assert result["shortcuts"]["rules"][0]["by_lot"]["value"] == 1


def test_what_is_said_wrongly(folder: Path) -> None:
    with pytest.raises(GuerdonError, match="did you mean 'prod'"):
        bench_rewardmath(Graded(scores=str(folder / "a_reward.json")), On(), "produc")
    with pytest.raises(GuerdonError, match="no published result file"):
        bench_rewardmath(Graded(scores=str(folder / "a_reward.json"), against=str(folder / "own.jsonl")), On())
    with pytest.raises(GuerdonError, match="judged none of the 4 problems whole"):
        bench_rewardmath(
            Graded(reward=f"{folder / f'reward_{folder.name}.py'}:silent"), On(data=str(folder / "own.jsonl"))
        )
