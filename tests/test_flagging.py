"""Cleaning by lowest scores: how many rows, ties, broken rows, and the file that is written."""

from __future__ import annotations

import json

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.curation.flagging import score_dataset
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone


def rows(count: int) -> list[dict]:
    return [{"prompt": "p", "completion": f"answer {number}", "id": number} for number in range(count)]


def number(prompts, completions, **columns):
    return [float(one.split()[1]) for one in completions]


def test_the_lowest_tenth() -> None:
    found = score_dataset(number, rows(30)[::-1])
    assert found.rows == [27, 28, 29] and found.threshold == 2.0 and found.kept.sum() == 27
    assert found.reasons[29] == ["score 0 among the lowest 10% (at most 2)"]
    assert score_dataset(number, rows(9)).rows == []  # a tenth of nine is less than one


def test_no_more_than_asked_for_where_scores_are_equal() -> None:
    def steps(prompts, completions, **columns):
        return [float(int(one.split()[1]) // 3) for one in completions]

    assert score_dataset(steps, rows(30), q=0.1).rows == [0, 1, 2]
    assert score_dataset(steps, rows(30), q=0.15).rows == [0, 1, 2]  # 4 would split the three of score 1
    assert score_dataset(lambda prompts, completions, **c: [1.0] * len(completions), rows(30)).rows == []


def test_broken_rows_are_flagged_with_their_reasons(tmp_path) -> None:
    @reward
    def fails(prompts, completions, id=None, **columns):
        return [Failed("too long", "unscorable") if n == 7 else None if n == 8 else float(n) for n in id]

    data = rows(20)
    data[5]["completion"] = "<|im_end|>"
    found = score_dataset(fails, data, out=tmp_path / "sub" / "flagged.jsonl")
    assert found.rows == [0, 5, 7, 8]
    assert found.reasons[7] == ["not scored: too long"] and found.reasons[8] == [
        "not scored: the reward does not apply"
    ]
    assert found.reasons[5] == ["the completion holds the chat marker <|im_end|>"]
    written = [json.loads(line) for line in (tmp_path / "sub" / "flagged.jsonl").read_text().splitlines()]
    assert [line["row"] for line in written] == [0, 5, 7, 8] and written[2]["score"] is None and written[1]["id"] == 5
    assert written[0]["reasons"] == found.reasons[0] and written[0]["prompt"] == "p"


def test_every_row_may_fail() -> None:
    found = score_dataset(lambda prompts, completions, **c: [Failed("x")] * len(completions), rows(5))
    assert found.rows == list(range(5))


def test_a_model_is_taken_as_it_is() -> None:
    backbone, tokenizer = tiny_backbone(["answer 1 2 3 p"], hidden=32, vocab=300)
    model = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer)
    data = rows(12)
    found = score_dataset(model, data, q=0.25)
    turns = [[{"role": "user", "content": "p"}, {"role": "assistant", "content": row["completion"]}] for row in data]
    assert found.scores.tolist() == pytest.approx(model.scores(turns), abs=1e-5) and len(found.rows) == 3


def test_input_is_checked() -> None:
    with pytest.raises(GuerdonError, match=r"q must lie in \(0, 1\)"):
        score_dataset(number, rows(3), q=10)
    with pytest.raises(GuerdonError, match="no rows"):
        score_dataset(number, [])
    with pytest.raises(GuerdonError, match="row 1 has no column 'completion'; columns: prompt, answer"):
        score_dataset(number, [rows(1)[0], {"prompt": "p", "answer": "a"}])
    with pytest.raises(GuerdonError, match="groupwise"):
        score_dataset(reward(groupwise=True)(lambda prompts, completions, **c: [0.0]), rows(3))
