"""Rewrites: a strict reply, and rows that stay aligned."""

from __future__ import annotations

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.curation.rephrase import parse_rewrite, rephrase, rephrasing_prompt


def reply(told: str, original: str = "2 and 3?") -> str:
    return f"Sure.\n### RESULT_START\nORIGINAL: {original}\nREWRITE: {told}\n### RESULT_END\n"


def test_a_reply_in_form() -> None:
    assert parse_rewrite(reply("Ann has 2 apples\nand gets 3.")) == "Ann has 2 apples\nand gets 3."


@pytest.mark.parametrize(
    "bad",
    [
        "", "REWRITE: x", reply(""), reply("x REWRITE: y"), reply("x") + reply("y"),
        reply("x").replace("ORIGINAL:", ""),
        "### RESULT_END\nORIGINAL: a\nREWRITE: b\n### RESULT_START", reply("x").replace("### RESULT_END", ""),
        reply("x" * 50_000),
    ],
)  # fmt: skip
def test_a_reply_out_of_form(bad: str) -> None:
    found = parse_rewrite(bad)
    assert isinstance(found, Failed) and found.kind == "unparseable"


def test_rows_stay_aligned() -> None:
    rows = [{"question": text, "answer": text[-1]} for text in ("q1", "q2", "q3", "q4")]
    said = {"q1": reply("told 1"), "q2": "no", "q3": Failed("down", "unavailable"), "q4": reply(" Q4 ")}

    def chat(messages, *, temperature=None, seed=None):  # noqa: ANN001, ANN202
        assert temperature == 0.7
        return said[messages[0]["content"][-2:]]

    found = rephrase(rows, chat)
    assert found.originals == [{"question": "q1", "answer": "1"}]
    assert found.rewrites == [{"question": "told 1", "answer": "1"}]
    assert found.dropped == {"unparseable": 1, "unavailable": 1, "same": 1}
    with pytest.raises(GuerdonError, match="row 0.*'question'"):
        rephrase([{"prompt": "x"}], chat)
    assert rephrasing_prompt("why?").endswith("why?")
