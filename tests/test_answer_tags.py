from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.answer import completion_text, parse_answer
from guerdon.core.errors import GuerdonError
from guerdon.core.scorer import Scorer
from guerdon.rewards.text.answer_tags import PatternFormat, answer_format, answer_present

WELL_FORMED = "<think>keep the coin</think><answer>a raw photo of a coin</answer>"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (WELL_FORMED, "a raw photo of a coin"),
        ("<Think>x</Think>\n <Answer> a coin </Answer>\n", "a coin"),
        ("<answer>draft</answer> no: <answer>a coin</answer>", "a coin"),
        ("<think><answer>in thought</answer></think><answer>a coin</answer> bye", "a coin"),
        ("<answer>a < b and b > c</answer>", "a < b and b > c"),
        ("<answer>a coin</answer><answer>cut off", None),
        ("<answer>a coin", None),
        ("a coin</answer>", None),
        ("<answer>  \n </answer>", None),
        ("<answer>a coin</answer></answer>", None),
        ("a coin", None),
        ("", None),
    ],
)
def test_last_closed_span_is_the_answer(text: str, answer: str | None) -> None:
    assert parse_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "formed"),
    [
        (WELL_FORMED, True),
        ("  " + WELL_FORMED + "\n", True),
        ("keep the coin</think>\n\n<answer>a coin</answer>", True),  # the template opened the think block
        ("<answer>a coin</answer>", False),
        ("hm <think>x</think><answer>a coin</answer>", False),
        ("<think>x</think> so <answer>a coin</answer>", False),
        (WELL_FORMED + " bye", False),
        ("<think>x</think><think>y</think><answer>a coin</answer>", False),
        ("<think>x<answer>a coin</answer></think>", False),
        ("<answer>a coin</answer><think>x</think>", False),
        ("</think><think><answer>a coin</answer>", False),
        ("<think>x</think><answer></answer>", False),
    ],
)
def test_strict_form(text: str, formed: bool) -> None:
    assert (parse_answer(text, require_think=True) is not None) is formed
    assert answer_format(["p"], [text]) == [float(formed)]


def test_rewards_take_strings_and_messages() -> None:
    messages = [{"role": "assistant", "content": WELL_FORMED}]
    blocks = [{"role": "assistant", "content": [{"type": "text", "text": WELL_FORMED}]}]
    completions = [WELL_FORMED, messages, blocks, "<answer>a coin</answer>", "no", []]
    assert answer_format(["p"] * 6, completions) == [1, 1, 1, 0, 0, 0]
    assert answer_present(["p"] * 6, completions) == [1, 1, 1, 1, 0, 0]
    scores = Scorer(answer_format).score(["p"] * 6, completions)
    assert scores.valid.all() and scores.identity.startswith("answer_format@1#")


def test_text_of_a_completion_without_text_is_empty() -> None:
    assert [completion_text(c) for c in ([], {}, {"role": "assistant", "content": None}, None, 3)] == [""] * 5


@given(
    st.text(alphabet=st.characters(blacklist_characters="<>")),
    st.text(alphabet=st.characters(blacklist_characters="<>")),
)
def test_what_is_written_is_read_back(thought: str, answer: str) -> None:
    text = f"<think>{thought}</think><answer>{answer}</answer>"
    assert parse_answer(text, require_think=True) == (answer.strip() or None)
    assert parse_answer(thought + answer) is None


@given(
    st.lists(st.sampled_from(["<answer>", "</answer>", "<think>", "</think>", "a", " ", "<", "\n", "İ"]), max_size=40)
)
def test_garbage_never_raises_and_strict_is_stricter(pieces: list[str]) -> None:
    text = "".join(pieces)
    strict, loose = parse_answer(text, require_think=True), parse_answer(text)
    assert strict is None or strict == loose
    if loose is not None:
        assert loose and "<answer>" not in loose and "</answer>" not in loose


def test_a_long_degenerate_completion_is_parsed() -> None:
    assert parse_answer("<answer>" * 50_000 + " " * 50_000) is None
    assert parse_answer("<" * 100_000 + WELL_FORMED) == "a raw photo of a coin"


def test_a_format_of_ones_own() -> None:
    boxed = PatternFormat(r"\\boxed\{[^{}]+\}\.?\s*$")
    assert boxed(None, ["so \\boxed{4}.\n", "so \\boxed{4}, I think", "4"]) == [1.0, 0.0, 0.0]
    assert boxed.identity() != PatternFormat("a").identity()
    with pytest.raises(GuerdonError, match="is no regular expression"):
        PatternFormat("(")
