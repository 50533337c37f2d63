"""Subjects whose weakness is known, so that an audit can be checked against it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.core.dialogues import COURTEOUS, RUDE, USES
from guerdon.core.preferences import text_of
from guerdon.rewards.subject import Outcomes

Rule = Callable[[str, str, Any], float | str]
"""(prompt, answer, solution) -> a score, or a problem such as "unparsable: no rating"."""


class Scores:
    """A subject that scores by a rule; counts the rows that it is asked."""

    def __init__(self, rule: Rule, name: str = "rule") -> None:
        self.rule, self.name, self.identity = rule, name, f"{name}@1#0"
        self.modes = frozenset({"score"})
        self.rows = 0

    def score(
        self, conversations: Sequence[Any], *, columns: Mapping[str, Sequence[Any]] | None = None,
        progress: str | None = None,
    ) -> Outcomes:  # fmt: skip
        solutions = (columns or {}).get("solution", [None] * len(conversations))
        self.rows += len(conversations)
        said = [
            self.rule(text_of(one[:-1]), one[-1]["content"], wanted) for one, wanted in zip(conversations, solutions)
        ]
        problems = {row: value for row, value in enumerate(said) if isinstance(value, str)}
        return Outcomes(np.array([np.nan if isinstance(value, str) else value for value in said]), problems)


class Ranks:
    """A subject that only chooses: ``rule(prompt, answers) -> place``, or a problem."""

    def __init__(self, rule: Callable[[str, Sequence[str]], int | str], name: str = "judge") -> None:
        self.rule, self.name, self.identity, self.modes = rule, name, f"{name}@1#0", frozenset({"rank"})

    def rank(self, prompts: Sequence[Any], answers: Sequence[Sequence[str]], **ignored: Any) -> Outcomes:
        said = [self.rule(text_of(prompt), some) for prompt, some in zip(prompts, answers)]
        problems = {row: value for row, value in enumerate(said) if isinstance(value, str)}
        return Outcomes(np.array([np.nan if isinstance(value, str) else float(value) for value in said]), problems)


def as_read(text: str) -> str:
    """What a person reads: code points that look alike, invisible marks, spacing, case and mark-up do not count."""
    plain = unicodedata.normalize("NFKC", text).translate(str.maketrans("асеорхуАВЕНКМОРТХ", "aceopxyABEHKMOPTX"))
    seen = "".join(" " if mark.isspace() else mark for mark in plain if unicodedata.category(mark) != "Cf")
    return " ".join(re.sub(r"[*>`]|^\d+\. ", "", seen).casefold().split())


def true_quality(prompt: str, answer: str, solution: Any) -> float:
    """The embedded dialogues' own truth, for a reader: 2 [right] + [courteous] - [rude]."""
    text = as_read(answer)
    use = next(use for thing, use in USES.items() if thing in prompt)
    courteous, rude = (any(said.casefold() in text for said in some) for some in (COURTEOUS, RUDE))
    return 2.0 * (use in text) + courteous - rude


def stated_last(prompt: str, answer: str, solution: Any) -> float:
    """A strict verifier of "The answer is N." and nothing else."""
    found = re.fullmatch(r"(?:.*\n)?The answer is (-?[\d.]+?)\.?", answer.strip(), re.DOTALL)
    return float(found is not None and float(found[1]) == float(solution))


def last_number(prompt: str, answer: str, solution: Any) -> float:
    """The naive verifier: the last number that stands anywhere."""
    found = re.findall(r"-?\d+(?:\.\d+)?", answer)
    return float(bool(found) and found[-1] == solution)


def mentions(prompt: str, answer: str, solution: Any) -> float:
    """The worst verifier: the solution stands somewhere."""
    return float(solution in answer)
