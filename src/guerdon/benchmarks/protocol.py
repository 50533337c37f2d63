"""How a benchmark asks a subject: every row once, each row's outcome written down, and taken up again where it stopped.

``rows.jsonl`` begins with a line that says who answered what; each further line is one row:
``{"id", "key", "values", "problems", ...}``. It is a log: of two lines for one row the later one counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Message
from guerdon.core.progress import progress as progress_bar
from guerdon.rewards.outcomes import Outcomes, problem_kind
from guerdon.rewards.subject import Subject

__all__ = ["ROWS", "Answer", "Question", "RowOutcome", "ranks_only", "run_rows"]

ROWS = "rows.jsonl"
VERSION = 1
ROWS_AT_ONCE = 512
Answer: TypeAlias = str | list[Message]


@dataclass(frozen=True)
class Question:
    """One row of a benchmark: a prompt and the answers to it.

    id:       its name in the data, unique within its subset.
    answers:  each a text, or the messages that follow the prompt.
    columns:  what else the subject is told: each column is passed on with one entry an answer. Names beginning with
              "row_" and "answer_" are taken.
    order:    for a subject that ranks: the numbers of the answers in the order in which they are shown. None: the
              answers are scored one by one.
    """

    id: str
    prompt: list[Message]
    answers: tuple[Answer, ...]
    subset: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[int, ...] | None = None

    def conversations(self) -> list[list[Message]]:
        """The prompt with each of the answers."""
        return [[*self.prompt, *_messages(answer)] for answer in self.answers]

    def key(self) -> str:
        """12 hex digits over all that is asked."""
        told = [self.prompt, list(self.answers), self.order, dict(self.columns)]
        return sha256(json.dumps(told, sort_keys=True, default=_plain).encode("utf-8", "surrogatepass")).hexdigest()[
            :12
        ]


@dataclass(frozen=True)
class RowOutcome:
    """What a subject said to one `Question`.

    values:    float64 [answers]; NaN where there is no score, and everywhere for a ranked question.
    choice:    the best answer's number, for a ranked question that was decided; else None.
    problems:  answer -> why it has no score; a ranked question that was not decided has its problem at -1.
    details:   what else was kept: a judge's replies, by answer.
    """

    values: NDArray[np.float64]
    choice: int | None = None
    problems: Mapping[int, str] = field(default_factory=dict)
    details: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.problems

    def kinds(self) -> list[str]:
        """The kinds of its problems, one a problem."""
        return [problem_kind(problem) for problem in self.problems.values()]


def ranks_only(subject: Subject) -> bool:
    """Whether the subject is to be asked for the best of several answers, not for scores."""
    return "rank" in subject.modes and not subject.modes & {"score", "rate"}


def run_rows(
    subject: Subject,
    questions: Sequence[Question],
    out: Path | None = None,
    *,
    benchmark: str,
    settings: Mapping[str, Any] | None = None,
    file: str = ROWS,
    progress: bool = True,
) -> list[RowOutcome]:
    """Put every question to the subject once: one outcome a question, in order.

    out:        folder of ``file``, where outcomes are kept as they come; a second call goes on there. None: kept
                nowhere. Rows that failed ("failed: ...", such as an endpoint that was away) are asked again; replies
                that could not be read are outcomes and stay.
    benchmark, settings:  what beside the subject decides the outcomes; a file made with others is refused.

    Rows are asked in blocks of the subject's ``rows_at_once`` that begin at the same rows every time, so that a run
    that was interrupted gives the same numbers as one that was not.

    Raises GuerdonError for two questions of one id in one subset, and for a file of another subject or benchmark.
    """
    names = [(question.subset, question.id) for question in questions]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise GuerdonError(f"{benchmark}: two rows have the id {twice[1]!r} in subset {twice[0]!r}")
    head = {"benchmark": benchmark, "version": VERSION, "subject": subject.identity, "settings": dict(settings or {})}
    done: dict[int, RowOutcome] = {}
    log: _Log | None = None
    if out is not None:
        log = _Log(out / file, head)
        done = log.read(questions)
    size = max(1, int(getattr(subject, "rows_at_once", ROWS_AT_ONCE)))
    todo = [row for row in range(len(questions)) if row not in done]
    blocks: dict[int, list[int]] = {}
    for row in todo:
        blocks.setdefault(row // size, []).append(row)
    bar = progress_bar(len(questions), f"{benchmark}: {subject.name}") if progress and todo else None
    try:
        if bar is not None:
            bar.__enter__()
            bar.advance(len(done))
        for rows in blocks.values():
            found = _ask(subject, [questions[row] for row in rows])
            done.update(zip(rows, found, strict=True))
            if log is not None:
                log.write([(questions[row], done[row]) for row in rows])
            if bar is not None:
                bar.advance(len(rows))
    finally:
        if log is not None:
            log.close()
        if bar is not None:
            bar.__exit__(None, None, None)
    return [done[row] for row in range(len(questions))]


def _ask(subject: Subject, questions: Sequence[Question]) -> list[RowOutcome]:
    scored = [place for place, question in enumerate(questions) if question.order is None]
    ranked = [place for place, question in enumerate(questions) if question.order is not None]
    found: dict[int, RowOutcome] = {}
    if scored:
        asked = [questions[place] for place in scored]
        conversations = [conversation for question in asked for conversation in question.conversations()]
        outcomes = subject.score(conversations, columns=_columns(asked))
        _check(subject, outcomes, len(conversations))
        start = 0
        for place, question in zip(scored, asked, strict=True):
            stop = start + len(question.answers)
            found[place] = RowOutcome(
                outcomes.values[start:stop],
                None,
                {row - start: outcomes.problems[row] for row in range(start, stop) if row in outcomes.problems},
                {row - start: outcomes.details[row] for row in range(start, stop) if row in outcomes.details},
            )
            start = stop
    if ranked:
        asked = [questions[place] for place in ranked]
        shown = [[question.answers[number] for number in question.order or ()] for question in asked]
        rank: Any = getattr(subject, "rank", None)
        if not callable(rank):
            raise GuerdonError(f"{subject.name} gives scores and cannot be asked to rank")
        outcomes = rank([question.prompt for question in asked], shown)
        _check(subject, outcomes, len(asked))
        for row, (place, question) in enumerate(zip(ranked, asked, strict=True)):
            choice = None
            problems = {-1: outcomes.problems[row]} if row in outcomes.problems else {}
            if not problems:
                # What was named is a place among those shown; what counts is which answer stood there.
                choice = (question.order or ())[int(outcomes.values[row])]
            details = {-1: outcomes.details[row]} if row in outcomes.details else {}
            found[place] = RowOutcome(np.full(len(question.answers), np.nan), choice, problems, details)
    return [found[place] for place in range(len(questions))]


def _check(subject: Subject, outcomes: Outcomes, rows: int) -> None:
    if len(outcomes.values) != rows:
        raise GuerdonError(f"{subject.name} gave {len(outcomes.values)} outcomes for {rows} rows")


def _columns(questions: Sequence[Question]) -> dict[str, list[Any]]:
    names = sorted({name for question in questions for name in question.columns})
    columns: dict[str, list[Any]] = {name: [] for name in names}
    own: dict[str, list[Any]] = {
        "row_id": [], "answer_index": [], "answer_count": [], "subset": [], "group_ids": [],
    }  # fmt: skip
    for number, question in enumerate(questions):
        count = len(question.answers)
        for name in names:
            columns[name] += [question.columns.get(name)] * count
        own["row_id"] += [question.id] * count
        own["answer_index"] += list(range(count))
        own["answer_count"] += [count] * count
        own["subset"] += [question.subset] * count
        own["group_ids"] += [number] * count  # two rows of one prompt are two groups
    return {**columns, **own}


def _messages(answer: Answer) -> list[Message]:
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)


def _plain(value: Any) -> str:
    """What is no JSON, as text that is the same in every run: pictures and arrays by their bytes."""
    return sha256(value.tobytes()).hexdigest()[:16] if hasattr(value, "tobytes") else str(value)


class _Log:
    """The file of outcomes: opened once for reading and once for appending."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path, self.head = path, dict(head)
        self._file: IO[str] | None = None

    def read(self, questions: Sequence[Question]) -> dict[int, RowOutcome]:
        """Outcomes that need not be asked again, by row. Cuts off a last line that was not written to its end."""
        if not self.path.exists():
            return {}
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        lines = [self._line(number, line) for number, line in enumerate(whole.splitlines(), 1)]
        if not lines:
            return {}
        self._compare(lines[0])
        rows = {(question.subset, question.id): row for row, question in enumerate(questions)}
        found: dict[int, RowOutcome] = {}
        for number, line in enumerate(lines[1:], 2):
            try:
                row = rows.get((line["subset"], line["id"]))
                if row is None:
                    continue  # asked about with another --limit
                if line["key"] != questions[row].key():
                    where = f"{self.path}:{number}"
                    raise GuerdonError(f"{where} answers another row of id {line['id']!r}; choose another --out")
                outcome = _from_line(line)
            except (KeyError, TypeError, ValueError) as error:
                raise GuerdonError(f"{self.path}:{number} is not a row of results; choose another --out") from error
            found[row] = outcome
        return {row: outcome for row, outcome in found.items() if "failed" not in outcome.kinds()}

    def write(self, outcomes: Iterable[tuple[Question, RowOutcome]]) -> None:
        """Append outcomes."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists() or not self.path.stat().st_size
            self._file = self.path.open("a", encoding="utf-8")
            if fresh:
                self._file.write(json.dumps(self.head, ensure_ascii=False, sort_keys=True) + "\n")
        self._file.write("".join(_to_line(question, outcome) for question, outcome in outcomes))
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _line(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise GuerdonError(f"{self.path}:{number} is not a row of results; choose another --out")
        return value

    def _compare(self, head: Mapping[str, Any]) -> None:
        for key, wanted in json.loads(json.dumps(self.head)).items():
            if head.get(key) != wanted:
                told = "results by" if key == "subject" else f"results of another {key},"
                raise GuerdonError(f"{self.path} holds {told} {head.get(key)!r}, not {wanted!r}; choose another --out")


def _to_line(question: Question, outcome: RowOutcome) -> str:
    line: dict[str, Any] = {"id": question.id, "subset": question.subset, "key": question.key()}
    line["values"] = [float(value) if np.isfinite(value) else None for value in outcome.values]
    if question.order is not None:
        line |= {"order": list(question.order), "choice": outcome.choice}
    if outcome.problems:
        line["problems"] = {str(place): problem for place, problem in outcome.problems.items()}
    if outcome.details:
        line["details"] = {str(place): dict(told) for place, told in outcome.details.items()}
    return json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "replace").decode() + "\n"


def _from_line(line: Mapping[str, Any]) -> RowOutcome:
    values = np.array([np.nan if value is None else float(value) for value in line["values"]])
    problems = {int(place): str(problem) for place, problem in line.get("problems", {}).items()}
    details = {int(place): told for place, told in line.get("details", {}).items()}
    choice = line.get("choice")
    return RowOutcome(values, None if choice is None else int(choice), problems, details)
