"""The answer contract between a policy that reasons and a reward that reads it: ``<think>…</think><answer>…</answer>``.

It lives below both rooms because the policy writes it and the reward parses it. Source of the format: RealGen
(arXiv 2512.00473), stage 1. The tags are matched in any letter case, because the paper's figure capitalises them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think>", re.IGNORECASE)
_THINK_OPEN = re.compile(r"<think>", re.IGNORECASE)


def completion_text(completion: Any) -> str:
    """The text of one completion in any of TRL's shapes.

    Args:
        completion: a string, a list of messages ``{"role", "content"}`` (the last one counts; its content is a string
            or a list of ``{"type": "text", "text": ...}`` blocks), or one such message.

    Returns:
        The text; ``""`` when there is none (an empty list, a message without content).
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        return completion_text(completion.get("content") or "")
    if isinstance(completion, (list, tuple)):
        if not completion:
            return ""
        if all(isinstance(block, Mapping) and "text" in block for block in completion):
            return "".join(str(block["text"]) for block in completion)
        return completion_text(completion[-1])
    return ""


def parse_answer(text: str, *, require_think: bool = False) -> str | None:
    """The content of the last ``<answer>`` span, stripped, or ``None`` when the text is malformed.

    Malformed means: no complete span, a last ``<answer>`` that is never closed (a truncated completion does not fall
    back to an earlier draft), an empty span, or - with ``require_think`` - no closed, non-nested ``<think>`` block
    before it or anything but white space after it. A missing *opening* ``<think>`` is accepted, since some chat
    templates put it into the prompt. Linear in the length of the text.

    Args:
        text: one completion.
        require_think: demand the whole format, not just the answer span.

    Source: RealGen card, section 1, item 1 (malformed or empty -> floor). What counts as malformed beyond that is
    UNVERIFIED, since the paper's stage-1 code is not released.
    """
    tags = list(_ANSWER_TAG.finditer(text))
    if len(tags) < 2 or tags[-1].group(1) != "/" or tags[-2].group(1) == "/":
        return None
    opening, closing = tags[-2], tags[-1]
    answer = text[opening.end() : closing.start()].strip()
    if not answer:
        return None
    if require_think:
        if text[closing.end() :].strip():
            return None
        before = text[: opening.start()]
        if len(_THINK_CLOSE.findall(before)) != 1 or len(_THINK_OPEN.findall(before)) > 1:
            return None
        opened, closed = _THINK_OPEN.search(before), _THINK_CLOSE.search(before)
        assert closed is not None
        if opened is not None and (opened.start() > closed.start() or before[: opened.start()].strip()):
            return None
        if before[closed.end() :].strip():
            return None
    return answer
