"""RewardBench's pairs: strict wins, sections weighted as published, judges, and what is not judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guerdon.benchmarks.protocol import Question
from guerdon.benchmarks.rewardbench_1 import load_rewardbench_1, rewardbench_1
from guerdon.core.errors import GuerdonError
from guerdon.metrics.best_of_k import REWARDBENCH_1_SECTIONS
from guerdon.report.sheet_page import render_sheet
from made_benchmarks import Ranker, Ruled, knows, written

SUBSETS = [name for names in REWARDBENCH_1_SECTIONS.values() for name in names]


def rows(count: int = 4) -> list[dict[str, Any]]:
    return [
        {"id": number, "prompt": f"Ask {row} in {subset}?", "chosen": f"right {row}", "rejected": f"wrong {row}",
         "subset": subset, "chosen_model": "x"}
        for number, (subset, row) in enumerate((subset, row) for subset in SUBSETS for row in range(count))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    return load_rewardbench_1(written(tmp_path_factory.mktemp("data"), rows()))


def test_a_perfect_model_and_its_sections(questions: list[Question]) -> None:
    result = rewardbench_1(Ruled(knows), questions, progress=False)
    totals = {name: one.value for name, one in result.subjects[0].totals.items()}
    assert totals == pytest.approx({"Chat": 1, "Chat Hard": 1, "Safety": 1, "Reasoning": 1, "Score": 1})
    assert result.headline == "Score" and len(result.subjects[0].subsets) == 23
    assert any("of 23 subsets" in note for note in result.notes)
    assert render_sheet(result.sheet())


def test_sections_weigh_as_published(questions: list[Question]) -> None:
    def no_maths(prompt: str, answer: str) -> float:
        return knows(prompt, answer) * (-1 if "math-prm" in prompt else 1)

    totals = rewardbench_1(Ruled(no_maths), questions, progress=False).subjects[0].totals
    assert totals["Reasoning"].value == pytest.approx(0.5) and totals["Score"].value == pytest.approx(3.5 / 4)


def test_equal_scores_count_nothing_and_are_told(questions: list[Question]) -> None:
    result = rewardbench_1(Ruled(lambda prompt, answer: 1.0), questions, progress=False)
    assert result.score == 0 and result.subjects[0].equal == 1


def test_a_judge_that_ranks_sees_both_orders(questions: list[Question]) -> None:
    judge = Ranker(knows)
    assert rewardbench_1(judge, questions, progress=False).score == pytest.approx(1)
    ahead = [some[0].startswith("right") for some in judge.shown]
    assert 0.3 < sum(ahead) / len(ahead) < 0.7


def test_undecided_judgements_are_counted_and_half_by_the_published_rule(questions: list[Question]) -> None:
    def rule(prompt: str, answer: str) -> float | str:
        return "unparsable: hm" if prompt.startswith("Ask 0") else knows(prompt, answer)

    first = rewardbench_1(Ranker(rule), questions, progress=False).subjects[0]
    assert first.totals["Score"].value == pytest.approx(1) and first.problems == {"unparsable": 23}
    assert first.published is not None and first.published["Score"] == pytest.approx(1 - 0.5 / 4)


def test_two_subjects(questions: list[Question]) -> None:
    result = rewardbench_1(
        Ruled(knows, "good"), questions, against=Ruled(lambda prompt, answer: -knows(prompt, answer), "bad"),
        progress=False,
    )  # fmt: skip
    gaps = {one.name: one for one in result.paired}
    assert gaps["Score"].difference.value == pytest.approx(1) and gaps["Score"].test.better == 92
    assert gaps["hep-go"].test.p == pytest.approx(2 / 2**4) and gaps["hep-go"].p_adjusted == 1


def test_part_of_the_subsets_has_no_score(questions: list[Question]) -> None:
    result = rewardbench_1(Ruled(knows), [one for one in questions if one.subset == "hep-go"], progress=False)
    assert list(result.subjects[0].totals) == ["Reasoning"] and result.headline == ""
    assert any("rows lack" in note for note in result.notes)


def test_bad_rows_and_no_hub(tmp_path: Path) -> None:
    bad = rows(1)
    bad[2]["chosen"] = ["a list"]
    with pytest.raises(GuerdonError, match=r"rows.jsonl:3: column 'chosen' must be a text"):
        load_rewardbench_1(written(tmp_path, bad))
    with pytest.raises(GuerdonError, match="--data"):
        load_rewardbench_1()
