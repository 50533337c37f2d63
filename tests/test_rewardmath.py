"""RewardMATH on scores, ratings, comparisons and published files: ranks, what is not read, places, best-of-n."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.benchmarks.one_to_many_items import OneToManyItems, load_one_to_many
from guerdon.benchmarks.rewardmath import rewardmath, rewardmath_published
from guerdon.benchmarks.rewardmath_scores import read_published_scores
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import text_of
from guerdon.rewards.outcomes import Outcomes
from guerdon.rewards.subject import RewardSubject

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "rewardmath"


class Scoring:
    """A score that a function of the answer gives; "?" in it cannot be read."""

    def __init__(self, of: Any, *, mode: str = "score", name: str = "made") -> None:
        self.of, self.name, self.identity, self.modes = of, name, f"{name}@1#0", frozenset({mode})
        self.asked = 0

    def score(self, conversations: Any, *, columns: Any = None, progress: Any = None) -> Outcomes:
        self.asked += len(conversations)
        texts = [text_of(one[-1:]) for one in conversations]
        problems = {row: "unparsable: a question mark" for row, text in enumerate(texts) if "?" in text}
        return Outcomes(np.array([float(self.of(text)) for text in texts]), problems)


class Comparing(Scoring):
    """Names the answer with the larger score, and the first place of two equal ones."""

    def __init__(self, of: Any, **options: Any) -> None:
        super().__init__(of, mode="rank", **options)

    def rank(self, prompts: Any, answers: Any, *, columns: Any = None, progress: Any = None) -> Outcomes:
        self.asked += len(prompts)
        values = [float(np.argmax([self.of(answer) for answer in row])) for row in answers]
        problems = {row: "unparsable: ?" for row, shown in enumerate(answers) if any("?" in one for one in shown)}
        return Outcomes(np.array(values), problems)


@pytest.fixture
def items(tmp_path: Path) -> OneToManyItems:
    """Problems of which the right solution is the number of the problem, the wrong ones 1 to 3 more."""
    rows = [
        {"problem": f"what is {n}?", "eval_solution": ["So", str(n + more)], "problem_id": n, "answer": str(n),
         "solution_type": "rejected" if more else "chosen", "subject": "odd" if n % 2 else "even"}
        for n in range(6) for more in range(4)
    ]  # fmt: skip
    path = tmp_path / "made.json"
    path.write_text(json.dumps(rows))
    return load_one_to_many(path)


def last(text: str) -> float:
    return float(text.split()[-1])


def test_a_score_that_is_always_right(items: OneToManyItems, tmp_path: Path) -> None:
    subject = Scoring(lambda text: -last(text))
    result = rewardmath(subject, items, out=tmp_path / "run", progress=False)
    assert result.score == 1 and result.graded.score == 1 and result.ranked[0].ranks.mrr == 1
    assert {one.name: one.score.value for one in result.graded.subjects[0].subsets} == {"even": 1.0, "odd": 1.0}
    assert {one.name: one.chance for one in result.graded.subjects[0].subsets} == {"even": 0.25, "odd": 0.25}
    assert subject.asked == 24
    rewardmath(subject, items, out=tmp_path / "run", progress=False)
    assert subject.asked == 24  # rows are kept
    assert json.loads(json.dumps(result.to_dict()))["score"] == 1
    titles = [part.title for part in result.sheet().parts]
    assert titles[:2] == ["One against many", "Rules that read nothing"] and "100.0%" in result.lead()
    assert "first in every problem" in result.sheet().notes[-1]


def test_ties_and_two_subjects(items: OneToManyItems) -> None:
    coarse = Scoring(lambda text: -(last(text) // 2), name="coarse")
    result = rewardmath(coarse, items, against=Scoring(lambda text: -last(text), name="fine"), progress=False)
    ranks = result.ranked[0].ranks
    assert (ranks.acc, ranks.acc_tie, ranks.acc_by_lot) == (0.5, 1.0, 0.75) and ranks.tie_rate == 0.5
    (total,) = (one for one in result.graded.paired if one.name == "RewardMATH")
    assert total.difference.value == -0.5 and total.test.worse == 3
    assert "worse than fine" in result.lead()
    assert any("same highest score" in note for note in result.sheet().notes)


def test_a_reply_that_cannot_be_read_is_counted_and_the_published_rule_stands_beside(items: OneToManyItems) -> None:
    broken = [*items.items]
    texts = list(broken[0].answers)
    texts[1] += "?"
    broken[0] = type(broken[0])(**{**vars(broken[0]), "answers": tuple(texts)})
    judge = Scoring(lambda text: 5 - last(text.strip("?")) % 4, mode="rate")
    result = rewardmath(judge, OneToManyItems(broken, "x"), progress=False)
    first = result.ranked[0]
    assert first.ranks.measured.tolist() == [False] + [True] * 5
    assert first.beside["published rule"]["measured"] == 6
    assert result.graded.subjects[0].problems == {"unparsable": 1}
    rows = result.sheet().tables()[0].rows
    assert rows[0][-1] == 1 and rows[1][0] == "made, published rule" and rows[1][-1] == 0
    assert result.score == np.nanmean(first.ranks.first)


def test_comparisons_alternate_their_places(items: OneToManyItems) -> None:
    right = Comparing(lambda text: -last(text))
    result = rewardmath(right, items, both_orders=True, progress=False)
    assert result.score == 1 and right.asked == 2 * 18
    position = result.ranked[0].position
    assert position is not None and position.counts == {"A": 9, "B": 9} and position.gap.value == 0
    assert result.ranked[0].swapped == {"consistent": 1.0, "right": 1.0, "measured": 1.0}
    first_place = rewardmath(Comparing(lambda text: 0.0, name="A"), items, both_orders=True, progress=False).ranked[0]
    assert first_place.position is not None and first_place.position.gap.value == 1
    assert first_place.swapped == {"consistent": 0.0, "right": 0.0, "measured": 1.0}
    assert first_place.ranks.mean_pairwise == pytest.approx(0.5) and first_place.ranks.acc == 0
    table = next(one for one in result.sheet().tables() if one.title == "Places")
    assert [row[1] for row in table.rows] == ["A", "B", "first less second", "same answer in both orders"]


def test_an_unreadable_comparison_is_lost_by_the_published_rule(items: OneToManyItems) -> None:
    judge = Comparing(lambda text: -last(text.strip("?")))
    spoilt = [*items.items]
    texts = list(spoilt[2].answers)
    texts[3] += "?"
    spoilt[2] = type(spoilt[2])(**{**vars(spoilt[2]), "answers": tuple(texts)})
    found = rewardmath(judge, OneToManyItems(spoilt, "x"), progress=False).ranked[0]
    assert found.ranks.acc == 1 and int(found.ranks.measured.sum()) == 5
    assert found.beside["published rule"]["acc"] == pytest.approx(5 / 6)
    assert found.beside["published rule"]["mrr"] == pytest.approx((5 + 1 / 2) / 6)


def test_a_verifier_is_told_the_solution(items: OneToManyItems) -> None:
    def verifier(prompts: Any, completions: list[str], solution: list[str], **columns: Any) -> list[float]:
        return [float(text.split()[-1] == wanted) for text, wanted in zip(completions, solution)]

    assert rewardmath(RewardSubject(verifier), items, progress=False).score == 1


def test_a_sample_of_the_problems(items: OneToManyItems) -> None:
    result = rewardmath(Scoring(lambda text: -last(text)), items, limit=4, progress=False)
    assert len(result.ranked[0].ranks) == 4 and "A sample of 4 of 6 problems." in result.sheet().notes
    with pytest.raises(GuerdonError):
        rewardmath(Scoring(last), items, limit=0, progress=False)


# ---- sampled solutions


def sampled_rows(tmp_path: Path) -> Path:
    """Four samples a problem: two say 12 (wrong but popular), one the right 7, one 9; the last problem all right."""
    answers = ["the answer is 12", "the answer is 7", "the answer is 12.0", "the answer is 9"]
    rows = [
        {"prompt": f"q{n}", "completion": text if n < 4 else "the answer is 7", "label": n == 4 or place == 1,
         "answer": "7", "question_id": n}
        for n in range(5) for place, text in enumerate(answers)
    ]  # fmt: skip
    path = tmp_path / "sampled.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_best_of_n_over_sampled_solutions(tmp_path: Path) -> None:
    items = load_one_to_many(sampled_rows(tmp_path))
    result = rewardmath(Scoring(lambda text: "7" in text, name="knows"), items, progress=False)
    selection = result.selection
    assert selection is not None and selection.problems == 5 and selection.sizes == [1, 2, 4]
    assert selection.curves["knows"] == pytest.approx([0.2, 1, 1])
    assert selection.curves["any right"] == pytest.approx([0.2, 1, 1])
    assert selection.curves["majority"] == pytest.approx([0.2, 0.2, 0.2])  # 12 and 12.0 are one answer
    assert selection.curves["one at random"] == pytest.approx([0.2, 0.6, 0.4])
    assert result.graded.title == "One against many"
    assert "Left out: 1 problems with no wrong solution." in result.sheet().notes
    assert "Best of n" in [part.title for part in result.sheet().parts]
    tied = rewardmath(Scoring(lambda text: 0, name="same"), items, progress=False).selection
    assert tied is not None and tied.curves["same"] == tied.curves["majority"]


# ---- published files


def published(name: str) -> Any:
    path = FOLDER / f"{name}_reward.json.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return read_published_scores(path)


def test_two_published_files() -> None:
    result = rewardmath_published(published("ArmoRM"), against=published("Math_Shepherd"))
    assert round(100 * result.score, 2) == 20.50 and round(100 * result.ranked[1].ranks.acc, 2) == 17.18
    (total,) = (one for one in result.graded.paired if one.name == "RewardMATH")
    assert total.difference.value == pytest.approx((99 - 83) / 483)
    assert result.ranked[1].reducers["last"]["acc"] == pytest.approx(0.1822, abs=5e-5)
    assert result.graded.rows == 483 and result.graded.answers == 4830
    json.dumps(result.to_dict())
    assert "20.5%" in result.lead() and "4.2%" not in result.lead()
    assert "Step scores of Math_Shepherd reduced" in [table.title for table in result.sheet().tables()]


def test_a_published_judge_of_pairs() -> None:
    result = rewardmath_published(published("gpt4_pairwise"))
    one = result.ranked[0]
    assert round(100 * result.score, 2) == 29.81 and round(100 * one.ranks.mrr, 2) == 51.92
    assert round(100 * one.beside["unparsable left out"]["acc"], 2) == 32.00
    assert one.position is not None and round(100 * one.position.accuracy["A"].value, 1) == 79.2
    assert result.shortcuts is None and "Places" in [table.title for table in result.sheet().tables()]


def test_step_counts_of_a_published_file_are_audited() -> None:
    result = rewardmath_published(published("Math_Shepherd"), reducer="last")
    assert round(100 * result.score, 2) == 18.22 and result.shortcuts is not None
    assert not next(one for one in result.shortcuts.rules if one.feature == "n_steps").beats_chance
    assert result.shortcuts.residual is not None


def test_a_problem_that_stands_twice_is_said(tmp_path: Path) -> None:
    path = tmp_path / "twice_reward.json"
    path.write_text(json.dumps([{"problem": "p", "score": [2, 1]}] * 2 + [{"problem": "q", "score": [0, 1]}]))
    found = read_published_scores(path)
    assert found is not None
    result = rewardmath_published(found)
    assert result.score == 0.5 and "over all rows the accuracy is 66.67%" in result.graded.notes[-1]
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"problem": "r", "score": [2, 1]}]))
    with pytest.raises(GuerdonError, match="no problem in common"):
        rewardmath_published(found, against=read_published_scores(other))
