"""A made shop: what a shopper wishes, the page in view, and the next action that fits; for policies that write actions.

Four pages: the search field, results of three products, a product, the basket. The fitting action follows from wish and
page, so that exactness can be judged. The answers that come with them are those of a careless shopper, wrong in one
case in three.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["action_text", "shop_session"]

COLOURS = ("red", "blue", "green", "black", "white", "grey")
STUFFS = ("cotton", "wool", "linen", "leather")
THINGS = ("shirt", "jacket", "scarf", "hat", "bag", "belt", "skirt", "coat")
_CARELESS = 0.35


def action_text(action: dict[str, str], rationale: str) -> str:
    """The completion that says ``action``: one JSON object with a rationale."""
    return json.dumps({"rationale": rationale, "action": action})


def shop_session(rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    """(a row of "prompt" and "solution", the fitting action; a careless shopper's completion)."""
    wish = _product(rng)
    budget = int(rng.integers(10, 60))
    page, fitting, reason, others = _PAGES[int(rng.integers(len(_PAGES)))](rng, wish, budget)
    told = f"You want a {' '.join(wish)} for at most {budget} dollars. {page} What do you do next?"
    careless = rng.random() < _CARELESS
    done = others[int(rng.integers(len(others)))] if careless else fitting
    row = {"prompt": [{"role": "user", "content": told}], "solution": json.dumps(fitting)}
    return row, action_text(done, reason)


def _product(rng: np.random.Generator) -> tuple[str, str, str]:
    colour, stuff, thing = (str(rng.choice(words)) for words in (COLOURS, STUFFS, THINGS))
    return colour, stuff, thing


def _another(rng: np.random.Generator, words: Sequence[str], than: str) -> str:
    return str(rng.choice([one for one in words if one != than]))


def _click(name: str) -> dict[str, str]:
    return {"type": "click", "name": name}


def _typed(text: str) -> dict[str, str]:
    return {"type": "type_and_submit", "name": "search_input", "text": text}


_LEAVE = {"type": "terminate"}
Page = tuple[str, dict[str, str], str, list[dict[str, str]]]
"""(what is in view, the fitting action, a reason, actions that do not fit)"""


def _search(rng: np.random.Generator, wish: tuple[str, str, str], budget: int) -> Page:
    others = [_typed(wish[2]), _typed(" ".join(wish[1:])), _typed(" ".join(_product(rng))), _LEAVE]
    return "You see the search field.", _typed(" ".join(wish)), "I look for it.", others


def _results(rng: np.random.Generator, wish: tuple[str, str, str], budget: int) -> Page:
    products = [wish, (_another(rng, COLOURS, wish[0]), *wish[1:]), (wish[0], _another(rng, STUFFS, wish[1]), wish[2])]
    right = int(rng.integers(3))
    products[0], products[right] = products[right], products[0]
    shown = "; ".join(f"product_{place + 1} {' '.join(one)}" for place, one in enumerate(products))
    first = products.index(wish)
    others = [_click(f"product_{place + 1}") for place in range(3) if place != first] + [_LEAVE]
    return f"You see results: {shown}.", _click(f"product_{first + 1}"), "This one is like it.", others


def _page(rng: np.random.Generator, wish: tuple[str, str, str], budget: int) -> Page:
    same, price = rng.random() < 0.6, int(rng.integers(5, 65))
    shown = wish if same else _product(rng)
    fits = shown == wish and price <= budget
    actions = [_click("add_to_basket"), _click("back_to_results"), _LEAVE]
    fitting = actions[0] if fits else actions[1]
    reason = "It is what I want." if fits else "It is not what I want."
    return (
        f"You see a {' '.join(shown)} for {price} dollars.",
        fitting,
        reason,
        [one for one in actions if one != fitting],
    )


def _basket(rng: np.random.Generator, wish: tuple[str, str, str], budget: int) -> Page:
    total = int(rng.integers(5, 65))
    fits = total <= budget
    actions = [_click("checkout"), _LEAVE, _click("back_to_results")]
    fitting = actions[0] if fits else actions[1]
    reason = "I can pay that." if fits else "It is too dear."
    shown = f"You see the basket with a {' '.join(wish)}: {total} dollars in all."
    return shown, fitting, reason, [one for one in actions if one != fitting]


_PAGES = (_search, _results, _page, _basket)
