"""A reward of one's own: guerdon score --reward examples/brevity.py:brevity examples/answers.jsonl"""

from __future__ import annotations

from typing import Any

from guerdon.core.reward import reward


@reward(range=(0.0, 1.0), version="1")
def brevity(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """1 for an empty completion, 0 from 400 characters on."""
    return [max(0.0, 1 - len(text) / 400) for text in completions]
