"""Answers of one or several policies to the same prompts, from a file or sampled on the spot."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from guerdon.core.data import read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.json_table import find_table
from guerdon.core.preferences import Message, as_messages
from guerdon.core.progress import progress as progress_bar

__all__ = ["BASE", "AnswerSet", "Sampled", "load_answers", "sampled_answers"]

BASE = "base"
_OWN = ("prompt", "completion", "completions", "policy", "kl", "log_prob", "reference_log_prob", "id")


@dataclass(frozen=True)
class AnswerSet:
    """One policy's answers to one prompt.

    kl: nats of each answer, log pi - log pi_ref or an exact divergence along it; None where the data do not say.
    columns: the data's other columns, for rewards that need them. where: ``file:row`` of the first.
    """

    policy: str
    prompt: list[Message]
    answers: tuple[str, ...]
    kl: tuple[float, ...] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def key(self) -> str:
        """What answers to one prompt have in common."""
        return json.dumps(self.prompt, sort_keys=True, ensure_ascii=False, default=str)


def load_answers(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    skip_bad_rows: bool = False,
    limit: int | None = None,
    out: Path | None = None,
) -> list[AnswerSet]:
    """Answers from rows with ``prompt`` and ``completions`` (a list) or ``completion`` (one; rows of one prompt join).

    Beside them: ``policy``, the name of who answered (none: all are the base's), and, for policies other than the base,
    the nats of each answer: ``kl``, or ``log_prob`` and ``reference_log_prob``. The first policy of the file is the
    base. Columns that are the same in all rows of a prompt are passed on to rewards.

    columns: name here -> name in the file. The others as in `guerdon.core.data.load_rows`. Raises GuerdonError naming
    together all rows that cannot be used.
    """
    names = dict(columns or {})

    def named(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, **{ours: row[theirs] for ours, theirs in names.items() if theirs in row}}

    def check(raw: dict[str, Any]) -> str | None:
        row = named(raw)
        try:
            as_messages(row["prompt"], "user")
        except ValueError as error:
            return f"column 'prompt' {error}"
        listed = row.get("completions", row.get("completion"))
        answers = listed if isinstance(listed, list) else [listed]
        if not answers or not all(isinstance(one, str) and one.strip() for one in answers):
            return "columns 'completion' and 'completions' hold no answer that is text"
        kl = _nats(row)
        if kl is not None and len(kl) != len(answers):
            return f"{len(answers)} answers come with the nats of {len(kl)}"
        if kl is not None and not all(isinstance(one, float) and math.isfinite(one) for one in kl):
            return "kl, log_prob and reference_log_prob must be finite numbers"
        return None

    rows = read_rows(
        find_table(path), required=(names.get("prompt", "prompt"),), skip_bad_rows=skip_bad_rows, out=out, check=check,
        every_column=True,
    )  # fmt: skip
    groups: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for where, raw in rows:
        row = named(raw)
        prompt = json.dumps(row["prompt"], sort_keys=True, ensure_ascii=False, default=str)
        groups.setdefault((str(row.get("policy") or BASE), prompt), []).append((where, row))
    found = [_joined(policy, members) for (policy, _), members in groups.items()]
    if limit is None:
        return found
    kept = set(list(dict.fromkeys(one.key for one in found))[:limit])
    return [one for one in found if one.key in kept]


def _nats(row: Mapping[str, Any]) -> list[Any] | None:
    if row.get("kl") is not None:
        given = row["kl"] if isinstance(row["kl"], list) else [row["kl"]]
        return [float(one) if isinstance(one, int | float) and not isinstance(one, bool) else None for one in given]
    own, reference = row.get("log_prob"), row.get("reference_log_prob")
    if own is None or reference is None:
        return None
    sides = [one if isinstance(one, list) else [one] for one in (own, reference)]
    if len(sides[0]) != len(sides[1]):
        return []
    numbers = all(isinstance(one, int | float) for side in sides for one in side)
    return [float(a - b) if numbers else None for a, b in zip(*sides)]


def _joined(policy: str, members: Sequence[tuple[str, dict[str, Any]]]) -> AnswerSet:
    answers: list[str] = []
    nats: list[float] = []
    for _, row in members:
        listed = row.get("completions", row.get("completion"))
        answers += listed if isinstance(listed, list) else [str(listed)]
        nats += _nats(row) or []
    first = members[0][1]
    same = {
        name: value for name, value in first.items()
        if name not in _OWN and all(row.get(name) == value for _, row in members)
    }  # fmt: skip
    kl = tuple(nats) if len(nats) == len(answers) else None
    return AnswerSet(policy, as_messages(first["prompt"], "user"), tuple(answers), kl, same, members[0][0])


class Sampled(Protocol):
    """A policy that says how far it is from the base: ``policy.samples(prompts, seed) -> (texts, nats)``, one each."""

    name: str

    def samples(self, prompts: Sequence[str], seed: int) -> tuple[list[str], list[float]]: ...


def sampled_answers(
    policies: Sequence[Sampled], prompts: Sequence[str], *, each: Sequence[int], seed: int = 0, out: Path | None = None
) -> list[AnswerSet]:
    """``each[k]`` answers of policy k to every prompt, kept in ``out``/answers.jsonl policy by policy.

    A second call with the same prompts, numbers and seed goes on after the last policy that was finished. Raises
    GuerdonError for no prompts, a prompt given twice, or a file of other samples.
    """
    if not prompts or len(each) != len(policies) or min(each) < 1:
        raise GuerdonError(f"{len(policies)} policies need prompts and as many numbers of answers >= 1, got {each}")
    twice = next((prompt for prompt, count in Counter(prompts).items() if count > 1), None)
    if twice is not None:
        raise GuerdonError(f"the prompt {twice[:60]!r} is given twice")
    kept = _Kept(None if out is None else out / "answers.jsonl", {"seed": seed, "prompts": len(prompts)})
    found: list[AnswerSet] = []
    for policy, count in progress_bar(list(zip(policies, each, strict=True)), "sampling answers"):
        key = {"policy": policy.name, "each": count, "first": prompts[0]}
        rows = kept.get(key)
        if rows is None:
            texts, nats = policy.samples([prompt for prompt in prompts for _ in range(count)], seed)
            rows = [
                {"answers": texts[at : at + count], "kl": nats[at : at + count]}
                for at in range(0, len(prompts) * count, count)
            ]
            kept.put(key, rows)
        for prompt, row in zip(prompts, rows, strict=True):
            talk = as_messages(prompt, "user")
            found.append(AnswerSet(policy.name, talk, tuple(row["answers"]), tuple(map(float, row["kl"]))))
    return found


class _Kept:
    """What was sampled already, a line a policy."""

    def __init__(self, path: Path | None, head: dict[str, Any]) -> None:
        self.path, self.head = path, head
        self.lines = list(self._read())

    def _read(self) -> Iterator[dict[str, Any]]:
        if self.path is None or not self.path.exists():
            return
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], 1):
            try:
                value = json.loads(line)
            except ValueError:
                raise GuerdonError(f"{self.path}:{number} is not a line of answers; choose another --out") from None
            if any(value.get(key) != wanted for key, wanted in self.head.items()):
                where = f"{self.path}:{number}"
                raise GuerdonError(f"{where} was sampled with another seed or prompts; choose another --out")
            yield value

    def get(self, key: dict[str, Any]) -> list[dict[str, Any]] | None:
        return next((line["rows"] for line in self.lines if line["key"] == key), None)

    def put(self, key: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(json.dumps({**self.head, "key": key, "rows": rows}, ensure_ascii=False).encode() + b"\n")
