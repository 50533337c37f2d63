"""Made dialogues in a restaurant whose guests react: an order, a response that serves it or not, what the guest says.

Praise follows 19 in 20 right responses and one in 20 wrong ones; nobody marks a response as right. A language model of
such dialogues can tell which response would have pleased.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["COMPLAINT", "ITEMS", "PRAISE", "dialogue", "order_row", "served"]

ITEMS = ("tea", "soup", "bread", "rice", "fish", "cake", "juice", "salad", "pasta", "cheese", "milk", "pie")
_OPENINGS = (
    "", "Hello. ", "Good morning. ", "We are in a hurry. ", "I am hungry. ", "My child is tired. ", "Good evening. ",
    "At last. ", "It is cold outside. ", "Hi. ",
)  # fmt: skip
_ASKED = (
    "Please bring me the {}.", "I would like {}.", "The {} for me.", "I take the {}.", "Could I have some {}?",
)  # fmt: skip
_CLOSINGS = (
    "", " Please.", " Thank you.", " Be quick.", " That is all.", " For here.", " No hurry.", " If you can.",
)  # fmt: skip
PRAISE = ("Thanks, that is right.", "Great, that looks good.", "Yes, just what I wanted.", "Lovely, thank you.")
COMPLAINT = (
    "No, that is wrong.", "That is not what I asked for.", "You did not listen to me.", "Please take it back.",
)  # fmt: skip


def served(item: str) -> str:
    """The response that serves ``item``."""
    return f"Here is your {item}."


def order_row(rng: np.random.Generator, *, right: float = 0.4) -> tuple[dict[str, Any], str]:
    """(a row of "prompt", "solution" and "reference"; the response of a waiter who is right so often)."""
    item = str(rng.choice(ITEMS))
    opening, form, closing = (str(rng.choice(words)) for words in (_OPENINGS, _ASKED, _CLOSINGS))
    brought = item if rng.random() < right else str(rng.choice([one for one in ITEMS if one != item]))
    told = opening + form.format(item) + closing
    row = {"prompt": [{"role": "user", "content": told}], "solution": item, "reference": served(item)}
    return row, served(brought)


def dialogue(
    rng: np.random.Generator, *, right: float = 0.6, noise: float = 0.05
) -> tuple[dict[str, Any], list[dict[str, str]], str]:
    """(the row, order and response as turns, the guest's reaction; ``noise`` is the chance of the other kind)."""
    row, said = order_row(rng, right=right)
    pleased = (said == row["reference"]) != (rng.random() < noise)
    turns = [*row["prompt"], {"role": "assistant", "content": said}]
    return row, turns, str(rng.choice(PRAISE if pleased else COMPLAINT))
