"""Hierarchical credit: Shop-R1's unit facts, gates, difficulties, and other uses of the tree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.json_actions import JsonActionParser
from guerdon.core.outcome import Failed
from guerdon.core.reward import identity
from guerdon.core.scorer import Scorer
from guerdon.rewards.text.difficulty import ConstantDifficulty, FailureRate, InverseFrequency, TargetLength
from guerdon.rewards.text.hierarchical import HierarchicalReward, Node, shop_r1

CLICK = {"type": "click", "name": "refinements.customer_reviews"}
TYPE = {"type": "type_and_submit", "name": "search_input", "text": "red wool socks size ten"}
STOP = {"type": "terminate"}


def said(action: dict[str, Any], rationale: str = "I want socks.") -> str:
    return json.dumps({"rationale": rationale, "action": action})


def paid(action: dict[str, Any], wanted: dict[str, Any], **settings: Any) -> float:
    (value,) = shop_r1(**settings)(["p"], [said(action)], solution=[wanted])
    assert isinstance(value, float)
    return value


def test_the_right_click() -> None:
    assert paid(CLICK, CLICK) == pytest.approx(1.0 + 1000)
    assert paid(CLICK, CLICK, dars=1) == pytest.approx(2.0)


def test_a_name_below_the_threshold_is_worth_its_presence() -> None:
    words = [f"w{place}" for place in range(27)]
    near = {"type": "click", "name": ".".join([*words[:20], *(f"x{p}" for p in range(7))])}  # 20 of 27: 0.74
    assert paid(near, {"type": "click", "name": ".".join(words)}) == pytest.approx(1.0)
    assert paid({"type": "click", "name": ""}, CLICK) == pytest.approx(0.8)
    assert paid({"type": "click"}, CLICK) == pytest.approx(0.8)
    assert paid({"type": "click", "name": "anything"}, CLICK) == pytest.approx(1.0), "presence is of the said name"


def test_a_wrong_type_keeps_the_format_alone() -> None:
    assert paid(CLICK, STOP) == pytest.approx(0.5)
    assert paid(STOP, CLICK) == pytest.approx(0.5)
    assert paid({**TYPE, "name": CLICK["name"]}, CLICK) == pytest.approx(0.5), "arguments wait for the type"


def test_text_of_similarity_four_fifths() -> None:
    close = {**TYPE, "text": "red wool socks size nine"}
    assert paid(close, TYPE, dars=10) == pytest.approx(0.5 + 0.3 + 0.2 + 0.1 + 8)


def test_terminate_is_never_the_best_paid() -> None:
    reward = shop_r1(dars=0)
    assert reward.highest("terminate") == pytest.approx(0.8)
    assert reward.highest("click") == pytest.approx(1.0) and reward.highest("type_and_submit") == pytest.approx(1.1)
    assert shop_r1().range == (0.0, pytest.approx(1001.1))


@pytest.mark.parametrize("text", ["", "click", '{"rationale": "a"}', said(STOP) + "!", "{" * 3000])
def test_no_form_no_credit(text: str) -> None:
    assert shop_r1()(["p"], [text], solution=[STOP]) == [0.0]


def test_rows_without_a_wanted_action() -> None:
    found = shop_r1()(["p"] * 4, [said(STOP)] * 4, solution=[None, "no action", json.dumps(STOP), STOP])
    assert found[0] is None and isinstance(found[1], Failed) and found[1].kind == "unparseable"
    assert found[2:] == pytest.approx([0.8, 0.8])
    for bad in ({}, {"solution": [STOP, STOP]}, {"solution": "terminate"}):
        with pytest.raises(GuerdonError, match="solution"):
            shop_r1()(["p"], [said(STOP)], **bad)


def test_parts_and_logs() -> None:
    logged: dict[str, float] = {}
    reward = shop_r1(dars=10)
    rows = [said(CLICK), said(STOP), "no", said(STOP)]
    scores = reward.scores(
        ["a", "a", "b", "b"], rows, solution=[CLICK, CLICK, STOP, STOP], log_metric=logged.__setitem__
    )
    assert scores.values.tolist() == pytest.approx([11.0, 0.5, 0.0, 0.8])
    assert scores.parts["name"].tolist() == [10, 0, 0, 0] and scores.parts["form"].tolist() == [0.5, 0.5, 0, 0.5]
    total = sum(scores.parts.values())
    assert total.tolist() == pytest.approx(scores.values.tolist())  # type: ignore[union-attr]
    assert logged["shop_r1/valid"] == 0.75 and logged["shop_r1/value_groups"] == 0.5
    assert logged["shop_r1/rationale_distinct"] == pytest.approx(1 / 3)
    assert reward.breakdown(rows[0], CLICK)["type"] == pytest.approx(0.3)


def test_a_score_belongs_to_the_sample() -> None:
    rows, wanted = [said(CLICK), said(STOP), "no", said(TYPE)], [CLICK, CLICK, STOP, TYPE]
    reward = shop_r1()
    whole = reward(["p"] * 4, rows, solution=wanted)
    assert whole == [reward(["p"], [row], solution=[one])[0] for row, one in zip(rows, wanted)]
    assert Scorer(reward).score(["p"] * 4, rows, solution=wanted).as_list() == whole


@given(st.text(max_size=80), st.sampled_from([CLICK, TYPE, STOP]))
def test_any_text_is_paid_within_the_range(text: str, wanted: dict[str, Any]) -> None:
    reward = shop_r1()
    for completion in (text, said({"type": "click", "name": text}), said({**TYPE, "text": text})):
        (value,) = reward(["p"], [completion], solution=[wanted])
        assert isinstance(value, float) and 0 <= value <= reward.highest()


def test_difficulties() -> None:
    rare = InverseFrequency({"click": 80, "terminate": 20})
    assert rare(CLICK) == pytest.approx(100 / 160) and rare(STOP) == pytest.approx(2.5) == rare({"type": "new"})
    assert InverseFrequency.of([CLICK, CLICK, STOP]).factors == pytest.approx({"click": 0.75, "terminate": 1.5})
    assert InverseFrequency({"a": 1000, "b": 1}, cap=5).highest == 5
    long = TargetLength(typical=4, cap=2)
    assert long(TYPE) == pytest.approx(1.25) and long(STOP) == 0.25 and long({"text": "w " * 99}) == 2
    failing = FailureRate(momentum=0.5)
    reward = shop_r1(dars=failing)
    assert reward(["p"] * 2, [said(CLICK)] * 2, solution=[CLICK] * 2) == pytest.approx([2.0, 2.0])
    assert reward(["p"], [said(CLICK)], solution=[CLICK]) == pytest.approx([1.25]), "it was told after the call"
    again = FailureRate(momentum=0.5)
    again.load_state_dict(failing.state_dict())
    assert again(CLICK) == failing(CLICK) == pytest.approx(0.125)
    for bad in (lambda: ConstantDifficulty(-1), lambda: InverseFrequency({}), lambda: FailureRate(momentum=1)):
        with pytest.raises(GuerdonError):
            bad()


def test_identity_knows_the_tree_the_parser_and_the_difficulty() -> None:
    made = [shop_r1(), shop_r1(threshold=0.5), shop_r1(strict=False), shop_r1(dars=1), shop_r1(dars=FailureRate())]
    assert len({identity(one) for one in made}) == 5 and identity(shop_r1()) == identity(made[0])
    before = identity(made[4])
    made[4](["p"], [said(CLICK)], solution=[CLICK])
    assert identity(made[4]) == before, "what it has seen is no configuration"


def test_a_tree_for_a_tool_call() -> None:
    close = Node("depth", "options.depth", lambda said, wanted: float(said == wanted), weight=2.0)
    call = JsonActionParser(rationale=None, action=None, strict=False)
    reward = HierarchicalReward([Node("tool", "tool", "exact", children=(close,))], form=0.1, parser=call)
    wanted = {"tool": "search", "options": {"depth": 2}}
    rows = [{"tool": "search", "options": {"depth": 2}}, {"tool": "search"}, {"tool": "open", "options": {"depth": 2}}]
    assert reward(["p"] * 3, [json.dumps(row) for row in rows], solution=[wanted] * 3) == pytest.approx([3.1, 1.1, 0.1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Node("a", match="fuzzy"),  # type: ignore[arg-type]
        lambda: Node("a", weight=-1),
        lambda: Node("a", threshold=2),
        lambda: HierarchicalReward([]),
        lambda: HierarchicalReward([Node("a"), Node("a")]),
        lambda: HierarchicalReward([Node("form")]),
        lambda: HierarchicalReward([Node("a")], form=float("inf")),
        lambda: HierarchicalReward([Node("a", "x", lambda a, b: 2.0)]).breakdown(said(STOP), STOP),
    ],
)
def test_bad_trees(make: Any) -> None:
    with pytest.raises(GuerdonError):
        make()
