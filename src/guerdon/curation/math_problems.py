"""Rows of maths problems in the columns that people have, as the columns that a trainer and a verifier want.

    question, answer     GSM8K: a worked answer that ends in ``#### 18``
    problem, solution    MATH: a worked solution with its answer in the last ``\\boxed{...}``
    prompt, solution     guerdon's own, and prompt, answer: the same

Under any of the names a worked text with one of the two marks is accepted, or the answer alone on one line. MATH's mark
may also stand as ``\\fbox{...}`` or ``\\boxed 5``, as it does in some of its rows.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guerdon.core.data import find_source, read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import as_messages
from guerdon.rewards.text.final_answer import verify_answer

__all__ = ["LAYOUTS", "MathProblems", "boxed_answer", "final_answer", "load_math", "plain_worked"]

logger = logging.getLogger(__name__)
LAYOUTS: tuple[tuple[str, str], ...] = (
    ("question", "answer"), ("problem", "solution"), ("prompt", "solution"), ("prompt", "answer"),
)  # fmt: skip
_LONGEST_ANSWER = 200
_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*(?P<brace>\{)|\s+(?P<bare>[^\s{}$\\]{1,40}))")
_MARKS = re.compile(r"<<[^<>\n]{0,200}>>")


@dataclass(frozen=True)
class MathProblems:
    """Rows {"prompt": messages, "solution": the final answer, "worked": the worked text}, and what was left out: why,
    and how many."""

    rows: list[dict[str, Any]]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def load_math(
    data: str | Path,
    *,
    instruction: str = "",
    keep_unverifiable: bool = False,
    skip_bad_rows: bool = False,
    limit: int | None = None,
    out: str | Path | None = None,
    split: str = "train",
) -> MathProblems:
    """Problems from a file or the hub in one of ``LAYOUTS``, one layout a row.

    instruction:        added to each problem on a line of its own, such as how the answer is to be stated.
    keep_unverifiable:  also keep rows whose answer is an expression that the rule verifier cannot compare, for use with
                        another verifier; else they are left out and counted, since a reward could only fail on them.
    skip_bad_rows, limit, out, split:  as `guerdon.core.data.load_rows`; limit is of rows that are read.

    Raises GuerdonError naming together all rows without a problem or a final answer, or where nothing is left.
    """
    source = find_source(data, split)
    rows = read_rows(source, skip_bad_rows=skip_bad_rows, limit=limit, out=out, check=_fault, every_column=True)
    made, left = [], Counter[str]()
    for _, row in rows:
        told, worked = _columns(row)
        answer = final_answer(worked)
        assert answer is not None
        if not keep_unverifiable and not _verifiable(answer):
            left["answer is beyond the rule verifier"] += 1
            continue
        made.append({"prompt": _asked(told, instruction), "solution": answer, "worked": plain_worked(worked)})
    if not made:
        raise GuerdonError(
            f"{source.name} has no problem whose answer the rule verifier can compare ({len(rows)} rows)"
        )
    if left:
        logger.warning("%s: %d of %d problems left out: %s", source.name, left.total(), len(rows), "; ".join(left))
    return MathProblems(made, dict(left))


def final_answer(worked: str) -> str | None:
    """The answer that a worked solution marks: behind its last ``####``, else in its last box, else the one line that
    it is. None where it marks none. Linear in the length."""
    _, mark, tail = worked.rpartition("####")
    if mark:
        return tail.strip().partition("\n")[0].strip() or None
    boxed = boxed_answer(worked)
    if boxed is not None:
        return boxed or None
    alone = worked.strip()
    return alone if alone and "\n" not in alone and len(alone) <= _LONGEST_ANSWER and "boxed" not in alone else None


def boxed_answer(text: str) -> str | None:
    """What stands in the last ``\\boxed{...}`` or ``\\fbox{...}`` of ``text``, braces matched; None without a box or
    where the last one does not close: a truncated text does not fall back to an earlier box."""
    found = None
    for found in _BOX.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    if found is None:
        return None
    if found["bare"] is not None:
        return found["bare"].rstrip(".,;:")
    depth, place = 1, found.end()
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[found.end() : place].strip()
        place += 1
    return None


def plain_worked(worked: str) -> str:
    """A worked text without GSM8K's calculator marks: "16 - 3 = <<16-3=13>>13" becomes "16 - 3 = 13"."""
    return _MARKS.sub("", worked)


def _columns(row: Mapping[str, Any]) -> tuple[Any, str]:
    for told, worked in LAYOUTS:
        if _filled(row.get(told)) and _filled(row.get(worked)):
            return row[told], str(row[worked])
    raise GuerdonError("no columns " + ", ".join("+".join(pair) for pair in LAYOUTS))


def _filled(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None and value != []


def _fault(row: dict[str, Any]) -> str | None:
    try:
        told, worked = _columns(row)
        _asked(told, "")
    except GuerdonError as error:
        return f"{error}; columns: {', '.join(sorted(row)) or '(none)'}"
    except ValueError as error:
        return f"the problem {error}"
    return None if final_answer(worked) is not None else "the solution marks no final answer by #### or \\boxed{...}"


def _asked(told: Any, instruction: str) -> list[dict[str, Any]]:
    # A text is one turn of the user, whatever it says: never read for turns.
    messages = (
        [{"role": "user", "content": told}] if isinstance(told, str) else [dict(one) for one in as_messages(told)]
    )
    if instruction:
        messages[-1]["content"] = f"{messages[-1]['content']}\n{instruction}"
    return messages


def _verifiable(answer: str) -> bool:
    try:
        verify_answer("", answer)
    except GuerdonError:
        return False
    return True
