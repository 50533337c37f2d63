"""Rewards on the form of an answer, ``<think>…</think><answer>…</answer>`` or another; never on its content."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from guerdon.core.answer import completion_text, parse_answer
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash
from guerdon.core.reward import reward

__all__ = ["PatternFormat", "answer_format", "answer_present", "completion_text", "parse_answer"]


class PatternFormat:
    """1.0 where a regular expression is found in a completion, else 0.0; dots match ends of lines too.

    pattern: your own, so no completion can choose it; keep it linear. Raises GuerdonError for one that does not
    compile.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "raise"
    version = "1"

    def __init__(self, pattern: str, *, name: str = "pattern_format") -> None:
        try:
            self._pattern = re.compile(pattern, re.DOTALL)
        except re.error as error:
            raise GuerdonError(f"reward {name!r}: {pattern!r} is no regular expression: {error}") from error
        self.__name__ = name

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float]:
        """One of {0, 1} a completion."""
        return [float(self._pattern.search(completion_text(one)) is not None) for one in completions]

    def identity(self) -> str:
        """Name, version, and a hash of the pattern."""
        return f"{self.__name__}@{self.version}#{config_hash([self._pattern.pattern])}"


@reward(name="answer_format", range=(0.0, 1.0), version="1")
def answer_format(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """1.0 where a completion is one think block followed by one non-empty answer and nothing else, else 0.0.

    Args:
        prompts: unused.
        completions: N strings or message lists.

    Returns:
        N scores in {0, 1}. Source: RealGen (arXiv 2512.00473) stage 1, the format term.
    """
    return [float(parse_answer(completion_text(c), require_think=True) is not None) for c in completions]


@reward(name="answer_present", range=(0.0, 1.0), version="1")
def answer_present(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """1.0 where a completion ends in a closed, non-empty ``<answer>`` span, whatever surrounds it, else 0.0.

    Args:
        prompts: unused.
        completions: N strings or message lists.

    Returns:
        N scores in {0, 1}.
    """
    return [float(parse_answer(completion_text(c)) is not None) for c in completions]
