"""The bench commands: files in, tables and files out, and one line where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.cli.benching import Graded, On, bench_pairs, bench_rewardbench_1, bench_rewardbench_2
from guerdon.core.errors import GuerdonError
from made_benchmarks import best_of_four, written


def right(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float(completion.startswith("right")) for completion in completions]


def long(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]


def silent(prompts: Any, completions: Any, **columns: Any) -> list[None]:
    return [None] * len(completions)


RIGHT, LONG, SILENT = (f"{__file__}:{name}" for name in ("right", "long", "silent"))


def test_rewardbench_2_writes_a_result_a_page_and_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path, best_of_four(3, 2), "data.jsonl")
    out = tmp_path / "out"
    bench_rewardbench_2(Graded(reward=RIGHT, against=LONG), On(str(data), out))
    told = capsys.readouterr().out
    assert "right scores 1.002" in told and "Paired difference" in told and "Precise IF" in told
    result = json.loads((out / "result.json").read_text())
    assert result["score"] == pytest.approx((5 + 1.01) / 6) and result["subjects"][0]["ties"]["score"] == 1.01
    assert (out / "report.html").read_text().startswith("<!") and (out / "rows.jsonl").exists()


def test_scores_computed_elsewhere_give_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = best_of_four(3, 2)
    data = written(tmp_path, rows, "data.jsonl")
    scores = [
        {"id": row["id"], "subset": row["subset"], "scores": right(None, row["chosen"] + row["rejected"])}
        for row in rows
    ]
    file = written(tmp_path, scores, "scores.jsonl")
    bench_rewardbench_2(Graded(scores=str(file)), On(str(data)), as_json=True)
    found = json.loads(capsys.readouterr().out)
    bench_rewardbench_2(Graded(reward=RIGHT), On(str(data)), as_json=True)
    wanted = json.loads(capsys.readouterr().out)
    for key in ("subsets", "totals", "ties", "calibration", "problems"):
        assert found["subjects"][0][key] == wanted["subjects"][0][key]


def test_scores_with_holes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = best_of_four(3, 0)
    data = written(tmp_path, rows, "data.jsonl")
    scores = [{"id": row["id"], "scores": [1.0, 0, 0, None if n == 0 else 0]} for n, row in enumerate(rows[1:])]
    bench_rewardbench_2(Graded(scores=str(written(tmp_path, scores, "s.jsonl"))), On(str(data)), as_json=True)
    first = json.loads(capsys.readouterr().out)["subjects"][0]
    assert first["subsets"][0]["unjudged"] == 2 and first["problems"] == {"failed": 5}


def test_rewardbench_1_and_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": n, "prompt": f"Ask {n}?", "chosen": f"right {n}", "rejected": f"wrong, and long {n}", "subset": "hep-go"}
        for n in range(8)
    ]
    data = str(written(tmp_path, rows, "data.jsonl"))
    bench_rewardbench_1(Graded(reward=RIGHT), On(data), as_json=True)
    assert json.loads(capsys.readouterr().out)["subjects"][0]["totals"]["Reasoning"]["value"] == 1
    bench_pairs(Graded(reward=RIGHT, against=LONG), On(data, limit=5), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == 1 and found["rows"] == 5 and found["paired"][-1]["difference"]["value"] == 1


def test_pairs_in_columns_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": "?", "best": f"right {n}", "worst": f"wrong {n}"} for n in range(3)]
    columns = ["prompt=question", "chosen=best", "rejected=worst"]
    bench_pairs(Graded(reward=RIGHT), On(str(written(tmp_path, rows))), columns, as_json=True)
    assert json.loads(capsys.readouterr().out)["score"] == 1


@pytest.mark.parametrize(
    "graded, told",
    [
        (Graded(), "one of --model, --reward, --scores"),
        (Graded(reward=RIGHT, against=RIGHT), "the very same"),
        (Graded(reward=SILENT), "judged none of the 16 rows (64 does not apply)"),
        (Graded(reward=RIGHT, mode="rank"), "is for judges"),
        (Graded(scores="nowhere.jsonl"), "no file of scores"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, graded: Graded, told: str) -> None:
    with pytest.raises(GuerdonError) as error:
        bench_rewardbench_2(graded, On(str(written(tmp_path, best_of_four(2, 3)))))
    assert told in str(error.value)


def test_pairs_need_data() -> None:
    with pytest.raises(GuerdonError, match="chosen, rejected"):
        bench_pairs(Graded(reward=RIGHT), On())
