"""Mixed texts: sentences that join again, half of them reworded in place, and rewriters that fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.curation.mixture import ChatRewriter, Mixed, MixtureAugment, normalised, sentences, taken_from

HUMAN = "One is here. Two is there! Is three? Four ends.\n\nFive begins a paragraph."
GENERATED = "Alpha comes. Beta follows. Gamma goes on. Delta ends."


def mixed(augment: MixtureAugment, human: str = HUMAN, generated: str = GENERATED) -> Mixed:
    found = augment(human, generated)
    assert isinstance(found, Mixed), found
    return found


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet="aB .!?\n\"')", max_size=60))
def test_sentences_join_to_the_text(text: str) -> None:
    parts = sentences(text)
    assert "".join(parts) == text or not text.strip()
    assert all(part.strip() for part in parts)


def test_where_sentences_end() -> None:
    assert [part.strip() for part in sentences(HUMAN)] == [
        "One is here.", "Two is there!", "Is three?", "Four ends.", "Five begins a paragraph.",
    ]  # fmt: skip
    assert len(sentences('Dr. J. Smith met Mrs. Low, e.g. at 3.5 km. "Why?" he said.')) == 3
    assert sentences("") == [] and sentences("no end") == ["no end"]


def test_half_of_the_sentences_are_reworded_in_their_places() -> None:
    found = mixed(MixtureAugment())
    assert len(found.places) == 2 and found.count == 5
    own, made = sentences(HUMAN), sentences(found.text)
    assert len(made) == 5
    for place in range(5):
        assert (made[place] == own[place]) is (place not in found.places)
        if place in found.places:
            assert made[place].strip() in GENERATED
    assert found == mixed(MixtureAugment()) and "\n\n" in found.text
    drawn = {mixed(MixtureAugment(seed=seed)).places for seed in range(20)}
    assert len(drawn) > 3


def test_all_but_the_fraction_stays() -> None:
    assert len(mixed(MixtureAugment(fraction=1.0)).places) == 5
    assert len(mixed(MixtureAugment(fraction=0.25)).places) == 1
    for text, generated in (("One sentence only.", GENERATED), (HUMAN, ""), ("Same. Same.", "Same.")):
        found = MixtureAugment()(text, generated)
        assert isinstance(found, Failed) and found.kind == "unmixable"
    with pytest.raises(GuerdonError, match="fraction"):
        MixtureAugment(fraction=0.0)


class Chat:
    """Answers with what ``say`` makes of the question."""

    def __init__(self, say: Any) -> None:
        self.say, self.asked = say, []

    def __call__(self, messages: Any, *, temperature: Any = None, seed: Any = None) -> Any:
        self.asked.append(messages[-1]["content"])
        return self.say(messages[-1]["content"])


def asked_numbers(question: str) -> list[int]:
    told = question.split("with the numbers ")[1].split(" in your own")[0]
    return [int(number) for number in told.split(", ")]


def test_a_chat_rewords_exactly_what_it_is_asked_for() -> None:
    chat = Chat(lambda asked: "Here you are:\n" + "\n".join(f"[{n}] New {n}." for n in reversed(asked_numbers(asked))))
    found = mixed(MixtureAugment(ChatRewriter(chat)), generated="")
    made = [part.strip() for part in sentences(found.text)]
    assert [made[place] for place in found.places] == [f"New {place + 1}." for place in found.places]
    assert "[3] Is three?" in chat.asked[0] and "[5] Five begins" in chat.asked[0]


@pytest.mark.parametrize(
    "say, kind",
    [
        (lambda asked: "I cannot do that.", "unparseable"),
        (lambda asked: f"[{asked_numbers(asked)[0]}] Only the first.", "unparseable"),
        (lambda asked: "\n".join(f"[{n}] a\n[{n}] b" for n in asked_numbers(asked)), "unparseable"),
        (lambda asked: Failed("the endpoint is down", "unavailable"), "unavailable"),
    ],
)
def test_a_reply_that_does_not_fit_is_a_failure_and_moves_nothing(say: Any, kind: str) -> None:
    found = MixtureAugment(ChatRewriter(Chat(say)))(HUMAN)
    assert isinstance(found, Failed) and found.kind == kind


def test_a_rewriter_that_returns_too_few() -> None:
    found = MixtureAugment(lambda parts, places, generated, rng: ["one"])(HUMAN)
    assert isinstance(found, Failed) and "1 came back" in found.cause


def test_taken_from_goes_along_the_generated_text() -> None:
    parts = [f"S{place}." for place in range(8)]
    found = taken_from(parts, [0, 2, 7], GENERATED, np.random.default_rng(0))
    assert found == ["Alpha comes.", "Beta follows.", "Delta ends."]


def test_normalised() -> None:
    assert normalised("it does n't , he said . <newline> `` Why ? ''") == 'it doesn\'t, he said.\n" Why? "'
    assert normalised("( a )  b\u2019s \u201cc\u201d") == '(a) b\'s "c"'


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab .,'n\n(`\t", max_size=40))
def test_normalised_twice_is_once(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
