"""ReMoDetect's benchmark: its data files, the split by human text, and the table of a subject's scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.benchmarks.remodetect import detect
from guerdon.benchmarks.text_pairs import (
    TextPair,
    equally_long,
    human_key,
    load_text_pairs,
    split_by_human,
    write_pair_files,
)
from guerdon.core.errors import GuerdonError
from guerdon.curation.detection_texts import WRITERS, continued_by, embedded_files, human_texts, polish
from guerdon.metrics.detection import auroc
from guerdon.rewards.outcomes import Outcomes
from guerdon.rewards.subject import RewardSubject


def polished(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [polish(text) for text in completions]


def longer(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


calls: list[str] = []


def counted(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    calls.extend(completions)
    return polished(prompts, completions)


def subject(reward: Any = polished) -> RewardSubject:
    return RewardSubject(reward, form="text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    for name, texts in embedded_files(60, 1, WRITERS[:2]).items():
        (path / f"{name}.raw_data.json").write_text(json.dumps(texts))
    other = human_texts(40, 5)
    texts = {"original": other, "sampled": continued_by(WRITERS[0], other, 5)}
    (path / "second_writer-a.raw_data.json").write_text(json.dumps(texts))
    (path / "second_writer-a.args.json").write_text("{}")
    return path


def test_files_are_read_with_their_names(folder: Path) -> None:
    pairs = load_text_pairs(folder)
    assert {(pair.domain, pair.generator) for pair in pairs} == {
        ("embedded", "writer-a"), ("embedded", "writer-b"), ("second", "writer-a"),
    }  # fmt: skip
    assert len(pairs) == 160 and pairs[0].where.endswith("raw_data.json:1")
    one = folder / "embedded_writer-a.raw_data.json"
    assert load_text_pairs(one) == [pair for pair in pairs if pair.where.startswith(str(one))]
    assert len(load_text_pairs(f"{one},{folder / 'second_writer-a.raw_data.json'}")) == 100
    assert len(load_text_pairs(folder, limit=7)) == 21


def test_no_human_text_is_on_both_sides_of_a_split(folder: Path) -> None:
    train, test = split_by_human(load_text_pairs(folder), 0.3, seed=4)
    assert not {pair.key for pair in train} & {pair.key for pair in test}
    assert len(train) + len(test) == 160 and {pair.generator for pair in test} == {"writer-a", "writer-b"}
    by_file = [pair for pair in train if pair.generator == "writer-a"]
    assert {pair.key for pair in by_file} >= {pair.key for pair in train if pair.generator == "writer-b"}
    with pytest.raises(GuerdonError, match="leaves no human text of 1"):
        split_by_human(train[:1], 0.5)


def test_a_text_cut_shorter_is_the_same_text() -> None:
    long = " ".join(f"word{place}" for place in range(60))
    assert human_key(long) == human_key(long[: len(long) // 2].upper() + "!")
    assert human_key(long) != human_key("Other " + long)
    # A file that cuts its human texts to another length does not leak through the split.
    pairs = [TextPair(long + f" {n}" * 5, "a b") for n in range(3)] + [TextPair("quite another text", "a b")]
    train, test = split_by_human(pairs, 0.5)
    assert {len(train), len(test)} == {1, 3}


def test_rows_lists_and_labels(tmp_path: Path) -> None:
    rows = tmp_path / "mine_model-x.jsonl"
    rows.write_text('{"human": "a b c", "generated": "d e f", "prompt": "why", "domain": "forum"}\n')
    (pair,) = load_text_pairs(rows)
    assert (pair.domain, pair.generator, pair.prompt) == ("forum", "model-x", "why")
    hc3 = tmp_path / "hc3.jsonl"
    hc3.write_text('{"question": "q", "human_answers": ["a b", "c d"], "chatgpt_answers": ["e f"], "id": 1}\n')
    (pair,) = load_text_pairs(hc3, columns={"human": "human_answers", "generated": "chatgpt_answers"})
    assert (pair.human, pair.generated, pair.prompt, pair.domain) == ("a b", "e f", "q", "hc3")
    labels = tmp_path / "labels.jsonl"
    words = ["generated", 1, "human", 0, 0]
    labels.write_text("".join(json.dumps({"text": f"text {n}", "label": word}) + "\n" for n, word in enumerate(words)))
    with pytest.raises(GuerdonError, match="'label' is"):  # of two types
        load_text_pairs(labels)
    labels.write_text("".join(json.dumps({"text": f"text {n}", "label": int(n > 2)}) + "\n" for n in range(5)))
    pairs = load_text_pairs(labels)
    assert {pair.generated for pair in pairs} == {"text 3", "text 4"} and len({pair.human for pair in pairs}) == 2


def test_bad_files_are_one_clear_error(tmp_path: Path) -> None:
    uneven = tmp_path / "a_b.json"
    uneven.write_text('{"original": ["x y"], "sampled": []}')
    with pytest.raises(GuerdonError, match="1 original texts and 0 sampled"):
        load_text_pairs(uneven)
    empty = tmp_path / "c_d.raw_data.json"
    empty.write_text('{"original": ["x y", "x y", 3], "sampled": ["a b", " ", "c d"]}')
    with pytest.raises(GuerdonError, match="2 bad rows") as error:
        load_text_pairs(empty)
    assert "c_d.raw_data.json:2" in str(error.value) and "raw_data.json:3" in str(error.value)
    assert len(load_text_pairs(empty, skip_bad_rows=True)) == 1
    one = tmp_path / "one.jsonl"
    one.write_text('{"text": "a b", "label": 1}\n')
    with pytest.raises(GuerdonError, match="one label only"):
        load_text_pairs(one)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(GuerdonError, match="holds no files"):
        load_text_pairs(tmp_path / "nothing")


def test_written_files_are_read_again(folder: Path, tmp_path: Path) -> None:
    pairs = load_text_pairs(folder)
    assert len(write_pair_files(pairs, tmp_path / "again")) == 3
    again = load_text_pairs(tmp_path / "again")
    assert [(pair.human, pair.generated, pair.generator) for pair in again] == [
        (pair.human, pair.generated, pair.generator) for pair in pairs
    ]


def test_equally_long() -> None:
    pair = equally_long(TextPair("one two  three\nfour", "five six"))
    assert (pair.human, pair.generated) == ("one two", "five six")
    assert equally_long(TextPair("a", "b c d")).generated == "b c"


def test_the_table_is_the_auroc_of_each_file(folder: Path, tmp_path: Path) -> None:
    pairs = load_text_pairs(folder)
    calls.clear()
    found = detect(subject(counted), pairs, tmp_path, same_length=False)
    assert len(calls) == 160 + 60 + 40 == found.texts  # each human text once
    for one in found.files:
        own = [pair for pair in pairs if (pair.domain, pair.generator) == (one.domain, one.generator)]
        expected = auroc([polish(pair.generated) for pair in own], [polish(pair.human) for pair in own])
        assert one.scored.auroc() == pytest.approx(expected) and expected > 0.6
    assert found.auroc.value == pytest.approx(np.mean([one.scored.auroc() for one in found.files]))
    sheet = found.sheet()
    titles = [part.title for part in sheet.parts]
    assert {"By file", "By domain", "By generator", "By length of the human text", "One threshold", "ROC"} <= set(
        titles
    )
    told = json.loads(json.dumps(found.to_dict()))
    assert len(told["files"]) == 3 and len(told["files"][0]["predictions"]["real"]) == 60
    # Asked again, nothing is scored again.
    count = len(calls)
    again = detect(subject(counted), pairs, tmp_path, same_length=False)
    assert len(calls) == count and again.auroc == found.auroc


def test_length_alone_and_a_second_subject(folder: Path) -> None:
    pairs = load_text_pairs(folder)
    found = detect(subject(), pairs, same_length=False, progress=False)
    length = detect(subject(longer), pairs, same_length=False, progress=False)
    assert length.over_length().value == pytest.approx(0.0)
    for one, other in zip(found.files, length.files, strict=True):
        assert one.by_length().scored.auroc() == pytest.approx(other.scored.auroc())
    difference = found.over(length)
    assert difference.value == pytest.approx(found.auroc.value - length.auroc.value) and difference.low > 0
    assert "Against longer" in found.sheet(length).lead
    with pytest.raises(GuerdonError, match="other pairs"):
        found.over(detect(subject(longer), pairs[:80], progress=False))


def test_what_was_trained_on_is_left_out(folder: Path) -> None:
    pairs = load_text_pairs(folder)
    train, test = split_by_human(pairs, 0.4)
    found = detect(subject(), pairs, trained_on=[pair.human for pair in train], progress=False)
    assert found.left_out == len(train) and sum(len(one.pairs) for one in found.files) == len(test)
    with pytest.raises(GuerdonError, match="all human texts were trained on"):
        detect(subject(), pairs, trained_on=[pair.human for pair in pairs], progress=False)


def test_a_text_without_a_score_is_counted_and_nothing_else_lost(folder: Path) -> None:
    pairs = load_text_pairs(folder)
    lost = pairs[0].human

    def gappy(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        return [None if text == lost else polish(text) for text in completions]

    found = detect(subject(gappy), pairs, same_length=False, progress=False)
    assert found.problems == {"does not apply": 1}
    assert sum(np.isnan(one.scored.human).sum() for one in found.files) == 2  # it stands in two files
    with pytest.raises(GuerdonError, match="gave no score to any text"):
        detect(subject(lambda prompts, completions, **columns: [None] * len(completions)), pairs, progress=False)


def test_reading_after_the_prompt(tmp_path: Path) -> None:
    pairs = [
        TextPair(f"human text {n}", f"made text {n}", "d", "g", prompt=f"why {n}", where=f"f:{n}") for n in range(4)
    ]
    seen: list[Any] = []

    class Recorder:
        name, identity, modes = "recorder", "recorder@1#0", frozenset({"score"})

        def score(self, conversations: Any, *, columns: Any = None, progress: Any = None) -> Outcomes:
            seen.extend(conversations)
            return Outcomes(np.arange(float(len(conversations))))

    detect(Recorder(), pairs, reads="answer", progress=False)
    assert [turn["role"] for turn in seen[0]] == ["user", "assistant"] and seen[0][0]["content"] == "why 0"
    seen.clear()
    detect(Recorder(), pairs, cut=lambda text: text.split()[0], progress=False)
    assert [[turn["content"] for turn in talk] for talk in seen[:2]] == [["human"], ["made"]]
    with pytest.raises(GuerdonError, match="f:1: there is no prompt"):
        detect(Recorder(), [pairs[0], TextPair("a b", "c d", where="f:1")], reads="answer", progress=False)
