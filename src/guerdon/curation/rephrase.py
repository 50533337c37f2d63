"""A second wording for each question, by a chat model: the prompt, a strict parser, and rows that stay aligned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.models.chat import Chat

__all__ = ["Rephrased", "parse_rewrite", "rephrase", "rephrasing_prompt"]

START, END, ORIGINAL, REWRITE = "### RESULT_START", "### RESULT_END", "ORIGINAL:", "REWRITE:"
_LONGEST = 20_000

_ASKING = f"""Tell the following mathematics problem again, as another teacher would set it.

- Use other words and sentences, and another everyday setting where the problem has one.
- Keep every number, relation and unit that the solution depends on; the solution must not change.
- Keep the difficulty: give no hint, leave no condition out, and add none.
- Ask for the same quantity, in the same form.
- Do not solve the problem.

Reply with exactly this and nothing else:
{START}
{ORIGINAL} <the problem as given>
{REWRITE} <the problem told again>
{END}

The problem:
"""


@dataclass(frozen=True)
class Rephrased:
    """Rows and their rewrites, aligned row by row, and how many were dropped and why."""

    originals: list[dict[str, Any]]
    rewrites: list[dict[str, Any]]
    dropped: Mapping[str, int] = field(default_factory=dict)


def rephrasing_prompt(question: str) -> str:
    """The request for a second wording of ``question``; the words are ours, the frame of the reply is the paper's."""
    return _ASKING + question


def parse_rewrite(reply: str) -> str | Failed:
    """The rewrite in a reply, or Failed("unparseable"): the markers once each and in order, and one text after REWRITE.

    Stricter than the reference code, which takes the text between the first markers and splits it once.
    Source: Co-Reward (arXiv 2508.00410), appendix C.
    """
    if len(reply) > 2 * _LONGEST:
        return Failed(f"a reply of {len(reply)} characters", "unparseable")
    if reply.count(START) != 1 or reply.count(END) != 1:
        return Failed("the reply does not hold each marker once", "unparseable")
    before, _, rest = reply.partition(START)
    body, ended, _ = rest.partition(END)
    if not ended:
        return Failed("the markers stand in the wrong order", "unparseable")
    if body.count(REWRITE) != 1 or not body.strip().startswith(ORIGINAL):
        return Failed(f"there must be one {ORIGINAL} and then one {REWRITE} between the markers", "unparseable")
    told = body.partition(REWRITE)[2].strip()
    return told or Failed("the rewrite is empty", "unparseable")


def rephrase(
    rows: Sequence[Mapping[str, Any]],
    chat: Chat,
    *,
    question: str = "question",
    temperature: float = 0.7,
    seed: int = 0,
) -> Rephrased:
    """Each row with a second row that differs in its question only; a failure drops both, so that they stay aligned.

    question: the column. temperature: 0.7 as in the paper (which adds top_p 0.8; a `Chat` has no such setting).
    Dropped and counted: failed calls by kind, replies that do not parse, rewrites that repeat the question ("same").
    Whether a rewrite keeps the answer cannot be seen here: check it with votes or a verifier before training.
    Raises GuerdonError for a row without the question.
    """
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = []
    dropped: Counter[str] = Counter()
    for number, row in enumerate(rows):
        asked = row.get(question)
        if not isinstance(asked, str) or not asked.strip():
            raise GuerdonError(f"row {number} has no text in the column {question!r}")
        message = {"role": "user", "content": rephrasing_prompt(asked)}
        reply = chat([message], temperature=temperature, seed=seed + number)
        told = reply if isinstance(reply, Failed) else parse_rewrite(reply)
        if isinstance(told, Failed):
            dropped[told.kind] += 1
        elif " ".join(told.casefold().split()) == " ".join(asked.casefold().split()):
            dropped["same"] += 1
        else:
            kept.append((dict(row), {**row, question: told}))
    return Rephrased([one for one, _ in kept], [other for _, other in kept], dict(dropped))
