"""Shop-R1 (arXiv 2507.17842): a shopper's next action as JSON, credited in a hierarchy.

R = 0.5 form + 0.3 type + arguments that are there + DARS ROUGE-L of what they say   (arguments wait for the right type)
  + 0.005 self-certainty of the rationale, where asked for
baseline (reward: exact): 1 where the whole action is right
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.json_actions import SHOP_ACTIONS, JsonActionParser
from guerdon.core.runs import RunFolder
from guerdon.curation.shop_sessions import shop_session
from guerdon.recipes._language import PRESETS, Problems, preset_for, run_language
from guerdon.recipes._made_world import MadeConfig, made_world
from guerdon.rewards.text.hierarchical import exact_action, shop_r1
from guerdon.rewards.text.rationale_certainty import shop_r1_with_certainty

TITLE = "Shop-R1: Rewarding LLMs to Simulate Human Behavior in Online Shopping via Reinforcement Learning"
__all__ = ["CONFIG", "PRESETS", "ShopConfig", "preset_for", "run"]


class ShopConfig(MadeConfig):
    """data: rows of a prompt and a ``solution``: the wanted action {"type", "name", "text"} or its JSON.

    reward: "hierarchy", "with_certainty" (the paper's whole reward), or "exact", its sparse baseline. dars, threshold:
    of `guerdon.rewards.text.hierarchical.shop_r1`, the paper's. The paper begins with supervised training on real
    sessions; so does the embedded policy, on made ones.
    """

    layout: Literal["math", "rows"] = "rows"
    judge: str = "exact_action"
    reward: Literal["hierarchy", "with_certainty", "exact"] = "hierarchy"
    dars: float = Field(1000.0, gt=0)
    threshold: float = Field(0.75, ge=0, le=1)


CONFIG = ShopConfig
_PARSER = JsonActionParser(SHOP_ACTIONS)


def run(config: ShopConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train on the reward and grade by exact actions in ``folder``; returns the summary, which is written there too."""
    options: dict[str, Any] = dict(dars=config.dars, threshold=config.threshold)

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        if config.reward == "exact":
            return {"exact": (exact_action(), 1.0)}
        made = shop_r1_with_certainty if config.reward == "with_certainty" else shop_r1
        return {"shop_r1": (made(**options), 1.0)}

    def rows(problems: Problems) -> Problems:
        for row in (*problems.train, *problems.watched, *problems.tested):
            _check(row)
        return problems

    notes = ["the embedded shop is made: what is right in it says nothing about people"] if config.data is None else []
    world = made_world(shop_session, said=_said, kind=_type)
    return run_language("shop-r1", TITLE, config, folder, resume, rewards, rows=rows, world=world, notes=notes)


def _check(row: Mapping[str, Any]) -> None:
    """Raises GuerdonError where ``row`` has no wanted action."""
    told, wanted = repr(str(row["prompt"][-1]["content"])[:60]), row.get("solution")
    try:
        action = json.loads(wanted) if isinstance(wanted, str) else wanted
    except (ValueError, RecursionError):
        action = None
    if not isinstance(action, Mapping):
        raise GuerdonError(
            f'the row {told} needs the wanted action in the column \'solution\', as {{"type": "click", "name": ...}}; '
            f"it has {str(wanted)[:60]!r}"
        )
    if action.get("type") not in SHOP_ACTIONS:
        raise unknown(f"type of the wanted action of the row {told}:", str(action.get("type")), SHOP_ACTIONS)


def _said(text: str) -> str | None:
    """The action of a completion as one text."""
    parsed = _PARSER(text)
    return " | ".join(f"{key}={value}" for key, value in sorted(parsed.action.items())) if parsed.ok else None


def _type(text: str) -> str | None:
    parsed = _PARSER(text)
    return str(parsed.action["type"]) if parsed.ok else None
