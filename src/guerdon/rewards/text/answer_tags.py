"""Rewards on the form of a tagged answer, ``<think>…</think><answer>…</answer>``; they never look at its content."""

from __future__ import annotations

from typing import Any

from guerdon.core.answer import completion_text, parse_answer
from guerdon.core.reward import reward

__all__ = ["answer_format", "answer_present", "completion_text", "parse_answer"]


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
