"""A person's own pairs: accuracy by subset, equal scores half, prompts resampled, length and truth beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from guerdon.benchmarks.own_pairs import own_pairs, pair_questions
from guerdon.core.dialogues import embedded_pairs, quality
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.models.baselines import LengthBaseline
from guerdon.report.sheet_page import render_sheet
from guerdon.rewards.subject import ScalarSubject
from made_benchmarks import Ruled


def turn(text: str, role: str = "assistant") -> list[dict[str, Any]]:
    return [{"role": role, "content": text}]


def pair(row: int, **columns: Any) -> Pair:
    return Pair(turn(f"Ask {row}?", "user"), turn(f"right {row}"), turn(f"wrong {row}"), row=columns)


def test_the_truth_is_found_and_told() -> None:
    pairs = embedded_pairs(60, 0, noise=0.2)

    def true(prompt: str, answer: str) -> float:
        thing = next(one.row["thing"] for one in pairs if one.row["thing"] in prompt)
        return quality(answer, thing)

    result = own_pairs(Ruled(true), pairs, progress=False)
    wrong = sum(one.row["truth"] == -1 for one in pairs)
    assert result.score == pytest.approx(1 - wrong / 60) and wrong > 0
    assert str(result.settings["accuracy against the truth"]).startswith("1.000")
    assert "score and log length" in result.settings and render_sheet(result.sheet())


def test_equal_scores_count_half_and_subsets_weigh_by_their_rows() -> None:
    pairs = [pair(row, subset="a" if row < 3 else "b") for row in range(4)]
    result = own_pairs(
        Ruled(lambda prompt, answer: float(answer.startswith("right")) if "3" in prompt else 0.0), pairs, progress=False
    )
    assert [(one.name, one.score.value) for one in result.subjects[0].subsets] == [("a", 0.5), ("b", 1.0)]
    assert result.score == pytest.approx((3 * 0.5 + 1) / 4)


def test_pairs_without_subsets_are_told_once() -> None:
    pairs = [pair(row) for row in range(4)]
    result = own_pairs(
        Ruled(lambda prompt, answer: 1.0, "a"), pairs, against=Ruled(lambda prompt, answer: 0.0, "b"), progress=False
    )
    scores, paired = result.sheet().tables()[:2]
    assert [row[0] for row in scores.rows] == ["all pairs"] == [row[0] for row in paired.rows]
    assert scores.rows[0][1] == 4
    some = pair_questions([pair(0, subset="x"), pair(1)])
    assert [one.subset for one in some] == ["x", "other"]


def test_two_subjects_and_a_sample() -> None:
    pairs = embedded_pairs(80, 1)
    length = ScalarSubject(LengthBaseline())
    result = own_pairs(length, pairs, against=Ruled(lambda prompt, answer: 0.0), limit=50, progress=False)
    assert result.rows <= 50 and any("sample" in note for note in result.notes)
    assert result.paired[-1].name == "all pairs"
    assert result.paired[-1].difference.value == pytest.approx(result.score - 0.5)


def test_ids_columns_and_pictures_go_with_the_question() -> None:
    named = pair_questions([pair(0, id="x", solution="4"), pair(1, id="y", solution="5")])
    assert [one.id for one in named] == ["x", "y"] and named[0].columns == {"solution": "4"}
    assert [one.id for one in pair_questions([pair(0, id="x"), pair(1, id="x")])] == ["0", "1"]
    made = [Image.new("RGB", (4, 4), colour) for colour in ("red", "red", "blue")]
    seen = [pair_questions([Pair(turn("?", "user"), turn("a"), turn("b"), images=(one,))])[0].key() for one in made]
    assert seen[0] == seen[1] != seen[2]


def test_what_is_not_scored_is_counted() -> None:
    result = own_pairs(
        Ruled(lambda prompt, answer: "failed: away" if "1" in prompt else float(answer.startswith("right"))),
        [pair(row) for row in range(3)],
        progress=False,
    )
    assert result.score == 1 and result.subjects[0].problems == {"failed": 2}
    silent = own_pairs(Ruled(lambda prompt, answer: "failed: away"), [pair(0)], progress=False)
    assert np.isnan(silent.score)


def test_no_pairs() -> None:
    with pytest.raises(GuerdonError, match="no pairs"):
        own_pairs(Ruled(lambda prompt, answer: 0.0), [], data="x.jsonl")
