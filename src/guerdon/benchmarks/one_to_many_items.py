"""Problems with right and wrong solutions: RewardMATH's rows, or anybody's solutions with a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.benchmarks.published_rows import prompt_messages, published_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.json_table import find_table
from guerdon.core.preferences import Message, text_of

__all__ = ["HUB", "OneToManyItem", "OneToManyItems", "load_one_to_many", "rendered_steps"]

TITLE = "RewardMATH"
HUB, SPLIT = "RewardMATH/RewardMATH", "train"
PUBLISHED = ("problem", "eval_solution", "solution_type")
RATED = ("prompt", "completion", "label")
_PUBLISHED_MORE = ("answer", "solution_reference", "subject", "level", "problem_id", "id")
_RATED_MORE = ("answer", "solution", "model", "subset", "question_id", "problem_id")


@dataclass(frozen=True)
class OneToManyItem:
    """A problem with its solutions, the right ones first.

    right:    how many are right. correct: the number of the right one that is put against the wrong ones.
    places:   where each solution stood among the problem's rows of the data.
    steps:    steps of each solution: the lines of a text, where the data hold no list.
    tags:     who wrote each. solution: the reference answer, "" where the data have none.
    """

    id: str
    prompt: list[Message]
    answers: tuple[str, ...]
    right: int
    correct: int = 0
    places: tuple[int, ...] = ()
    steps: tuple[tuple[str, ...], ...] = ()
    tags: tuple[str, ...] = ()
    solution: str = ""
    subset: str = "all"

    @property
    def compared(self) -> list[int]:
        """Numbers of the solutions that are compared: the right one that counts, then the wrong ones."""
        return [self.correct, *range(self.right, len(self.answers))]

    @property
    def complete(self) -> bool:
        """Whether there is a right solution and a wrong one."""
        return 0 < self.right < len(self.answers)


@dataclass(frozen=True)
class OneToManyItems:
    """Items, and the problems that are none: why, and how many.

    one_sided: those of them whose solutions are all right or all wrong; best-of-n needs them too.
    """

    items: list[OneToManyItem]
    name: str = HUB
    published: bool = True
    left_out: Mapping[str, int] = field(default_factory=dict)
    one_sided: Sequence[OneToManyItem] = ()

    def __len__(self) -> int:
        return len(self.items)


def rendered_steps(steps: Sequence[str]) -> str:
    """A list of steps as RewardMATH shows it to reward models: numbered lines."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def load_one_to_many(
    data: str | Path | None = None, *, seed: int = 0, skip_bad_rows: bool = False, out: Path | None = None
) -> OneToManyItems:
    """Items from the hub's RewardMATH, or from a file in one of two layouts, a row a solution:

    problem, eval_solution (list of steps, or text), solution_type (chosen or rejected)   RewardMATH's, with the columns
                             answer, solution_reference, subject, level, problem_id where they are there
    prompt, completion, label (true or false)   sampled solutions, any number of them right; with answer or solution
                             (the reference), model, subset, question_id where they are there

    Rows of one problem (by problem_id or question_id, else by its text) become an item. Of several right solutions the
    one that counts is drawn by ``seed``. UNVERIFIED: the hub's columns and split are taken to be those of the sample in
    the paper's repository. Raises GuerdonError naming together all rows that cannot be used.
    """
    published = data is None or _layout(data) == PUBLISHED
    required, optional = (PUBLISHED, _PUBLISHED_MORE) if published else (RATED, _RATED_MORE)
    rows = published_rows(
        TITLE if published else "one against many", data, hub=HUB, split=SPLIT, required=required, optional=optional,
        check=_published_fault if published else _rated_fault, skip_bad_rows=skip_bad_rows, out=out,
    )  # fmt: skip
    groups: dict[str, list[dict[str, Any]]] = {}
    for _, row in rows:
        groups.setdefault(_problem(row), []).append(row)
    rng = np.random.default_rng(seed)
    made = [_item(name, members, published, rng) for name, members in groups.items()]
    left = Counter("no right solution" if not one.right else "no wrong solution" for one in made if not one.complete)
    items = [one for one in made if one.complete]
    name = HUB if data is None else str(data)
    if not items:
        raise GuerdonError(f"{name} holds no problem with a right and a wrong solution ({len(made)} problems)")
    return OneToManyItems(items, name, published, dict(left), [one for one in made if not one.complete])


def _layout(data: str | Path) -> tuple[str, ...]:
    source = find_table(data, SPLIT)
    columns = set(source.columns)
    if not columns:
        first = next((row for row in source.rows(()) if isinstance(row, tuple)), None)
        columns = set(first[1]) if first is not None else set()
    shared = {layout: len(columns & set(layout)) for layout in (PUBLISHED, RATED)}
    return max(shared, key=lambda layout: shared[layout])


def _problem(row: Mapping[str, Any]) -> str:
    known = next((row[name] for name in ("problem_id", "question_id") if row.get(name) is not None), None)
    return str(known) if known is not None else text_of(prompt_messages(row.get("problem", row.get("prompt"))))


def _item(name: str, rows: list[dict[str, Any]], published: bool, rng: np.random.Generator) -> OneToManyItem:
    good = [row["solution_type"] == "chosen" if published else bool(row["label"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: not good[place])
    right = sum(good)
    texts, steps = zip(*(_solution(rows[place], published) for place in order), strict=True)
    first = rows[0]
    reference = next((row[key] for row in rows for key in ("solution", "answer") if row.get(key)), "")
    return OneToManyItem(
        id=name,
        prompt=prompt_messages(first["problem" if published else "prompt"]),
        answers=texts,
        right=right,
        correct=int(rng.integers(right)) if right > 1 else 0,
        places=tuple(order),
        steps=steps,
        tags=tuple(str(rows[place].get("solution_reference" if published else "model") or "") for place in order),
        solution=str(reference),
        subset=str(first.get("subject" if published else "subset") or "all"),
    )


def _solution(row: Mapping[str, Any], published: bool) -> tuple[str, tuple[str, ...]]:
    """The text that is shown, and its steps."""
    given = row["eval_solution"] if published else row["completion"]
    if isinstance(given, list | tuple) and published:
        steps = tuple(str(step) for step in given)
        return rendered_steps(steps), steps
    text = given if isinstance(given, str) else text_of(given)
    return text, tuple(line for line in text.splitlines() if line.strip())


def _published_fault(row: dict[str, Any]) -> str | None:
    if not isinstance(row["problem"], str):
        return "column 'problem' must be text"
    steps = row["eval_solution"]
    if not isinstance(steps, str) and not (isinstance(steps, list | tuple) and all(isinstance(s, str) for s in steps)):
        return "column 'eval_solution' must be a list of steps or a text"
    if row["solution_type"] not in ("chosen", "rejected"):
        return f"column 'solution_type' must be chosen or rejected, got {row['solution_type']!r}"
    return None


def _rated_fault(row: dict[str, Any]) -> str | None:
    if row["label"] not in (True, False, 0, 1):
        return f"column 'label' must be true or false, got {row['label']!r}"
    try:
        prompt_messages(row["prompt"])
        if not isinstance(row["completion"], str):
            prompt_messages(row["completion"])
    except ValueError as error:
        return str(error)
    return None
