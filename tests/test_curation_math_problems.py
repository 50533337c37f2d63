"""GSM8K's and MATH's columns become prompts and solutions, and what marks no answer is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.curation.math_problems import boxed_answer, final_answer, load_math, plain_worked
from guerdon.rewards.text.final_answer import rule_verifier

GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "train.jsonl.gz"


def written(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_gsm8k_columns(tmp_path: Path) -> None:
    worked = "She eats 3 + 4 = <<3+4=7>>7 eggs.\nThat leaves $<<1000*70=70000>>70,000.\n#### 70,000"
    found = load_math(written(tmp_path, {"question": "How much?", "answer": worked}))
    (row,) = found.rows
    assert row["prompt"] == [{"role": "user", "content": "How much?"}] and row["solution"] == "70,000"
    assert row["worked"] == "She eats 3 + 4 = 7 eggs.\nThat leaves $70,000.\n#### 70,000"
    assert rule_verifier([row["prompt"]], ["The answer is 70000."], solution=[row["solution"]]) == [1.0]


def test_math_columns(tmp_path: Path) -> None:
    rows = [
        {"problem": "Half?", "solution": "It is \\boxed{\\frac{1}{2}}.", "level": "Level 1", "type": "Algebra"},
        {"problem": "Solve.", "solution": "So $\\boxed{2x+1}$.", "level": "Level 5", "type": "Algebra"},
    ]
    found = load_math(written(tmp_path, *rows), instruction="State it in a box.")
    assert [row["solution"] for row in found.rows] == ["\\frac{1}{2}"]
    assert found.rows[0]["prompt"][0]["content"] == "Half?\nState it in a box."
    assert found.left_out == {"answer is beyond the rule verifier": 1}
    everything = load_math(written(tmp_path, *rows), keep_unverifiable=True)
    assert [row["solution"] for row in everything.rows] == ["\\frac{1}{2}", "2x+1"] and not everything.left_out


def test_own_columns_and_messages(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "1 + 1?"}]
    found = load_math(written(tmp_path, {"prompt": turns, "solution": "2"}), instruction="Say it.")
    assert found.rows[0]["prompt"] == [turns[0], {"role": "user", "content": "1 + 1?\nSay it."}]
    assert found.rows[0]["solution"] == "2"
    assert load_math(written(tmp_path, {"prompt": "1 + 1?", "answer": "2"})).rows[0]["solution"] == "2"


def test_rows_that_mark_no_answer_are_named(tmp_path: Path) -> None:
    good = {"question": "How much?", "answer": "#### 1"}
    path = written(tmp_path, good, {"question": "How much?", "answer": "A lot.\nTruly."})
    with pytest.raises(GuerdonError, match="rows.jsonl:2.*marks no final answer"):
        load_math(path)
    assert len(load_math(path, skip_bad_rows=True)) == 1
    with pytest.raises(GuerdonError, match=r"question\+answer.*columns: Question"):
        load_math(written(tmp_path, {"Question": "How much?"}))
    with pytest.raises(GuerdonError, match="rule verifier"):
        load_math(written(tmp_path, {"problem": "Solve.", "solution": "\\boxed{x}^2 \\boxed{x+1}"}))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{18}", "18"),
        ("first \\boxed{1}, then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("$\\fbox{7}$ is it", "7"),
        ("\\boxedness", None),
        ("\\boxed 5.", "5"),
        ("\\boxed {5}", "5"),
        ("\\boxed{1} and \\boxed{2", None),
        ("no box", None),
    ],
)
def test_boxes(text: str, answer: str | None) -> None:
    assert boxed_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so\n#### 18", "18"), ("#### 1\n#### 2\n", "2"), ("#### ", None), ("\\boxed{}", None), ("18", "18"),
        ("It is 18.\nReally.", None), ("", None), ("\\boxed{3", None),
    ],
)  # fmt: skip
def test_final_answers(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@given(st.text(alphabet="\\{}boxed #1\n<>=", max_size=200))
def test_any_text_has_an_answer_or_none(text: str) -> None:
    for found in (final_answer(text), boxed_answer(text)):
        assert found is None or found in text
    assert len(plain_worked(text)) <= len(text)


def test_deep_and_long_boxes_end() -> None:
    assert boxed_answer("\\boxed" + "{" * 50_000 + "}" * 50_000) == "{" * 49_999 + "}" * 49_999
    assert boxed_answer("\\boxed{" * 20_000) is None


@pytest.mark.skipif(not GSM8K.is_file(), reason="../shared/data/gsm8k is not there")
def test_all_of_gsm8k_is_readable() -> None:
    found = load_math(GSM8K)
    with gzip.open(GSM8K, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(found) == len(rows) == 7473 and not found.left_out
    worked = [row["worked"] for row in found.rows]
    assert not any("<<" in text for text in worked)
    scores = rule_verifier([""] * len(worked), worked, solution=[row["solution"] for row in found.rows])
    assert scores == [1.0] * len(worked)
