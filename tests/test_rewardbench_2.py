"""RewardBench 2 by its published rules, on made-up rows: scores, Ties, judges, what is missing, and resuming."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from guerdon.benchmarks.protocol import ROWS
from guerdon.benchmarks.rewardbench_2 import BestOfKItem, load_rewardbench_2, rewardbench_2
from guerdon.core.errors import GuerdonError
from guerdon.metrics.best_of_k import REWARDBENCH_2_SUBSETS
from guerdon.report.sheet_page import render_sheet
from made_benchmarks import Ranker, Ruled, best_of_four, knows, written


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[BestOfKItem]:
    return load_rewardbench_2(written(tmp_path_factory.mktemp("data"), best_of_four()))


def scored(result: Any) -> dict[str, float]:
    return {one.name: one.score.value for one in result.subjects[0].subsets}


def test_rows_are_read_in_the_published_columns(items: list[BestOfKItem]) -> None:
    assert len(items) == 5 * 6 + 8
    assert items[0].prompt == [{"role": "user", "content": "Ask 0 in Factuality?"}]
    assert items[0].answers == ("right 0", "wrong 0 of 0", "wrong 1 of 0", "wrong 2 of 0") and items[0].num_correct == 1


def test_a_perfect_model(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(knows), items, progress=False)
    assert scored(result) == {**dict.fromkeys(REWARDBENCH_2_SUBSETS, 1.0), "Ties": pytest.approx(1.01)}
    assert result.score == pytest.approx((5 + 1.01) / 6) and result.headline == "RewardBench 2"
    assert result.rows == 38 and result.answers == 5 * 6 * 4 + 4 * 8


def test_a_constant_model_has_chance_and_nothing_on_ties(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(lambda prompt, answer: 0.5), items, progress=False)
    assert scored(result) == {**dict.fromkeys(REWARDBENCH_2_SUBSETS, 0.25), "Ties": 0}
    assert result.subjects[0].equal == 1 and result.subjects[0].subsets[0].chance == 0.25
    assert result.subjects[0].subsets[-1].chance is None


def test_ties_go_by_their_formula(items: list[BestOfKItem]) -> None:
    def uneven(prompt: str, answer: str) -> float:
        return {"right a": 3.0, "right b": 1.0, "right c": 0.5}.get(answer, 0.0)

    ties = rewardbench_2(Ruled(uneven), items, progress=False).subjects[0].ties
    assert ties is not None and (ties.tied_accuracy, ties.ref_accuracy, ties.preferred) == (1, 1, 0)
    assert ties.score == pytest.approx(0.6 + 0.01 * math.tanh(0.5 / 2.5 - 1))


def test_nearly_equal_scores_by_option(items: list[BestOfKItem]) -> None:
    def near(prompt: str, answer: str) -> float:
        return 1.0 + 1e-7 * answer.startswith("wrong 0")

    exact = rewardbench_2(Ruled(near), items, progress=False)
    loose = rewardbench_2(Ruled(near), items, atol=1e-6, progress=False)
    assert scored(exact)["Math"] == 0 and scored(loose)["Math"] == 0.25
    assert loose.settings["equality"] == "within 1e-06"


def test_a_judge_that_ranks_sees_the_right_answer_in_every_place(items: list[BestOfKItem]) -> None:
    judge = Ranker(knows)
    result = rewardbench_2(judge, items, progress=False)
    assert scored(result) == {**dict.fromkeys(REWARDBENCH_2_SUBSETS, 1.0), "Ties": pytest.approx(1.01)}
    places = [next(place for place, text in enumerate(some) if text.startswith("right")) for some in judge.shown]
    assert set(places) == {0, 1, 2, 3} and len(judge.shown) == 30  # Ties were rated
    assert result.subjects[0].calibration is None and math.isnan(result.subjects[0].equal)
    first = Ranker(lambda prompt, answer: 0.0)  # always the first place
    share = sum(value for name, value in scored(rewardbench_2(first, items, progress=False)).items() if name != "Ties")
    assert share / 5 == pytest.approx(places.count(0) / 30)


def test_a_judge_that_cannot_rate_cannot_do_ties(items: list[BestOfKItem]) -> None:
    judge: Any = Ranker(knows)
    judge.score = None
    with pytest.raises(GuerdonError, match="Ties asks for ratings"):
        rewardbench_2(judge, items, progress=False)
    assert rewardbench_2(judge, [one for one in items if one.subset != "Ties"], progress=False).score == 1


# What is not judged


def unreadable(prompt: str, answer: str) -> float | str:
    if answer == "right 0":
        return "unparsable: nonsense"  # the right answer of row 0
    if "of 1" in answer or answer == "right 1":
        return "unparsable: nonsense"  # every answer of row 1
    return 9.0 if answer.startswith("right") else 2.0


def test_what_cannot_be_read_is_counted_and_never_a_zero(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(unreadable, mode="rate"), items, progress=False)
    first = result.subjects[0]
    assert scored(result)["Math"] == 1 and first.subsets[0].unjudged == 2
    assert first.problems == {"unparsable": 5 * (1 + 4)}
    # By the published rule an unread right answer rates -1 and loses, and a row without any rating earns chance.
    assert first.published is not None and first.published["Math"] == pytest.approx((4 + 0 + 0.25) / 6)
    assert first.published["RewardBench 2"] == pytest.approx((5 * 4.25 / 6 + 1.01) / 6)
    text = render_sheet(result.sheet())
    assert "published rule" in text and "not judged" in text and "unparsable" in text


def test_an_undecided_ranking_earns_chance_by_the_published_rule(items: list[BestOfKItem]) -> None:
    def rule(prompt: str, answer: str) -> float | str:
        return "unparsable: shrug" if "Ask 2" in prompt else knows(prompt, answer)

    first = rewardbench_2(Ranker(rule), items, progress=False).subjects[0]
    assert first.problems == {"unparsable": 5} and first.subsets[0].score.value == 1
    assert first.published is not None and first.published["Focus"] == pytest.approx((5 + 0.25) / 6)


def test_an_unread_rating_enters_ties_as_minus_one_by_the_published_rule_only(items: list[BestOfKItem]) -> None:
    def rule(prompt: str, answer: str) -> float | str:
        return "unparsable: hm" if "Any of 0" in prompt and answer == "right b" else 2 + 7 * knows(prompt, answer)

    first = rewardbench_2(Ruled(rule, mode="rate"), items, progress=False).subjects[0]
    assert first.ties is not None and first.ties.score == pytest.approx(1.01) and first.ties.prompts == 3
    assert first.subsets[-1].unjudged == 1
    margin = (3 + math.tanh(-3 / 10 - 1)) / 4
    wanted = 0.3 * 0.75 + 0.3 + 0.4 * 0.75 + 0.01 * margin
    assert first.published is not None and first.published["Ties"] == pytest.approx(wanted)


def test_other_subjects_have_no_published_rule(items: list[BestOfKItem]) -> None:
    first = rewardbench_2(Ruled(unreadable), items, progress=False).subjects[0]
    assert first.published is None and first.problems


def test_nothing_judged_is_no_score(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(lambda prompt, answer: "failed: away"), items, progress=False)
    assert math.isnan(result.score) and "0 of 38 rows judged" in result.lead()
    json.dumps(result.to_dict(), default=str)
    assert render_sheet(result.sheet())


# Two subjects


def test_two_subjects_are_compared_row_by_row(items: list[BestOfKItem]) -> None:
    def half(prompt: str, answer: str) -> float:
        row = int(prompt.split()[1]) if prompt.startswith("Ask") else 0
        return knows(prompt, answer) if row % 2 == 0 else 0.0

    result = rewardbench_2(Ruled(knows, "all"), items, against=Ruled(half, "half"), progress=False)
    gaps = {one.name: one for one in result.paired}
    assert gaps["Math"].difference.value == pytest.approx(0.75 / 2)
    assert (gaps["Math"].test.better, gaps["Math"].test.worse, gaps["Math"].test.equal) == (3, 0, 3)
    assert gaps["Ties"].difference.value == 0 and gaps["RewardBench 2"].test.better == 15
    assert "It is better than half" in result.lead() and math.isnan(gaps["RewardBench 2"].p_adjusted)
    assert gaps["Math"].p_adjusted >= gaps["Math"].test.p
    text = render_sheet(result.sheet())
    assert "all less half" in text and "Holm" in text


def test_a_comparison_leaves_out_what_either_did_not_judge(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(unreadable, "a"), items, against=Ruled(knows, "b"), progress=False)
    gaps = {one.name: one for one in result.paired}
    assert gaps["Math"].difference.value == 0 and gaps["Math"].test.equal == 4


# Runs


def test_rows_are_kept_and_a_second_run_asks_nothing(items: list[BestOfKItem], tmp_path: Path) -> None:
    asked = []

    def rule(prompt: str, answer: str) -> float:
        asked.append(answer)
        return knows(prompt, answer)

    both = {"against": Ruled(knows, "other"), "out": tmp_path, "progress": False}
    first = rewardbench_2(Ruled(rule), items, **both)
    count = len(asked)
    again = rewardbench_2(Ruled(rule), items, **both)
    assert len(asked) == count and again.to_dict()["subjects"] == first.to_dict()["subjects"]
    lines = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    assert len(lines) == 39 and lines[1]["values"] == [1, 0, 0, 0]
    assert (tmp_path / "against" / ROWS).exists()


def test_a_sample_keeps_pairs_of_ties_and_is_said(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(knows), items, limit=20, progress=False)
    assert result.rows <= 20 and any("sample" in note for note in result.notes)
    ties = result.subjects[0].ties
    rows = {one.name: one.rows for one in result.subjects[0].subsets}
    assert ties is None or 2 * ties.prompts == rows["Ties"]


def test_missing_subsets_are_said_and_there_is_no_headline_for_them(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(knows), [one for one in items if one.subset in ("Math", "Ties")], progress=False)
    assert list(result.subjects[0].totals) == ["mean of 2 subsets"]
    assert any("the rows lack Factuality, Precise IF, Safety, Focus" in note for note in result.notes)
    one = rewardbench_2(Ruled(knows), [one for one in items if one.subset == "Math"], progress=False)
    assert one.headline == "" and "Math 1.000" in one.lead()


def test_own_subsets_are_beside_the_score(tmp_path: Path) -> None:
    rows = [*best_of_four(2, 1), {**best_of_four(1, 0)[0], "id": "x", "subset": "house"}]
    rows[0]["subset"] = "factuality"
    result = rewardbench_2(Ruled(knows), load_rewardbench_2(written(tmp_path, rows)), progress=False)
    assert scored(result)["house"] == 1 and scored(result)["Factuality"] == 1
    assert any("house" in note for note in result.notes) and result.score == pytest.approx((5 + 1.01) / 6)


def test_misjudged_rows_are_shown(items: list[BestOfKItem]) -> None:
    result = rewardbench_2(Ruled(lambda prompt, answer: -knows(prompt, answer)), items, progress=False)
    assert len(result.examples) == 5 and result.examples[0].fields["right answer"].startswith("right")


# Bad data


@pytest.mark.parametrize(
    "change, told",
    [
        ({"chosen": "right"}, "'chosen' must be a list"),
        ({"rejected": [1, 2]}, "'rejected' must be a list of texts"),
        ({"rejected": []}, "'rejected' is missing or empty"),
        ({"num_correct": 2}, "'num_correct' is 2, but the lists hold 1"),
        ({"total_completions": 5}, "'total_completions' is 5, but the lists hold 4"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        ({"subset": "Ties"}, "id like ref:3"),
        ({"subset": "ties", "id": "tied:4"}, "at least 2 right"),
    ],
)
def test_malformed_rows_are_reported_together(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    rows = best_of_four(2, 1)
    rows[1] |= change
    path = written(tmp_path, rows)
    with pytest.raises(GuerdonError) as error:
        load_rewardbench_2(path)
    assert told in str(error.value) and "rows.jsonl:2" in str(error.value)
    if not isinstance(change.get("prompt", ""), list):
        assert len(load_rewardbench_2(path, skip_bad_rows=True)) == len(rows) - 1


def test_a_prompt_is_never_read_for_turns_and_odd_extra_columns_do_not_matter(tmp_path: Path) -> None:
    rows = best_of_four(2, 0)
    rows[0] |= {"prompt": "Human: hello\n\nAssistant: hi", "models": "one", "additional_metadata": {"a": 1}}
    rows[1]["additional_metadata"] = None
    found = load_rewardbench_2(written(tmp_path, rows))
    assert found[0].prompt == [{"role": "user", "content": "Human: hello\n\nAssistant: hi"}]


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    rows = [{"subsets" if key == "subset" else key: value for key, value in row.items()} for row in best_of_four(1, 0)]
    with pytest.raises(GuerdonError, match="no column 'subset'; did you mean 'subsets'"):
        load_rewardbench_2(written(tmp_path, rows))


def test_two_rows_of_one_id(tmp_path: Path) -> None:
    row = best_of_four(1, 0)[0]
    found = load_rewardbench_2(written(tmp_path, [row, row]))
    with pytest.raises(GuerdonError, match="two rows have the id 'Factuality 0'"):
        rewardbench_2(Ruled(knows), found, progress=False)


def test_without_the_hub_the_error_says_what_data_takes() -> None:
    with pytest.raises(GuerdonError) as error:
        load_rewardbench_2()
    assert "--data" in str(error.value) and "num_correct" in str(error.value) and "chosen" in str(error.value)
