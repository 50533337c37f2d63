from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.segments import (
    SEGMENTERS,
    RegexSegmenter,
    Span,
    TokenSegmenter,
    segmenter,
    sentences,
    step_lines,
    sub_sentences,
    token_ends,
    token_offsets,
)
from guerdon.models.scalar.tiny import tiny_tokenizer

SOLUTIONS = Path(__file__).resolve().parents[2] / "shared/data/gsm8k/model_solutions.jsonl.gz"
TEXT = "First there are 3.5 cakes, sold by Dr. Bell at 2 p.m. to J. Doe. That is all!\nOr is it? Yes… it is."


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer([TEXT, "Naïve café 😀 seven"], vocab=400)


def parts(text: str, cut) -> list[str]:
    return [span.of(text) for span in cut(text)]


def test_sentences_end_at_stops_and_lines_and_not_in_numbers_or_behind_abbreviations():
    assert parts(TEXT, sentences) == [
        "First there are 3.5 cakes, sold by Dr. Bell at 2 p.m. to J. Doe.", "That is all!", "Or is it?", "Yes… it is.",
    ]  # fmt: skip
    assert parts('He said "Go." Then he went.', sentences) == ['He said "Go."', "Then he went."]
    assert parts("x = 4.\n\ny = 5", sentences) == ["x = 4.", "y = 5"]
    assert sentences("") == sentences(" \n ") == []


@pytest.mark.parametrize(
    ("words", "starts"),
    [
        ("a b c d e, f g h i j k", [0, 5]),
        ("a b c d e, f g h i j", [0]),
        ("a b, c d e f g h", [0]),
        ("a b c d e, f g, h i j k l m", [0, 7]),
    ],
)
def test_sub_sentences_follow_the_published_rule(words, starts):
    found = sub_sentences(words)
    assert [len(words[: span.start].split()) for span in found] == starts
    assert " ".join(span.of(words) for span in found) == words


def test_steps_are_lines_and_named_or_written_separators_cut_elsewhere():
    assert parts("one\n\ntwo\nthree ", step_lines) == ["one", "two", "three"]
    assert parts("one\n\ntwo\nthree", segmenter("paragraph")) == ["one", "two\nthree"]
    assert parts("Step 1: a\nStep 2: b", segmenter("numbered_step")) == ["Step 1: a", "Step 2: b"]
    assert parts("a;b; c", segmenter("regex:;")) == ["a", "b", "c"]
    assert segmenter(sentences) is sentences
    with pytest.raises(GuerdonError, match="did you mean 'sentence'"):
        segmenter("sentense")
    with pytest.raises(GuerdonError, match="is none"):
        RegexSegmenter("(")
    with pytest.raises(GuerdonError, match="everywhere"):
        RegexSegmenter("x*")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab ,.!?;\n\t é😀D1", max_size=60), st.sampled_from(sorted(SEGMENTERS)))
def test_spans_are_in_order_and_leave_out_nothing_but_white_space(text, name):
    at = 0
    for span in SEGMENTERS[name](text):
        assert at <= span.start < span.end <= len(text)
        if name != "step" and name != "paragraph":
            assert not text[at : span.start].strip()
        assert not span.of(text)[0].isspace() or name == "whole"
        at = span.end
    assert not text[at:].strip()


def test_tokens_are_segments_whose_characters_are_known(tokenizer):
    text = "Naïve café 😀 seven"
    found = parts(text, TokenSegmenter(tokenizer))
    assert "".join(found) == text.replace(" ", "") and "😀" in found
    with pytest.raises(GuerdonError, match="fast tokenizer"):
        TokenSegmenter(object())


def test_offsets_of_the_own_tokens_and_of_tokens_that_nobody_would_write(tokenizer):
    text = "That is all! Or is it? 😀"
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    read, offsets = token_offsets(tokenizer, [*own, tokenizer.eos_token_id], text)
    assert read == text and len(offsets) == len(own) + 1
    assert [text[s.start : s.end] for s in offsets[:4]] == [tokenizer.decode([one]) for one in own[:4]]
    assert offsets[-1] == Span(len(text), len(text))
    # One token a byte: the same text, which the tokenizer would have written shorter.
    bytewise = [one for char in text for one in _bytes(tokenizer, char)]
    assert len(bytewise) > len(own) and tokenizer.decode(bytewise) == text
    _, slow = token_offsets(tokenizer, bytewise, text)
    assert len(slow) == len(bytewise) and slow[-1].end == len(text)
    for span in sentences(text):
        for ids, where in ((own, offsets), (bytewise, slow)):
            end = token_ends([span], text, where)[0]
            if span.end < len(text):
                assert tokenizer.decode(ids[: end + 1]).rstrip() == text[: span.end]


def test_the_scored_text_may_be_a_part_of_the_tokens_and_must_be_in_them(tokenizer):
    ids = tokenizer("That is all! Yes", add_special_tokens=False)["input_ids"]
    text, offsets = token_offsets(tokenizer, ids, "Yes")
    assert text == "Yes" and max(s.end for s in offsets) == 3 and min(s.start for s in offsets) < 0
    with pytest.raises(GuerdonError, match="not in the tokens"):
        token_offsets(tokenizer, ids, "No")


def test_a_span_ends_on_the_first_token_that_reaches_it_and_the_last_one_on_the_end():
    offsets = [Span(0, 2), Span(2, 5), Span(5, 6), Span(6, 6)]
    text = "ab cd "
    assert token_ends([Span(0, 2), Span(0, 1), Span(1, 3), Span(3, 5)], text, offsets) == [0, 0, 1, 3]
    assert token_ends([], "", []) == []
    with pytest.raises(GuerdonError, match="without tokens"):
        token_ends([Span(0, 1)], "a", [])
    with pytest.raises(GuerdonError, match="does not lie"):
        token_ends([Span(0, 9)], "a", offsets)


def test_a_hundred_thousand_characters_are_cut_in_no_time():
    for text in ("a. " * 33_000, "a" * 100_000, "." * 100_000, "a, " * 33_000, " " * 100_000):
        for name in SEGMENTERS:
            segmenter(name)(text)


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="the shared GSM8K solutions are not here")
def test_real_solutions_are_cut_into_their_lines():
    with gzip.open(SOLUTIONS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(200))]
    key = next(name for name in ("solution", "response", "completion") if name in rows[0])
    for row in rows:
        found = parts(row[key], step_lines)
        assert found == [line.strip() for line in row[key].splitlines() if line.strip()]


def _bytes(tokenizer, char: str) -> list[int]:
    table = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(char)
    return [tokenizer.convert_tokens_to_ids(piece) for word, _ in table for piece in word]
