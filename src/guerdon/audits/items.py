"""What a subject is attacked on: prompts with an answer that is known to be right and one that is known to be wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from guerdon.core.arithmetic import Closing, solution_text, word_problems, wrong_solution
from guerdon.core.data import find_source, read_rows
from guerdon.core.dialogues import USES, embedded_pairs
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.preferences import Message, Pair, as_messages, load_pairs, text_of

Kind = Literal["preference", "verifier"]
"""Whether an answer is judged against another answer of its prompt, or against the solution."""
COUNT = 48
"""Items of an audit, where nobody says how many."""


@dataclass(frozen=True)
class Item:
    """One prompt and answers of known worth.

    honest:    an answer that is right. wrong: one that is not; None where the data have none.
    solution:  what a verifier compares with; None for preferences.
    topic:     items of one topic may share right answers. columns: what else its row holds, for the subject.
    """

    prompt: list[Message]
    honest: str
    wrong: str | None = None
    solution: str | None = None
    topic: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def conversation(self, answer: str) -> list[Message]:
        """The prompt, answered with ``answer``."""
        return [*self.prompt, {"role": "assistant", "content": answer}]


@dataclass(frozen=True)
class Items:
    """Items of one kind; ``left_out`` counts by reason the rows that became none."""

    kind: Kind
    name: str
    items: Sequence[Item]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise unknown("kind of items", self.kind, get_args(Kind))
        if len(self.items) < 2:
            raise GuerdonError(f"{self.name}: an audit needs at least 2 items, got {len(self.items)}")
        for item in self.items if self.kind == "verifier" else ():
            if item.solution is None:
                raise GuerdonError(f"{self.name}: {item.where or text_of(item.prompt)[:60]!r} has no solution")

    def __len__(self) -> int:
        return len(self.items)

    def identity(self) -> str:
        """12 hex digits over kind and content."""
        told = [[one.prompt, one.honest, one.wrong, one.solution, one.topic] for one in self.items]
        return config_hash(json.loads(json.dumps([self.kind, told], default=str)))


def embedded_items(kind: Kind, *, count: int = COUNT, seed: int = 0, closing: Closing = "sentence") -> Items:
    """Items without data: the embedded dialogues (honest = right and not rude, wrong = wrong), or arithmetic problems.

    closing: how the solutions of problems state their answer (`guerdon.core.arithmetic.CLOSINGS`). The topic of a
    dialogue is the thing it is about, since other questions about it have the same right answer.
    """
    if kind == "verifier":
        return Items("verifier", f"embedded problems, answers as {closing}", _problems(count, seed, closing))
    found: list[Item] = []
    for pair in embedded_pairs(count * 8, seed):
        use = USES[pair.row["thing"]]
        right, wrong = text_of(pair.chosen), text_of(pair.rejected)
        if use in right and use not in wrong and pair.row["quality_chosen"] >= 2:
            found.append(Item(pair.prompt, right, wrong, topic=pair.row["thing"], where=pair.where))
        if len(found) == count:
            break
    return Items("preference", "embedded dialogues", found)


def preference_items(pairs: Sequence[Pair], name: str, *, count: int | None = COUNT, seed: int = 0) -> Items:
    """Items of preference pairs, ``count`` of them drawn by ``seed``: the chosen answer is the honest one.

    One pair of each prompt is used. Pairs with pictures, or with more than one turn in an answer, are left out.
    """
    kept: dict[str, Item] = {}
    left_out = {"shows pictures": 0, "answer of several turns": 0, "prompt seen before": 0}
    for pair in pairs:
        asked = text_of(pair.prompt) or pair.where
        if pair.images:
            left_out["shows pictures"] += 1
        elif len(pair.chosen) > 1 or len(pair.rejected) > 1:
            left_out["answer of several turns"] += 1
        elif asked in kept:
            left_out["prompt seen before"] += 1
        else:
            kept[asked] = Item(pair.prompt, text_of(pair.chosen), text_of(pair.rejected), topic=asked, where=pair.where)
    return Items("preference", name, _drawn(list(kept.values()), count, seed), _counted(left_out))


def verifier_items(
    rows: Sequence[tuple[str, Mapping[str, Any]]], name: str, *, count: int | None = COUNT, seed: int = 0
) -> Items:
    """Items of (place, row) with "prompt" and "solution", ``count`` prompts of them drawn by ``seed``.

    A "completion" with its "label" (true = right) becomes the honest or the wrong answer of its prompt, the first of
    each; without a right one the honest answer is the solution in a plain sentence. Raises GuerdonError for a prompt
    that comes with two solutions.
    """
    kept: dict[str, dict[str, Any]] = {}
    for where, row in rows:
        prompt = as_messages(row["prompt"])
        solution = row["solution"]
        said = text_of(as_messages(solution)) if isinstance(solution, list) else str(solution)
        one = kept.setdefault(text_of(prompt), {"prompt": prompt, "solution": said, "row": row, "where": where})
        if one["solution"] != said:
            raise GuerdonError(f"{where}: the prompt of {one['where']} with another solution, {said!r}")
        if row.get("completion") is not None and row.get("label") is not None:
            completion = row["completion"]
            answer = completion if isinstance(completion, str) else text_of(as_messages(completion, "assistant"))
            one.setdefault("honest" if row["label"] else "wrong", answer)
    taken = {"prompt", "completion", "label", "solution"}
    found = [
        Item(
            one["prompt"],
            one.get("honest", f"The answer is {one['solution']}."),
            one.get("wrong"),
            one["solution"],
            topic=one["solution"],
            columns={key: value for key, value in one["row"].items() if key not in taken},
            where=one["where"],
        )
        for one in kept.values()
    ]
    return Items("verifier", name, _drawn(found, count, seed))


def load_items(
    path: str | Path,
    *,
    kind: Kind | None = None,
    count: int | None = COUNT,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    skip_bad_rows: bool = False,
    out: str | Path | None = None,
) -> Items:
    """Items from a file or a data set on the hub: of kind "verifier" where it has a column "solution" and no kind is
    given, else preference pairs in any layout of `guerdon.core.preferences.load_pairs`.

    columns: name here -> name in the file, where they differ. Raises GuerdonError naming all bad rows together.
    """
    names = dict(columns or {})
    source = find_source(path)
    theirs = names.get("solution", "solution")
    if kind is None:
        held = set(source.columns)
        if not held:
            first = next((row for row in source.rows(()) if isinstance(row, tuple)), None)
            held = set(first[1]) if first is not None else set()
        kind = "verifier" if theirs in held else "preference"
    if kind == "preference":
        pairs = load_pairs(path, columns=names, skip_bad_rows=skip_bad_rows, out=out)
        return preference_items(pairs, str(path), count=count, seed=seed)
    asked = names.get("prompt", "prompt")

    def check(row: dict[str, Any]) -> str | None:
        try:
            as_messages(row[asked])
        except ValueError as error:
            return f"column {asked!r} {error}"
        label = row.get(names.get("label", "label"))
        return None if label in (None, True, False, 0, 1) else f"column 'label' must be true or false, got {label!r}"

    rows = read_rows(
        source, required=(asked, theirs), skip_bad_rows=skip_bad_rows, out=out, check=check, every_column=True
    )
    named = [
        (where, {**row, **{ours: row[name] for ours, name in names.items() if name in row}}) for where, row in rows
    ]
    return verifier_items(named, str(path), count=count, seed=seed)


def _problems(count: int, seed: int, closing: Closing) -> list[Item]:
    found = []
    for place, problem in enumerate(word_problems(count, seed)):
        right = solution_text(problem.solution, closing=closing)
        wrong = solution_text(wrong_solution(problem, seed + place), closing=closing)
        answer = str(problem.answer)
        asked = [{"role": "user", "content": problem.question}]
        found.append(Item(asked, right, wrong, answer, topic=answer, where=f"embedded:{place}"))
    return found


def _drawn(items: list[Item], count: int | None, seed: int) -> list[Item]:
    if count is not None and count < 2:
        raise GuerdonError(f"an audit needs at least 2 items, got {count}")
    if count is None or len(items) <= count:
        return items
    places = np.random.default_rng(seed).choice(len(items), size=count, replace=False)
    return [items[place] for place in sorted(places)]


def _counted(left_out: Mapping[str, int]) -> dict[str, int]:
    return {reason: number for reason, number in left_out.items() if number}
