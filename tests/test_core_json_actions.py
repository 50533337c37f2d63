"""The JSON action parser: what is an action, what is not and why, spans, and hostile input."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.json_actions import SHOP_ACTIONS, JsonActionParser, read_object

STRICT = JsonActionParser(SHOP_ACTIONS)
LENIENT = JsonActionParser(SHOP_ACTIONS, strict=False)


def said(**action: object) -> str:
    return json.dumps({"rationale": "I want it.", "action": action})


def test_an_action_and_the_span_of_its_rationale() -> None:
    text = '\n {"rationale": "I said \\"yes\\" \\u00e9.", "action": {"type": "click", "name": "buy_now"}} '
    found = STRICT(text)
    assert found.ok and found.type == "click" and found.action["name"] == "buy_now"
    assert found.rationale == 'I said "yes" é.' and found.span is not None
    assert json.loads(f'"{found.span.of(text)}"') == found.rationale


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no object"),
        ("click buy_now", "no object"),
        ("Sure! " + said(type="terminate"), "text around it"),
        (said(type="terminate") + " Done.", "text around it"),
        ('{"rationale": "a", "action": {"type": "click"', "not JSON"),
        ('{"action": {"type": "terminate"}}', "missing key"),
        ('{"rationale": "a"}', "missing key"),
        ('{"rationale": "a", "action": {}}', "missing key"),
        ('{"rationale": 3, "action": {"type": "terminate"}}', "wrong kind"),
        ('{"rationale": "a", "action": "terminate"}', "wrong kind"),
        ('{"rationale": "a", "action": {"type": ["click"]}}', "wrong kind"),
        ('{"rationale": "a", "action": {"type": "click", "name": 4}}', "wrong kind"),
        ('{"rationale": "a", "action": {"type": "terminate"}, "score": 1}', "extra key"),
        ('{"rationale": "a", "action": {"type": "terminate"}, "action": {"type": "click"}}', "doubled key"),
        ('{"rationale": "a", "action": {"type": "click", "type": "terminate"}}', "doubled key"),
        ('{"rationale": NaN, "action": {"type": "terminate"}}', "not JSON"),
        (said(type="fly"), "unknown type"),
        (said(type="terminate", name="buy_now"), "stray argument"),
        (said(type="click", name="x", text="y"), "stray argument"),
        ("{" * 5000, "not JSON"),
        ('{"rationale": "a", "action": ' + "[" * 90_000, "not JSON"),
        ('{"rationale": "a", "action": {"type": "click", "name": ' + "9" * 6000 + "}}", "not JSON"),
        ("x" * 100_001, "too long"),
    ],
)
def test_what_is_no_action_says_why(text: str, reason: str) -> None:
    found = STRICT(text)
    assert (found.ok, found.reason, dict(found.action)) == (False, reason, {})


def test_empty_arguments_do_not_break_the_form() -> None:
    assert STRICT(said(type="terminate", name="", text=None)).ok
    assert STRICT(said(type="click")).ok and STRICT(said(type="click", name="")).ok


def test_a_lenient_reader_finds_the_object() -> None:
    fenced = "Here {you} are:\n```json\n" + said(type="click", name="x", text="y", more=[1]) + "\n```\nbye }"
    assert LENIENT(fenced).ok and LENIENT(fenced).action["more"] == [1]
    assert LENIENT('{"rationale": "a", "action": {"type": "fly"}, "score": 1}').type == "fly"
    assert LENIENT("{{{{ no").reason == "not JSON" and LENIENT("no").reason == "no object"


def test_a_bare_action_and_other_keys() -> None:
    tool = JsonActionParser({"search": ("query",)}, rationale=None, action=None)
    assert tool('{"type": "search", "query": "a"}').action["query"] == "a"
    assert tool('{"type": "search", "depth": "2"}').reason == "stray argument"
    other = JsonActionParser(rationale="thought", action="call")
    assert other('{"thought": "t", "call": {"type": "any", "x": [1]}}').rationale == "t"
    with pytest.raises(GuerdonError, match="both"):
        JsonActionParser(rationale="a", action="a")


@given(st.text(max_size=300))
def test_any_text_is_an_outcome(text: str) -> None:
    for parse in (STRICT, LENIENT):
        found = parse(text)
        assert found.ok is (found.reason == "")


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=8), st.integers(), st.none()), max_size=5))
def test_an_object_is_read_with_its_spans(wanted: dict[str, object]) -> None:
    text = " " + json.dumps(wanted, indent=1) + "\n"
    found, reason = read_object(text)
    assert found is not None and reason == "" and {key: value for key, (value, _) in found.items()} == wanted
    assert all(json.loads(span.of(text)) == value for value, span in found.values())
