"""Preference pairs: every layout in use is read, and what cannot be used is named by file and row."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from guerdon.core.dialogues import USES, embedded_image_pairs, embedded_pairs, quality
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, as_messages, load_pairs, split_by_prompt, text_of

USER = {"role": "user", "content": "Two plus two?"}
FOUR = {"role": "assistant", "content": "Four."}
FIVE = {"role": "assistant", "content": "Five."}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def only(path, **options):
    pairs = load_pairs(path, **options)
    assert len(pairs) == 1
    return pairs[0]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Two plus two?", "chosen": "Four.", "rejected": "Five."},
        {"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]},
        {"chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        {"prompt": "Two plus two?", "chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        {
            "chosen": "\n\nHuman: Two plus two?\n\nAssistant: Four.",
            "rejected": "\n\nHuman: Two plus two?\n\nAssistant: Five.",
        },
        {
            "conversations_a": [{"from": "human", "value": "Two plus two?"}, {"from": "bot", "value": "Four."}],
            "conversations_b": [{"from": "human", "value": "Two plus two?"}, {"from": "bot", "value": "Five."}],
        },
        {"prompt": "Two plus two?", "response_a": "Five.", "response_b": "Four.", "p_b": 0.9},
    ],
    ids=["text", "messages", "implicit prompt", "prompt repeated", "hh-rlhf", "ixc", "soft"],
)
def test_every_layout_gives_the_same_comparison(tmp_path, row):
    pair = only(written(tmp_path / "pairs.jsonl", [row]))
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], [FOUR], [FIVE])
    assert pair.where.endswith("pairs.jsonl:1")


def test_strength_of_preference_is_kept(tmp_path):
    soft = {"prompt": "p", "response_a": "a", "response_b": "b", "p_b": 0.25}
    assert only(written(tmp_path / "soft.jsonl", [soft])).smoothing == 0.25
    rated = {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2, "label_smoothing": 0.1, "source": "x"}
    pair = only(written(tmp_path / "rated.jsonl", [rated]))
    assert (pair.margin, pair.smoothing, pair.row) == (2.0, 0.1, {"source": "x"})
    assert pair.swapped().margin == -2.0 and pair.swapped().chosen == pair.rejected
    (known,) = embedded_pairs(1, 0)
    turned = known.swapped()
    assert turned.row["truth"] == -1 and turned.row["quality_chosen"] == known.row["quality_rejected"]
    assert turned.swapped() == known
    assert only(written(tmp_path / "again.jsonl", [pair.to_row()])) == Pair(
        pair.prompt, pair.chosen, pair.rejected, margin=2.0, smoothing=0.1, row={"source": "x"},
        where=f"{tmp_path / 'again.jsonl'}:1",
    )  # fmt: skip


def test_rated_answers_become_pairs_of_right_and_wrong(tmp_path):
    rows = [
        {"prompt": "p", "completion": text, "label": label}
        for text, label in [("a", True), ("b", False), ("c", False), ("d", True), ("e", True)]
    ]
    path = written(tmp_path / "rated.jsonl", [*rows, {"prompt": "q", "completion": "x", "label": True}])
    pairs = load_pairs(path, per_prompt=5)
    assert [(text_of(pair.chosen), text_of(pair.rejected)) for pair in pairs] == [("a", "b"), ("d", "c")]
    assert len(load_pairs(path)) == 1
    with pytest.raises(GuerdonError, match="no prompt has both a right and a wrong answer"):
        load_pairs(written(tmp_path / "right.jsonl", rows[:1]))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", "chosen": " ", "rejected": "b"}, "'chosen' is missing or empty"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "chosen and rejected are equal"),
        ({"prompt": "p", "chosen": [{"role": "assistant", "content": ""}], "rejected": [FIVE]}, "empty answer"),
        ({"prompt": "p", "chosen": [FOUR, USER], "rejected": [FIVE]}, "ends with the user's turn"),
        ({"prompt": [USER, FOUR], "chosen": [FOUR], "rejected": [FIVE]}, "are 'prompt' and 'chosen' swapped"),
        ({"prompt": "p", "chosen": [{"role": "wizard", "content": "a"}], "rejected": [FIVE]}, "role 'wizard'"),
        ({"prompt": "p", "chosen": 3, "rejected": 4}, "is int, neither text nor messages"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "much"}, "'margin' must be a number"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "label_smoothing": 1.5}, r"must lie in \[0, 1\]"),
        ({"prompt": "p", "response_a": "a", "response_b": "b", "p_b": 2.0}, "'p_b' must be a probability"),
        ({"prompt": "p", "completion": "a", "label": "yes"}, "'label' must be true or false"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "image": "no.png"}, "no image 'no.png'"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "image": "../x.png"}, "outside the folder"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, said):
    path = written(tmp_path / "bad.jsonl", [row])
    with pytest.raises(GuerdonError, match=said) as caught:
        load_pairs(path)
    assert f"{path}:1" in str(caught.value)


def test_bad_rows_can_be_set_aside(tmp_path):
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(json.dumps(good).encode() + b"\n\xff\n" + json.dumps(good | {"chosen": "b"}).encode() + b"\n")
    with pytest.raises(GuerdonError, match=r"2 bad rows.*:2: not UTF-8.*:3: chosen and rejected are equal"):
        load_pairs(path)
    assert len(load_pairs(path, skip_bad_rows=True, out=tmp_path)) == 1
    assert len((tmp_path / "bad_rows.jsonl").read_text().splitlines()) == 2


def test_missing_and_swapped_columns(tmp_path):
    with pytest.raises(GuerdonError, match="no column 'chosen'; did you mean 'choosen'"):
        load_pairs(written(tmp_path / "typo.jsonl", [{"choosen": "a", "rejected": "b"}]))
    rows = [{"chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": high} for high in (5, 4, 0)]
    with pytest.raises(GuerdonError, match="2 of 3 rows; 'chosen' and 'rejected' look swapped"):
        load_pairs(written(tmp_path / "swapped.jsonl", rows))
    assert len(load_pairs(written(tmp_path / "noisy.jsonl", rows[1:]))) == 2
    renamed = written(tmp_path / "renamed.jsonl", [{"question": "p", "good": "a", "bad": "b"}])
    pair = only(renamed, columns={"prompt": "question", "chosen": "good", "rejected": "bad"})
    assert (text_of(pair.prompt), text_of(pair.chosen)) == ("p", "a")


def test_images_are_read_from_beside_the_data(tmp_path):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    path = written(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b", "images": ["red.png"]}])
    assert only(path).images[0].getpixel((0, 0)) == (255, 0, 0)
    (tmp_path / "red.png").write_bytes((tmp_path / "red.png").read_bytes()[:40])
    with pytest.raises(GuerdonError, match="pairs.jsonl:1"):
        load_pairs(path)


def test_parquet_with_image_bytes(tmp_path):
    from datasets import Dataset

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (0, 255, 0)).save(buffer, "PNG")
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "images": [{"bytes": buffer.getvalue(), "path": None}]}
    Dataset.from_list([row]).to_parquet(tmp_path / "pairs.parquet")
    pair = only(tmp_path / "pairs.parquet")
    assert pair.images[0].getpixel((0, 0)) == (0, 255, 0)


def test_turns_of_a_dialogue():
    text = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nTwo lines.\n\nHuman: Bye\n\nAssistant: Bye."
    assert [message["role"] for message in as_messages(text)] == ["user", "assistant"] * 2
    assert as_messages(text)[1]["content"] == "Hello.\n\nTwo lines."


def test_embedded_pairs_are_repeatable_and_know_the_truth():
    pairs = embedded_pairs(200, 3, noise=0.3)
    assert pairs == embedded_pairs(200, 3, noise=0.3) != embedded_pairs(200, 4, noise=0.3)
    wrong = sum(pair.row["truth"] == -1 for pair in pairs) / len(pairs)
    assert 0.2 < wrong < 0.4
    for pair in pairs:
        values = [quality(pair.chosen, pair.row["thing"]), quality(pair.rejected, pair.row["thing"])]
        assert [pair.row["quality_chosen"], pair.row["quality_rejected"]] == values
        assert (values[0] > values[1]) == (pair.row["truth"] == 1)
    assert all(pair.row["truth"] == 1 for pair in embedded_pairs(50, 3))
    held = tuple(USES)[:3]
    assert {pair.row["thing"] for pair in embedded_pairs(50, 3, things=held)} <= set(held)
    with pytest.raises(GuerdonError, match="unknown thing 'a sword'"):
        embedded_pairs(1, 0, things=("a sword",))


def test_a_length_biased_labeller_prefers_longer_answers():
    def longer(bias):
        pairs = embedded_pairs(400, 5, length_bias=bias)
        return sum(len(text_of(pair.chosen)) > len(text_of(pair.rejected)) for pair in pairs) / len(pairs)

    assert longer(3.0) > longer(0.0) + 0.2


def test_embedded_image_pairs_show_what_the_chosen_answer_says():
    for pair in embedded_image_pairs(8, 0):
        assert pair.row["subject"] in text_of(pair.chosen) and pair.row["subject"] not in text_of(pair.rejected)
        assert pair.images[0].size == (32, 32)


def test_a_split_keeps_prompts_whole() -> None:
    pairs = [*embedded_pairs(200, 0), *embedded_image_pairs(20, 0), Pair([], [FOUR], [FIVE]), Pair([], [FOUR], [FIVE])]
    train, test = split_by_prompt(pairs, 0.2, seed=3)
    assert len(train) + len(test) == len(pairs) and 0 < len(test) < len(train)

    def keys(some: list[Pair]) -> set[str]:
        return {text_of(pair.prompt) + str([image.tobytes() for image in pair.images]) for pair in some if pair.prompt}

    assert not keys(train) & keys(test)
    assert split_by_prompt(pairs, 0.2, seed=3)[1] == test
    assert len(split_by_prompt(pairs[:2] + pairs[-1:], 0.01)[1]) == 1, "at least one prompt is held out"
    with pytest.raises(GuerdonError, match="leaves no prompt of 1 to train on"):
        split_by_prompt([pairs[0]], 0.2)
