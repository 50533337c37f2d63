"""Actions that a policy writes as JSON: ``{"rationale": "...", "action": {"type": ..., ...}}``, read by one grammar.

A completion that is no such object is a typed outcome of its own, never an action. Source of the form: Shop-R1 (arXiv
2507.17842); nothing here knows about shops but `SHOP_ACTIONS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.core.segments import Span

__all__ = ["SHOP_ACTIONS", "JsonActionParser", "ParsedAction", "read_object"]

SHOP_ACTIONS: dict[str, tuple[str, ...]] = {"type_and_submit": ("name", "text"), "click": ("name",), "terminate": ()}
"""What a shopper can do, by type, with the arguments that belong to it."""

_MOST = 100_000


class _DoubledKey(ValueError):
    pass


@dataclass(frozen=True)
class ParsedAction:
    """What a completion says, or why it says nothing.

    ok:         it has the form. reason: "" then, else "no object", "not JSON", "text around it", "missing key", "extra
                key", "wrong kind", "unknown type", "stray argument", "doubled key" or "too long".
    rationale:  "" where there is none. span: the characters of its JSON string in the completion, quotes excluded;
                `guerdon.core.segments.token_offsets` finds the tokens.
    action:     the action's fields; empty unless ok.
    """

    ok: bool
    reason: str = ""
    rationale: str = ""
    span: Span | None = None
    action: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The action's type; "" where there is none."""
        found = self.action.get("type", "")
        return found if isinstance(found, str) else ""


class JsonActionParser:
    """Reads one JSON object with a rationale and an action out of a completion. Linear in its length.

    schema:     type -> the arguments that belong to it; None accepts any type with any arguments.
    strict:     nothing but white space around the object, no keys beside the two, no unknown type, and no argument that
                is not empty and does not belong to the type. Without it the first object that can be read counts,
                wherever it stands (in a code fence, too), whatever else is in it.
    rationale:  the key of the reason, None where the form has none (a bare tool call). action: the key of the action;
                None where the object itself is the action (``{"type": "click", "name": ...}``).

    An argument that is missing or empty is no fault of the form: it is what a reward may judge. Keys are never read
    twice: an object that doubles one is refused, since readers disagree on which counts.
    Source: the strict form follows the environments in use for Shop-R1; the paper asks for valid JSON with both keys.
    """

    def __init__(
        self,
        schema: Mapping[str, tuple[str, ...]] | None = None,
        *,
        strict: bool = True,
        rationale: str | None = "rationale",
        action: str | None = "action",
    ) -> None:
        if rationale is not None and rationale == action:
            raise GuerdonError(f"the rationale and the action cannot both be the key {action!r}")
        self.schema = None if schema is None else {key: tuple(names) for key, names in schema.items()}
        self.strict, self.rationale, self.action = strict, rationale, action

    def __call__(self, text: str) -> ParsedAction:
        """The action of one completion; never raises."""
        if len(text) > _MOST:
            return ParsedAction(False, "too long")
        found, reason = read_object(text, whole=self.strict)
        if found is None:
            return ParsedAction(False, reason)
        values = {key: value for key, (value, _) in found.items()}
        said, span = "", None
        if self.rationale is not None and self.rationale in found:
            said, where = found[self.rationale]
            if not isinstance(said, str):
                return ParsedAction(False, "wrong kind")
            span = Span(where.start + 1, where.end - 1)
        wanted = [key for key in (self.rationale, self.action) if key is not None]
        if any(key not in values for key in wanted):
            return ParsedAction(False, "missing key", said, span)
        plain = {key: value for key, value in values.items() if key != self.rationale}
        done = plain if self.action is None else plain[self.action]
        if not isinstance(done, dict):
            return ParsedAction(False, "wrong kind", said, span)
        reason = self._fault(plain, done) if self.strict else ""
        return ParsedAction(not reason, reason, said, span, {} if reason else done)

    def _fault(self, values: Mapping[str, Any], action: Mapping[str, Any]) -> str:
        if self.action is not None and len(values) > 1:
            return "extra key"
        if not isinstance(action.get("type"), str):
            return "missing key" if "type" not in action else "wrong kind"
        if self.schema is None:
            return ""
        if action["type"] not in self.schema:
            return "unknown type"
        belong = {"type", *self.schema[action["type"]]}
        for key, value in action.items():
            if key not in belong and value not in ("", None):
                return "stray argument"
            if key in belong and value is not None and not isinstance(value, str):
                return "wrong kind"
        return ""


def read_object(text: str, *, whole: bool = True) -> tuple[dict[str, tuple[Any, Span]] | None, str]:
    """({key: (value, its characters)}, "") of a JSON object in ``text``; (None, reason) where there is none.

    whole:  the object must be all of the text but for white space. Without it, the first object that can be read from
            one of the first 20 braces.
    NaN, infinities, an object that doubles a key and integers beyond Python's limit of digits are refused.
    """
    if whole:
        start = len(text) - len(text.lstrip())
        if text[start : start + 1] != "{":
            return None, "text around it" if "{" in text else "no object"
        found, end, reason = _object(text, start)
        if found is not None and text[end:].strip():
            return None, "text around it"
        return found, reason
    start, reason = text.find("{"), "no object"
    for _ in range(20):
        if start < 0:
            break
        found, _, reason = _object(text, start)
        if found is not None:
            return found, ""
        start = text.find("{", start + 1)
    return None, reason


def _object(text: str, start: int) -> tuple[dict[str, tuple[Any, Span]] | None, int, str]:
    """The object that opens at ``start``: its entries, where it ends, and what is wrong with it."""
    found: dict[str, tuple[Any, Span]] = {}
    place = _blank(text, start + 1)
    try:
        if text[place : place + 1] == "}":
            return found, place + 1, ""
        while True:
            key, place = _DECODER.raw_decode(text, place)
            place = _blank(text, place)
            if not isinstance(key, str) or text[place : place + 1] != ":":
                return None, place, "not JSON"
            place = _blank(text, place + 1)
            value, end = _DECODER.raw_decode(text, place)
            if key in found:
                return None, place, "doubled key"
            found[key] = (value, Span(place, end))
            place = _blank(text, end)
            if text[place : place + 1] == "}":
                return found, place + 1, ""
            if text[place : place + 1] != ",":
                return None, place, "not JSON"
            place = _blank(text, place + 1)
    except _DoubledKey:
        return None, place, "doubled key"
    except (ValueError, RecursionError):  # nested too deeply, or a number of too many digits, is no JSON to us either
        return None, place, "not JSON"


def _blank(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\n\r":
        place += 1
    return place


def _not_finite(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _DoubledKey
    return found


_DECODER = json.JSONDecoder(parse_constant=_not_finite, object_pairs_hook=_once)
