"""Made shop sessions: what fits follows from wish and page, and shoppers are careless as often as is said."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from guerdon.core.json_actions import SHOP_ACTIONS, JsonActionParser
from guerdon.curation.shop_sessions import action_text, shop_session

SAID = re.compile(
    r"You want a (?P<wish>[a-z ]+) for at most (?P<budget>\d+) dollars\. (?P<page>.*) What do you do next\?"
)
PARSER = JsonActionParser(SHOP_ACTIONS)


def drawn(count: int, seed: int = 1) -> list[tuple[dict[str, Any], str]]:
    rng = np.random.default_rng(seed)
    return [shop_session(rng) for _ in range(count)]


def fitting(told: str) -> dict[str, str]:
    """The action that a careful reader of the prompt takes, worked out from its words alone."""
    found = SAID.fullmatch(told)
    assert found, told
    wish, budget, page = found["wish"], int(found["budget"]), found["page"]
    if page == "You see the search field.":
        return {"type": "type_and_submit", "name": "search_input", "text": wish}
    if shown := re.fullmatch(r"You see results: (.*)\.", page):
        named = [one.split(" ", 1) for one in shown[1].split("; ")]
        assert sum(product == wish for _, product in named) == 1
        return {"type": "click", "name": next(name for name, product in named if product == wish)}
    if total := re.fullmatch(rf"You see the basket with a {wish}: (\d+) dollars in all\.", page):
        return {"type": "click", "name": "checkout"} if int(total[1]) <= budget else {"type": "terminate"}
    product = re.fullmatch(r"You see a ([a-z ]+) for (\d+) dollars\.", page)
    assert product, page
    fits = product[1] == wish and int(product[2]) <= budget
    return {"type": "click", "name": "add_to_basket" if fits else "back_to_results"}


def test_the_fitting_action_follows_from_the_prompt() -> None:
    for row, _ in drawn(500):
        assert json.loads(row["solution"]) == fitting(row["prompt"][0]["content"])


def test_every_completion_is_an_action_and_one_in_three_does_not_fit() -> None:
    rows = drawn(3000)
    said = [PARSER(answer) for _, answer in rows]
    assert all(one.ok and one.rationale for one in said)
    right = [one.action == json.loads(row["solution"]) for one, (row, _) in zip(said, rows, strict=True)]
    assert np.mean(right) == pytest.approx(0.65, abs=0.03)


def test_all_kinds_of_action_occur_and_no_constant_one_is_right_often() -> None:
    wanted = [row["solution"] for row, _ in drawn(3000)]
    assert {json.loads(one)["type"] for one in wanted} == set(SHOP_ACTIONS)
    assert max(wanted.count(one) for one in set(wanted)) / len(wanted) < 0.25


def test_the_same_seed_draws_the_same() -> None:
    assert drawn(20) == drawn(20) and drawn(20) != drawn(20, seed=2)


def test_an_action_is_read_back_as_it_was_said() -> None:
    action = {"type": "click", "name": 'a "quoted" name'}
    parsed = PARSER(action_text(action, "why"))
    assert parsed.ok and parsed.action == action and parsed.rationale == "why"
