"""The five attributes: their JSON, what is asked for again, what fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair
from guerdon.curation.attributes import AttributeGenerator, Attributes, attributes_of

GOOD = {
    "category": "coding", "objectivity": "High", "controversiality": "low", "desired": ["it runs", "it is short"],
    "guideline": "Run it in your head.",
}  # fmt: skip
PAIR = Pair(
    [{"role": "user", "content": "Sort a list."}],
    [{"role": "assistant", "content": 'sorted(x)"}'}],
    [{"role": "assistant", "content": "no"}],
)


class Scripted:
    def __init__(self, *replies: str | Failed) -> None:
        self.replies, self.asked = list(replies), []

    def __call__(self, messages: Sequence[Any], *, temperature: Any = None, seed: Any = None) -> str | Failed:
        self.asked.append(messages[0]["content"])
        return self.replies[len(self.asked) - 1]


@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "<think>so</think>\n{}"])
def test_a_reply_is_read(form: str) -> None:
    made = AttributeGenerator(Scripted(form.replace("{}", json.dumps(GOOD))))(PAIR)
    assert made == Attributes("coding", "high", "low", ("it runs", "it is short"), "Run it in your head.")
    assert isinstance(made, Attributes) and attributes_of(json.loads(json.dumps(made.to_json()))) == made
    assert made.priority == 0 and "it runs" in made.instruction and "coding" in made.text


def test_priority_goes_to_objective_and_uncontroversial_pairs() -> None:
    def priority(objectivity: str, controversiality: str) -> int:
        return attributes_of({**GOOD, "objectivity": objectivity, "controversiality": controversiality}).priority

    assert priority("high", "low") < priority("medium", "low") == priority("high", "medium") < priority("low", "high")


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({**GOOD, "objectivity": "very"}, "'objectivity' must be one of low, medium, high"),
        ({key: value for key, value in GOOD.items() if key != "guideline"}, "exactly the keys"),
        ({**GOOD, "better": "A"}, "exactly the keys"),
        ({**GOOD, "guideline": " "}, "'guideline' must be text"),
        ({**GOOD, "desired": "short"}, "'desired' must be a list"),
        ({**GOOD, "desired": []}, "'desired' must be a list"),
        ([1], "exactly the keys"),
    ],
)
def test_what_is_no_attributes(wrong: Any, says: str) -> None:
    with pytest.raises(GuerdonError, match=says):
        attributes_of(wrong)


def test_unreadable_replies_are_asked_for_again_and_then_fail() -> None:
    llm = Scripted("sure!", json.dumps({**GOOD, "objectivity": "?"}), json.dumps(GOOD))
    assert isinstance(AttributeGenerator(llm)(PAIR), Attributes) and len(llm.asked) == 3
    failed = AttributeGenerator(Scripted("a", "b"), attempts=2)(PAIR)
    assert isinstance(failed, Failed) and failed.kind == "unparseable" and "'b'" in failed.cause
    down = AttributeGenerator(Scripted(Failed("down", kind="unavailable")))(PAIR)
    assert isinstance(down, Failed) and down.kind == "unavailable"


def test_the_question_does_not_tell_the_label() -> None:
    one, other = Scripted(json.dumps(GOOD)), Scripted(json.dumps(GOOD))
    AttributeGenerator(one)(PAIR)
    AttributeGenerator(other)(PAIR.swapped())
    assert one.asked == other.asked
    assert json.loads(one.asked[0].split("as data:\n")[1])["candidates"] == ["no", 'sorted(x)"}']
