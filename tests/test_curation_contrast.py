"""Contrast pairs: mined ones, published files, the text that is scored, and the floor of word overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.core.dialogues import embedded_image_pairs, embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import text_of
from guerdon.curation.contrast import ContrastInstructions, OverlapBaseline, mine_contrast, score_contrasts
from guerdon.metrics.consistency import consistency
from guerdon.models.embedding import HashingEmbedder

ANGLES = {"a": 0.0, "b": 30.0, "c": 60.0, "d": 200.0}


def on_a_circle(texts: list[str]) -> np.ndarray:
    """Cosines of neighbouring letters: a b and b c 0.866, a c 0.5, d far away; rows of length 3."""
    angles = np.deg2rad([ANGLES[text.split()[0]] for text in texts])
    return 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_pairs_in_the_band_come_once() -> None:
    rows = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]
    found = mine_contrast(rows, on_a_circle)
    assert [(text_of(one.first), text_of(one.second)) for one in found] == [("a", "b"), ("b", "c")]
    assert found.contrasts[0].similarity == pytest.approx(np.cos(np.pi / 6))
    assert found.groups == ["a", "b"] and found.dropped == {}
    turned = mine_contrast(rows[::-1], on_a_circle)
    assert {frozenset((text_of(o.first), text_of(o.second))) for o in turned} == {frozenset("ab"), frozenset("bc")}
    assert len(mine_contrast(rows, on_a_circle, low=0.4, high=0.6)) == 1
    assert not mine_contrast(rows, on_a_circle, low=0.87, high=0.9).contrasts
    assert not mine_contrast([], on_a_circle).contrasts


def test_what_is_left_out_is_counted() -> None:
    rows = [("a x", "same"), ("b x", "same "), ("c x", "3"), ("c x", "again"), (" ", "none"), ("d y", "4")]
    found = mine_contrast(rows, on_a_circle)
    assert found.dropped == {"repeated instruction": 1, "no instruction": 1, "same answer": 1} and len(found) == 1
    # "b x" and "c x" have one word of three in common.
    assert mine_contrast(rows, on_a_circle, lexical=0.34).dropped["too few words in common"] == 2
    assert len(mine_contrast(rows, on_a_circle, lexical=0.33)) == 1
    judged = mine_contrast(rows, on_a_circle, different=lambda one, other: "b" in one and "a" in other)
    assert judged.dropped["same meaning"] == 1
    assert mine_contrast(embedded_image_pairs(3, 0), on_a_circle).dropped == {"shows pictures": 3}


def test_a_limit_draws_by_seed() -> None:
    pairs = embedded_pairs(60, 0)
    everything, few = (mine_contrast(pairs, HashingEmbedder(), limit=limit) for limit in (None, 10))
    assert len(few) == 10 < len(everything)
    keys = {(text_of(one.first), text_of(one.second)) for one in everything}
    assert len(keys) == len(everything) and {(text_of(o.first), text_of(o.second)) for o in few} <= keys
    assert few.rows() == mine_contrast(pairs, HashingEmbedder(), limit=10).rows()
    assert few.rows() != mine_contrast(pairs, HashingEmbedder(), limit=10, seed=1).rows()


def test_blocks_find_what_one_table_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = embedded_pairs(60, 0)
    whole = mine_contrast(pairs, HashingEmbedder())
    monkeypatch.setattr("guerdon.curation.contrast._BLOCK", 7)
    assert [row["query"] for row in mine_contrast(pairs, HashingEmbedder()).rows()] == [
        row["query"] for row in whole.rows()
    ]


@pytest.mark.parametrize(
    "options, says", [({"low": 0.9, "high": 0.8}, "low <= high"), ({"lexical": 2.0}, "share of words")]
)
def test_bands_that_hold_nothing(options: dict[str, Any], says: str) -> None:
    with pytest.raises(GuerdonError, match=says):
        mine_contrast([("a", "1")], on_a_circle, **options)


def published(query: str, retrieval: str, j: tuple[str, str], k: tuple[str, str]) -> dict[str, str]:
    return {
        "query": query, "retrieval": retrieval, "query_response_j": j[0], "retrieval_response_j": j[1],
        "query_response_k": k[0], "retrieval_response_k": k[1],
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        published("q1", "q2", ("good 1", "good 2"), ("bad", "bad")),
        published("q2", "q1", ("good 2", "good 1"), ("bad 2", "bad 1")),
        published("q3", "q4", ("equal", "equal"), ("bad 3", "bad 4")),
        published("q5", "q5", ("x", "y"), ("x", "y")),
    ]
    path = tmp_path / "wmt_contrast.json"
    path.write_text(json.dumps(rows))
    return path


def test_published_files(file: Path) -> None:
    preferred = ContrastInstructions.load(file, "j")
    assert preferred.dropped == {"duplicate": 1, "same answer": 1, "same instruction": 1} and len(preferred) == 1
    assert preferred.answer_field == "j" and preferred.tasks == ["wmt"]
    (one,) = preferred
    assert (text_of(one.first_answer), text_of(one.second_answer)) == ("good 1", "good 2")
    assert one.where == f"{file}:1"
    released = ContrastInstructions.load(file, "k", task="mine")
    assert [text_of(one.first_answer) for one in released] == ["bad 3"] and released.tasks == ["mine"]
    lines = file.with_name("lines.jsonl")
    lines.write_text("\n".join(json.dumps(row) for row in preferred.rows()))
    assert ContrastInstructions.load(lines, "j").rows()[0]["query"] == "q1"


def test_what_a_file_lacks(file: Path, tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="unknown answer field 'i'"):
        ContrastInstructions.load(file, "i")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="there is no file"):
        ContrastInstructions.load(tmp_path / "no.json", "j")
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps([{"query": "q", "retrieval": "p", "query_response_j": "a"}]))
    with pytest.raises(GuerdonError, match="row 1 has no text under the key 'retrieval_response_j'"):
        ContrastInstructions.load(odd, "j")
    odd.write_text("[{")
    with pytest.raises(GuerdonError, match="neither a JSON list nor JSON lines"):
        ContrastInstructions.load(odd, "j")


class Recorder:
    """Scores by a table of texts, and remembers what it was asked."""

    def __init__(self, table: dict[tuple[str, str], float]) -> None:
        self.table, self.asked = table, []

    def score(self, conversations: list[Any], **options: Any) -> list[float]:
        self.asked += conversations
        return [self.table[text_of(one[:-1]), text_of(one[-1:])] for one in conversations]


def test_scores_stand_where_they_belong_and_each_is_asked_once() -> None:
    found = mine_contrast([("a", "1"), ("b", "2"), ("c", "3")], on_a_circle)
    judge = Recorder({(i, r): 10.0 * n + m for n, i in enumerate("abc") for m, r in enumerate("123")})
    scores = score_contrasts(judge, found)
    assert scores.tolist() == [[[0, 1], [10, 11]], [[11, 12], [21, 22]]]
    assert len(judge.asked) == 7  # b with its own answer stands in both pairs


def test_the_published_texts() -> None:
    found = mine_contrast([("a {r}", "1"), ("b", "2")], on_a_circle)
    told = [found.contrasts[0].conversations(name)[0] for name in ("stack", "para", "sum", "wmt")]
    assert told == [
        "Question: a {r}\n\nAnswer: 1",
        "Paraphrase the following sentence: a {r}\n\nAnswer: 1",
        "Summarize the paragraph: a {r}\n\nAnswer: 1",
        "Please translate the sentences to English: a {r}\n\nAnswer: 1",
    ]

    class Length:
        def score(self, texts: list[str], **options: Any) -> list[float]:
            return [float(text.startswith("Question: b") and text.endswith("2")) for text in texts]

    assert score_contrasts(Length(), found, template="stack").tolist() == [[[0, 0], [0, 1]]]
    with pytest.raises(GuerdonError, match="did you mean 'stack'"):
        score_contrasts(Length(), found, template="stak")
    with pytest.raises(GuerdonError, match="no contrast pairs"):
        score_contrasts(Length(), [])


def test_overlap_is_the_floor() -> None:
    rows = [("a red bird", "red bird"), ("b blue bird", "blue bird")]
    found = mine_contrast(rows, on_a_circle)
    scores = score_contrasts(OverlapBaseline(), found)
    assert scores[0].tolist() == [[2 / 3, 1 / 4], [1 / 4, 2 / 3]]
    pairs = mine_contrast(embedded_pairs(200, 1), HashingEmbedder())
    graded = consistency(score_contrasts(OverlapBaseline(), pairs), groups=pairs.groups)
    assert graded.c_res.low > 0.5  # embedded answers name the thing that they are about


@pytest.mark.parametrize("name", ["para", "wmt", "sum"])
def test_the_published_data(name: str) -> None:
    counts = {"para": 200, "wmt": 424, "sum": 31}
    path = Path(__file__).parents[2] / "shared" / "data" / "contrast-instructions" / f"{name}_contrast.json"
    if not path.is_file():
        pytest.skip("the published files are not here")
    found = ContrastInstructions.load(path, "j")
    assert len(found) + found.dropped.get("same answer", 0) + found.dropped.get("same instruction", 0) == counts[name]
