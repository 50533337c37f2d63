"""``guerdon score``: rows in, scored rows out, in batches, so that a killed command goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.cli.naming import named_rewards
from guerdon.cli.output import number, show, table, tell
from guerdon.core.data import load_rows
from guerdon.core.errors import GuerdonError, nearest
from guerdon.core.outcome import Scores
from guerdon.core.progress import Progress, progress
from guerdon.core.reward import policy_of
from guerdon.core.scorer import Scorer, score_all
from guerdon.core.sources import BadRow, open_source

COMPLETIONS = ("completion", "image")
# Names of the reward contract itself; a column that has one of them cannot be passed on beside it.
TAKEN = ("prompts", "completions")


@dataclass(frozen=True)
class Job:
    """What to score with, and how: see ``guerdon score --help``."""

    rewards: str
    settings: Sequence[str] = ()
    out: Path | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    batch_size: int = 32
    limit: int | None = None
    deadline: float | None = None
    max_failure_rate: float = 0.1
    skip_bad_rows: bool = False
    overwrite: bool = False


@dataclass
class Rows:
    """Rows to score: ``data`` with pictures, ``plain`` the same with pictures as they lie in their files."""

    data: Any
    plain: Any
    prompt: str | None
    completion: str

    @classmethod
    def of(cls, data: Any, prompt: str | None, completion: str) -> Rows:
        from datasets import Image

        plain = data
        for name, feature in data.features.items():
            if isinstance(feature, Image):
                plain = plain.cast_column(name, Image(decode=False))
        return cls(data, plain, prompt, completion)

    def __len__(self) -> int:
        return len(self.data)

    def given(self, row: int) -> dict[str, Any]:
        """The row without its pictures, as it is written beside its scores."""
        return {key: value for key, value in self.plain[row].items() if not _is_picture(value)}

    def key(self, row: int) -> str:
        """16 hex digits over the whole row, pictures included."""
        digest = sha256()
        for name, value in sorted(self.plain[row].items()):
            digest.update(f"{name}=".encode())
            if _is_picture(value):
                digest.update(value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes())
            else:
                digest.update(json.dumps(value, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:16]

    def batches(self, start: int, size: int, whole_groups: bool) -> Iterator[tuple[int, int]]:
        """(first, after last) from ``start`` on; with ``whole_groups`` no run of equal prompts is cut."""
        while start < len(self):
            stop = min(start + size, len(self))
            while whole_groups and stop < len(self) and self.prompt_of(stop) == self.prompt_of(stop - 1):
                stop += 1
            yield start, stop
            start = stop

    def prompt_of(self, row: int) -> Any:
        """The prompt of a row, None where the data have none."""
        return self.plain[row][self.prompt] if self.prompt is not None else None

    def arguments(self, start: int, stop: int) -> tuple[list[Any], list[Any], dict[str, Any]]:
        """Prompts, completions and the other columns of some rows, as a reward takes them."""
        batch = self.data[start:stop]
        prompts = batch[self.prompt] if self.prompt is not None else [None] * (stop - start)
        used = {self.prompt, self.completion, *TAKEN}
        return prompts, batch[self.completion], {key: value for key, value in batch.items() if key not in used}


def _is_picture(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


def score_rows(job: Job, file: str | None, rescore: Path | None) -> None:
    """Score a file, or (``rescore``) what a run or an earlier scoring holds; print a table of what came out."""
    from guerdon.cli.rescoring import compare, stored_rows

    if (file is None) == (rescore is None):
        raise GuerdonError("give a FILE to score, or --rescore RUN")
    scorers = _scorers(job)
    if rescore is not None:
        rows = stored_rows(rescore, job)
    else:
        assert file is not None
        rows = read_rows(file, job)
    if rows.prompt is None:
        tell("the rows have no prompt: a reward that compares with the prompt has nothing to compare with")
    out = job.out or Path("scores.jsonl")
    write_scores(rows, scorers, out, job)
    numbers = ("n", "mean", "std", "min", "max", "none", "failed")
    show(table("scores", ("reward", *numbers), _figures(list(scorers), out), right=numbers))
    if rescore is not None:
        for one in compare(list(scored_lines(out))):
            show(one)
    print(f"scored rows: {out}")


def _scorers(job: Job) -> dict[str, Scorer]:
    made = {}
    for name, reward in named_rewards(job.rewards, job.settings).items():
        # A file is scored to its end: where a reward would stop a training run, its row is written down as failed.
        policy = policy_of(reward)
        made[name] = Scorer(
            reward, on_failure="drop_sample" if policy == "raise" else policy, deadline=job.deadline,
            max_failure_rate=job.max_failure_rate,
        )  # fmt: skip
    return made


def read_rows(file: str, job: Job) -> Rows:
    """The rows of a file, folder or hub data set, with the columns that hold prompt and completion."""
    columns = _columns(Path(file))
    completion = job.completion_column
    if completion is None and columns is not None:
        completion = next((name for name in COMPLETIONS if name in columns), None)
        if completion is None:
            guess = next((near for name in COMPLETIONS if (near := nearest(name, columns))), None)
            hint = f"; did you mean --completion-column {guess}?" if guess else "; name one with --completion-column"
            listed = ", ".join(sorted(columns)) or "(none)"
            raise GuerdonError(f"{file} has no column {' or '.join(COMPLETIONS)}{hint} columns: {listed}")
    prompt = job.prompt_column or ("prompt" if columns is None or "prompt" in columns else None)
    completion = completion or COMPLETIONS[0]
    needed = [name for name in (prompt, completion) if name is not None]
    out = job.out or Path("scores.jsonl")
    data = load_rows(file, required=needed, skip_bad_rows=job.skip_bad_rows, limit=job.limit, out=out.parent)
    return Rows.of(data, prompt, completion)


def _columns(path: Path) -> set[str] | None:
    """The columns of a file's first good row, and those that the file itself declares; None for a hub id."""
    if not path.exists():
        return None
    source = open_source(path)
    if source.columns:
        return set(source.columns)
    first = next((row for row in source.rows(()) if not isinstance(row, BadRow)), None)
    return set(first[1]) if first is not None else set()


def write_scores(rows: Rows, scorers: dict[str, Scorer], out: Path, job: Job) -> None:
    """Append the scored rows to ``out``, beginning after those that it holds already."""
    whole_groups = any(scorer.groupwise for scorer in scorers.values())
    identities = {name: scorer.identity() for name, scorer in scorers.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    done, size = (0, 0) if job.overwrite or not out.exists() else _kept(out, rows, identities, whole_groups)
    if done:
        tell(f"{out}: {done} of {len(rows)} rows were scored before")
    bar: Progress[Any] = progress(len(rows), "score")
    try:
        with out.open("r+b" if out.exists() else "w+b") as file, bar:
            file.truncate(size)
            file.seek(size)
            bar.advance(done)
            for start, stop in rows.batches(done, job.batch_size, whole_groups):
                prompts, completions, columns = rows.arguments(start, stop)
                answers = score_all(list(scorers.values()), prompts, completions, **columns)
                scored = dict(zip(scorers, answers, strict=True))
                made = [_line(rows, start + place, place, scored) for place in range(stop - start)]
                file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in made).encode())
                file.flush()
                means = {name: float(np.nanmean(one.values)) for name, one in scored.items() if one.valid.any()}
                bar.advance(stop - start, **means)
    finally:
        for scorer in scorers.values():
            scorer.close()


def scored_lines(out: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of scored rows."""
    with out.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _line(rows: Rows, row: int, place: int, scored: dict[str, Scores]) -> dict[str, Any]:
    line: dict[str, Any] = {
        "row": row,
        "key": rows.key(row),
        "scores": {name: _value(scores.values[place]) for name, scores in scored.items()},
        "valid": {name: bool(scores.valid[place]) for name, scores in scored.items()},
        "identity": {name: scores.identity for name, scores in scored.items()},
    }
    failed = {name: scores.failures[place] for name, scores in scored.items() if place in scores.failures}
    if failed:
        line["failed"] = {name: {"kind": one.kind, "cause": one.cause} for name, one in failed.items()}
    parts = {name: scores.parts for name, scores in scored.items() if scores.parts}
    if parts:
        line["parts"] = {n: {part: _value(column[place]) for part, column in own.items()} for n, own in parts.items()}
    return {**line, "input": rows.given(row)}


def _value(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _kept(out: Path, rows: Rows, identities: dict[str, str], whole_groups: bool) -> tuple[int, int]:
    """How many lines of ``out`` are scores of the first rows by the same rewards, and where these end in the file.

    A last line that was cut off does not count. Raises GuerdonError for a file that holds anything else.
    """
    ends = [0]
    with out.open("rb") as file:
        for place, raw in enumerate(file):
            if not raw.endswith(b"\n"):
                break
            try:
                line = json.loads(raw)
                own, key = line["identity"], line["key"]
            except (ValueError, KeyError, TypeError):
                raise GuerdonError(f"{out}:{place + 1} is not a scored row; choose another --out") from None
            if own != identities:
                found = ", ".join(map(str, own.values())) if isinstance(own, dict) else str(own)
                asked = ", ".join(identities.values())
                raise GuerdonError(f"{out} holds scores by {found}, not {asked}; choose another --out, or --overwrite")
            if place >= len(rows) or key != rows.key(place):
                raise GuerdonError(f"{out}:{place + 1} scores another row; choose another --out, or --overwrite")
            ends.append(ends[-1] + len(raw))
    kept = len(ends) - 1
    if whole_groups and kept < len(rows):
        # A group of which a part is missing is scored again as a whole.
        while kept and rows.prompt_of(kept) == rows.prompt_of(kept - 1):
            kept -= 1
    return kept, ends[kept]


def _figures(names: list[str], out: Path) -> Iterator[list[str]]:
    values: dict[str, list[float]] = {name: [] for name in names}
    failed, absent = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for line in scored_lines(out):
        for name in names:
            if line["valid"][name]:
                values[name].append(line["scores"][name])
            if name in line.get("failed", {}):
                failed[name] += 1
            elif not line["valid"][name]:
                absent[name] += 1
    for name in names:
        column = np.array(values[name], dtype=np.float64)
        spread = [column.mean(), column.std(), column.min(), column.max()] if len(column) else [None] * 4
        yield [name, str(len(column)), *map(number, spread), str(absent[name]), str(failed[name])]
