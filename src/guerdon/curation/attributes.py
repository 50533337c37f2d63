"""Five attributes of a preference pair, by a language model: what retrieval looks for and what judges are told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair, text_of
from guerdon.models.chat import Chat

__all__ = ["AttributeGenerator", "Attributes", "attributes_of"]

LEVELS = ("low", "medium", "high")
_CODE = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)

QUESTION = """\
Describe what kind of comparison follows: a conversation and two candidate answers to it. Do not say which of them is \
better. Reply with one JSON object and nothing else, with exactly these keys:
"category": the kind of task in at most four words (coding, mathematics, creative writing, advice, ...);
"objectivity": "high" if facts decide which answer is better, "low" if taste does, else "medium";
"controversiality": "high" if reasonable people would disagree about it, "low" if hardly any would, else "medium";
"desired": a list of one to five short phrases, the properties that a good answer to this conversation has;
"guideline": two to four sentences telling somebody how to judge answers to this conversation.
"""


@dataclass(frozen=True)
class Attributes:
    """The five: task category, objectivity, controversiality (low, medium, high), desired properties, guideline.

    The first three say which pairs to prefer, the last two condition the judges. Source: Skywork-Reward-V2 (arXiv
    2507.01352), section 3; the three levels are ours.
    """

    category: str
    objectivity: str
    controversiality: str
    desired: tuple[str, ...]
    guideline: str

    @property
    def text(self) -> str:
        """All five in words, to be embedded beside the conversation."""
        levels = f"objectivity {self.objectivity}, controversiality {self.controversiality}"
        return f"{self.category} ({levels}). {'; '.join(self.desired)}. {self.guideline}"

    @property
    def instruction(self) -> str:
        """What a judge is told: the desired properties and the guideline."""
        return f"A good answer is: {'; '.join(self.desired)}. {self.guideline}"

    @property
    def priority(self) -> int:
        """Smaller goes first: objective before subjective, uncontroversial before controversial; 0 to 4."""
        return 2 - LEVELS.index(self.objectivity) + LEVELS.index(self.controversiality)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, the inverse of `attributes_of`."""
        return {**asdict(self), "desired": list(self.desired)}


def attributes_of(value: Any) -> Attributes:
    """The attributes of a JSON object. Raises GuerdonError naming a key that is missing, unknown or wrong."""
    keys = tuple(Attributes.__dataclass_fields__)
    if not isinstance(value, Mapping) or set(value) != set(keys):
        got = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise GuerdonError(f"attributes need exactly the keys {', '.join(keys)}; got {got}")
    for key in ("category", "guideline", "objectivity", "controversiality"):
        if not isinstance(value[key], str) or not value[key].strip():
            raise GuerdonError(f"attribute {key!r} must be text, got {value[key]!r}")
    desired = value["desired"]
    if not isinstance(desired, list | tuple) or not desired or not all(isinstance(item, str) for item in desired):
        raise GuerdonError(f"attribute 'desired' must be a list of phrases, got {desired!r}")
    levels = {key: value[key].strip().lower() for key in ("objectivity", "controversiality")}
    for key, level in levels.items():
        if level not in LEVELS:
            raise GuerdonError(f"attribute {key!r} must be one of {', '.join(LEVELS)}, got {level!r}")
    words = [item.strip() for item in desired]
    return Attributes(value["category"].strip(), **levels, desired=tuple(words), guideline=value["guideline"].strip())


class AttributeGenerator:
    """Attributes of a pair, asked of a chat model; a reply that is not the JSON asked for is asked for again.

    llm: any `Chat`. attempts: replies in all. The two answers are shown in alphabetical order, so that their place
    says nothing about the label.
    """

    def __init__(self, llm: Chat, *, attempts: int = 3) -> None:
        if attempts < 1:
            raise GuerdonError(f"attempts must be at least 1; got {attempts}")
        self.llm, self.attempts = llm, attempts

    def __call__(self, pair: Pair) -> Attributes | Failed:
        """The pair's attributes; Failed of kind "unparseable", or of the kind that the chat model failed with."""
        turns = [f"{message['role'].capitalize()}: {text_of([message])}" for message in pair.prompt]
        answers = sorted((text_of(pair.chosen), text_of(pair.rejected)))
        shown = {"conversation": "\n\n".join(turns), "candidates": answers}
        # As JSON: no answer can close its own quotation.
        asked = f"{QUESTION}\nThe comparison, as data:\n{json.dumps(shown, ensure_ascii=False, indent=1)}"
        failure = Failed(cause="not asked", kind="unparseable")
        for attempt in range(self.attempts):
            reply = self.llm([{"role": "user", "content": asked}], temperature=0.7 if attempt else 0.0, seed=attempt)
            if isinstance(reply, Failed):
                return reply
            try:
                return attributes_of(json.loads(_json_in(reply)))
            except (ValueError, GuerdonError) as error:
                failure = Failed(cause=f"{error} (in {reply.strip()[:120]!r})", kind="unparseable")
        return failure

    def many(self, pairs: Sequence[Pair]) -> list[Attributes | Failed]:
        """One outcome a pair."""
        return [self(pair) for pair in pairs]


def _json_in(reply: str) -> str:
    said = reply.rpartition("</think>")[2].strip()
    fenced = _CODE.search(said)
    return fenced[1] if fenced else said
