"""Credit for a structured answer by a tree: a detail is only judged where what it belongs to is right.

For actions, tool calls, interface steps and extraction: whatever a policy writes as one JSON object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.json_actions import SHOP_ACTIONS, JsonActionParser, ParsedAction
from guerdon.core.outcome import Failed, Scores
from guerdon.metrics.rouge_l import rouge_l
from guerdon.rewards.text.difficulty import ConstantDifficulty, Difficulty

__all__ = ["HierarchicalReward", "Match", "Node", "exact_action", "shop_r1", "shop_tree"]

Match = Literal["exact", "present", "rouge_l"]
Wanted = Mapping[str, Any] | Failed | None
Similarity = Callable[[Any, Any], float]
"""(said, wanted) -> a similarity in [0, 1]."""


@dataclass(frozen=True)
class Node:
    """One thing that is judged, and what is judged only where it is met.

    name:       of the part in logs.
    field:      what is compared, a key of the action, dotted inside nested ones; "" for the action as a whole.
    match:      "exact" (equal values), "present" (the *said* value is not empty, whatever is wanted), "rouge_l" (words
                in order), or a function of (said, wanted) in [0, 1].
    weight:     what a full match pays. scaled: times the difficulty.
    threshold:  similarities below it count as 0.
    when:       the node exists only where the wanted action's ``type`` is one of these; None for all.
    children:   judged only where this node's similarity (after the threshold) is above 0.
    """

    name: str
    field: str = ""
    match: Match | Similarity = "exact"
    weight: float = 1.0
    threshold: float = 0.0
    scaled: bool = False
    when: tuple[str, ...] | None = None
    children: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.match) and self.match not in get_args(Match):
            raise unknown(f"match of node '{self.name}':", str(self.match), get_args(Match))
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise GuerdonError(f"node '{self.name}': a weight is a finite number of at least 0, got {self.weight}")
        if not 0 <= self.threshold <= 1:
            raise GuerdonError(f"node '{self.name}': a threshold lies in [0, 1], got {self.threshold}")

    def similarity(self, said: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
        """In [0, 1]: 0 below the threshold."""
        first, second = _at(said, self.field), _at(wanted, self.field)
        if callable(self.match):
            value = float(self.match(first, second))
            if not 0 <= value <= 1:
                raise GuerdonError(f"node '{self.name}': a similarity lies in [0, 1], got {value}")
        elif self.match == "present":
            value = float(first not in (None, "", [], {}) and bool(str(first).strip()))
        elif self.match == "exact":
            value = float(first == second and type(first) is type(second))
        else:
            value = rouge_l(first, second) if isinstance(first, str) and isinstance(second, str) else 0.0
        return value if value >= self.threshold else 0.0

    def highest(self, kind: str | None, difficulty: float) -> float:
        """The most that the node and all below it can pay for a wanted action of type ``kind`` (None: of any)."""
        if kind is not None and self.when is not None and kind not in self.when:
            return 0.0
        own = self.weight * (difficulty if self.scaled else 1.0)
        return own + sum(child.highest(kind, difficulty) for child in self.children)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


class HierarchicalReward:
    """What a tree of nodes pays for an action, >= 0.

    tree:        the nodes below the root. An answer without the form gets 0 for everything.
    form:        what the form itself pays.
    parser:      reads a completion (`JsonActionParser`, or any callable that gives a `ParsedAction`).
    difficulty:  the factor of scaled nodes (`guerdon.rewards.text.difficulty`).
    column:      the column of wanted actions, mappings or JSON objects.

    Logged through ``log_metric``: each node's mean, "valid" (share that has the form), "value_groups" (share of groups
    in which a scaled node paid somebody: without any of these the scaled part teaches nothing), the rationale's length
    in words and the share of different rationales, since confidence bonuses are climbed by short and like ones.

    A row without a wanted action gets None; one that is no action fails ("unparseable").
    Source: Shop-R1 (arXiv 2507.17842), section 3.
    """

    groupwise = False
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        tree: Sequence[Node],
        *,
        form: float = 0.5,
        parser: Callable[[str], ParsedAction] | None = None,
        difficulty: Difficulty | None = None,
        column: str = "solution",
        name: str = "hierarchical",
    ) -> None:
        self.tree, self.form, self.column, self.__name__ = tuple(tree), float(form), column, name
        self.parser = JsonActionParser() if parser is None else parser
        self.difficulty: Difficulty = ConstantDifficulty(1.0) if difficulty is None else difficulty
        self.nodes = [node for top in self.tree for node in top.walk()]
        names = [node.name for node in self.nodes]
        if not names or len(set(names)) < len(names) or "form" in names:
            raise GuerdonError(f"reward {name!r} needs nodes of different names, none of them 'form', got {names}")
        if not (self.form >= 0 and math.isfinite(self.form)):
            raise GuerdonError(f"reward {name!r}: the form pays a finite amount of at least 0, got {form}")
        self.range = (0.0, self.highest()) if self.highest() > 0 else None

    def highest(self, kind: str | None = None) -> float:
        """The most that an action of a type can be paid; of the best paid one where ``kind`` is None."""
        named: set[str | None] = {one for node in self.nodes for one in node.when or ()} or {None}
        kinds = named if kind is None else {kind}
        return self.form + max(sum(node.highest(one, self.difficulty.highest) for node in self.tree) for one in kinds)

    def breakdown(self, completion: Any, wanted: Mapping[str, Any]) -> dict[str, float]:
        """What each node pays for one completion, and "form"; 0 where a node is not reached."""
        parsed = self.parser(completion_text(completion))
        return self._paid(parsed, wanted, self._factor(wanted))

    def scores(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> Scores:
        """N scores with what each node paid as ``parts``."""
        wanted = self._wanted(completions, columns)
        outcomes: list[float | None | Failed] = []
        parts = {name: np.full(len(completions), np.nan) for name in ("form", *(node.name for node in self.nodes))}
        factors = [self._factor(one) if isinstance(one, Mapping) else 0.0 for one in wanted]
        parsed = [self.parser(completion_text(one)) for one in completions]
        seen: list[Mapping[str, Any]] = []
        for row, target in enumerate(wanted):
            if not isinstance(target, Mapping):
                outcomes.append(target)
                continue
            paid = self._paid(parsed[row], target, factors[row])
            for name, value in paid.items():
                parts[name][row] = value
            outcomes.append(min(sum(paid.values()), self.highest()))
            seen.append(target)
        observe = getattr(self.difficulty, "observe", None)
        if callable(observe) and seen:
            observe(seen, [self._met(row, parts) for row, one in enumerate(wanted) if isinstance(one, Mapping)])
        self._log(columns.get("log_metric"), prompts, parsed, parts)
        return Scores.of(outcomes, identity=self.identity(), parts=parts)

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None | Failed]:
        """One outcome a completion. Raises GuerdonError where the column is missing or of another length."""
        return self.scores(prompts, completions, **columns).outcomes()

    def identity(self) -> str:
        """Name, version, and a hash of the tree, the parser and the difficulty's settings."""
        nodes = [_plain(node) for node in self.tree]
        settings = {key: value for key, value in vars(self.difficulty).items() if not key.startswith("_")}
        reader = vars(self.parser) if hasattr(self.parser, "__dict__") else {}
        kind = type(self.difficulty).__name__
        return f"{self.__name__}@{self.version}#{config_hash([nodes, self.form, kind, settings, dict(reader)])}"

    def _factor(self, wanted: Mapping[str, Any]) -> float:
        factor = float(self.difficulty(wanted))
        if not 0 <= factor <= self.difficulty.highest:
            raise GuerdonError(
                f"reward {self.__name__!r}: difficulty {factor} lies outside [0, {self.difficulty.highest}]"
            )
        return factor

    def _paid(self, parsed: ParsedAction, wanted: Mapping[str, Any], factor: float) -> dict[str, float]:
        paid = {name: 0.0 for name in ("form", *(node.name for node in self.nodes))}
        if not parsed.ok:
            return paid
        paid["form"] = self.form
        kind = wanted.get("type")
        open_nodes = list(self.tree)
        while open_nodes:
            node = open_nodes.pop()
            if node.when is not None and kind not in node.when:
                continue
            similarity = node.similarity(parsed.action, wanted)
            paid[node.name] = node.weight * similarity * (factor if node.scaled else 1.0)
            if similarity > 0:
                open_nodes += node.children
        return paid

    def _met(self, row: int, parts: Mapping[str, np.ndarray]) -> bool:
        """Whether a row was a success: a scaled node paid, or where it has none of them, every top node did."""
        scaled = [node.name for node in self.nodes if node.scaled]
        return any(parts[name][row] > 0 for name in scaled) or (
            not scaled and all(parts[node.name][row] > 0 for node in self.tree)
        )

    def _wanted(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Wanted]:
        given = columns.get(self.column)
        if given is None or isinstance(given, str | Mapping) or len(given) != len(completions):
            raise GuerdonError(f"reward {self.__name__!r} needs the column {self.column!r}, one action a completion")
        return [_action(one) for one in given]

    def _log(self, log: Any, prompts: Any, parsed: Sequence[ParsedAction], parts: Mapping[str, np.ndarray]) -> None:
        if not callable(log) or not parsed:
            return
        for name, values in parts.items():
            if np.isfinite(values).any():
                log(f"{self.__name__}/{name}", float(np.nanmean(values)))
        log(f"{self.__name__}/valid", float(np.mean([one.ok for one in parsed])))
        said = [one.rationale for one in parsed if one.ok and one.rationale]
        if said:
            log(f"{self.__name__}/rationale_words", float(np.mean([len(one.split()) for one in said])))
            log(f"{self.__name__}/rationale_distinct", len(set(said)) / len(said))
        scaled = [node.name for node in self.nodes if node.scaled]
        if scaled and prompts is not None:
            groups: dict[str, bool] = {}
            for row, prompt in enumerate(prompts):
                key = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
                groups[key] = groups.get(key, False) or any(parts[name][row] > 0 for name in scaled)
            log(f"{self.__name__}/value_groups", float(np.mean(list(groups.values()))))


def shop_tree(threshold: float = 0.75) -> tuple[Node, ...]:
    """Shop-R1's table 1: the type, then that the arguments are there, then what they say."""
    name_there = Node("name_present", "name", "present", 0.2, when=("click",))
    name_typed = Node("name_present_typed", "name", "present", 0.1, when=("type_and_submit",))
    text_there = Node("text_present", "text", "present", 0.1, when=("type_and_submit",))
    click_name = Node("name", "name", "rouge_l", 1.0, threshold, True, when=("click",))
    typed_name = Node("name_typed", "name", "rouge_l", 0.1, threshold, when=("type_and_submit",))
    typed_text = Node("text", "text", "rouge_l", 1.0, threshold, True, when=("type_and_submit",))
    details = (name_there, name_typed, text_there, click_name, typed_name, typed_text)
    return (Node("type", "type", "exact", 0.3, children=details),)


def shop_r1(
    *,
    dars: float | Difficulty = 1000.0,
    threshold: float = 0.75,
    strict: bool = True,
    column: str = "solution",
    name: str = "shop_r1",
) -> HierarchicalReward:
    """The reward of a simulated shopper's next action: format, type, arguments that are there, and what they say.

    dars:       factor of the long texts, the paper's constant 1000, or a real difficulty.
    threshold:  of ROUGE-L, 0.75, the paper's example. strict: of the parser.
    column:     wanted actions {"type", "name", "text"}; `guerdon.rewards.text.rationale_certainty` has the paper's
                bonus for the rationale, which needs the policy.

    That arguments count only where the type is right is read from the paper's text; its official code is not out
    (UNVERIFIED). Source: Shop-R1 (arXiv 2507.17842), table 1.
    """
    difficulty = ConstantDifficulty(dars) if isinstance(dars, int | float) else dars
    parser = JsonActionParser(SHOP_ACTIONS, strict=strict)
    return HierarchicalReward(
        shop_tree(threshold), form=0.5, parser=parser, difficulty=difficulty, column=column, name=name
    )


def exact_action(*, strict: bool = True, column: str = "solution", name: str = "exact_action") -> HierarchicalReward:
    """1.0 where the whole action is the wanted one, else 0.0: the sparse baseline, and a judge of the others.

    An argument that is empty counts as absent. strict, column: of `shop_r1`.
    """
    parser = JsonActionParser(SHOP_ACTIONS, strict=strict)
    return HierarchicalReward((Node("exact", "", _same_action),), form=0.0, parser=parser, column=column, name=name)


def _same_action(said: Any, wanted: Any) -> float:
    filled = [{key: value for key, value in one.items() if value not in ("", None)} for one in (said, wanted)]
    return float(filled[0] == filled[1])


def _action(given: Any) -> Wanted:
    if given is None or isinstance(given, Mapping):
        return given
    try:
        read = json.loads(given) if isinstance(given, str) else None
    except (ValueError, RecursionError):
        read = None
    return read if isinstance(read, dict) else Failed(f"the wanted action {str(given)[:60]!r} is none", "unparseable")


def _at(action: Any, field: str) -> Any:
    for key in field.split(".") if field else ():
        action = action.get(key) if isinstance(action, Mapping) else None
    return action


def _plain(node: Node) -> list[Any]:
    match: Any = node.match
    if callable(match):
        match = getattr(match, "__qualname__", type(match).__name__)
    when = None if node.when is None else list(node.when)
    own = [node.name, node.field, match, node.weight, node.threshold, node.scaled, when]
    return [*own, [_plain(child) for child in node.children]]
