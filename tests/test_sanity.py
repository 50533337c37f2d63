"""IXC's data check on single answers and on pairs."""

from __future__ import annotations

import pytest

from guerdon.core.preferences import Pair
from guerdon.curation.sanity import sane_pairs, sanity_fault


@pytest.mark.parametrize(
    "text, fault",
    [
        ("A sound answer.", None),
        ("a<|im_end|>", "holds the chat marker <|im_end|>"),
        ("<|im_start|>user", "holds the chat marker <|im_start|>"),
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("x" * 101 + " y" * 200, "holds a word of 101 characters"),
        ("x" * 100 + " y" * 300, None),
        ("x" * 101 + "\n" + "y\n" * 100, None),  # long word, short text: 302 characters
        ("y\n" * 300 + "x" * 120, "holds a word of 120 characters"),
    ],
)
def test_faults(text: str, fault: str | None) -> None:
    assert sanity_fault(text) == fault
    assert sanity_fault([{"role": "assistant", "content": text}]) == fault


def test_pairs_with_a_fault_on_either_side_are_named() -> None:
    def pair(chosen: str, rejected: str, where: str = "") -> Pair:
        return Pair([], *([{"role": "assistant", "content": text}] for text in (chosen, rejected)), where=where)

    kept, reasons = sane_pairs([pair("a", "b"), pair("a", " ", "f:2"), pair("<|im_end|>", "")])
    assert kept == [pair("a", "b")]
    assert reasons == ["f:2: rejected is empty", "pair 2: chosen holds the chat marker <|im_end|>, rejected is empty"]
