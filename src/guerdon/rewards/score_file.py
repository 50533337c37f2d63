"""Scores computed elsewhere, as a subject: a benchmark's rows are looked up by their id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.core.data import read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.json_table import find_table
from guerdon.core.preferences import Message
from guerdon.rewards.outcomes import Outcomes

__all__ = ["ScoresFile"]

Key = tuple[str, str]
NEEDED = ("row_id", "answer_index", "answer_count")


class ScoresFile:
    """Scores of a benchmark's answers from a .jsonl, .json or .parquet file.

    A row holds "id" (of the benchmark's row) and "scores", one number an answer, the right answers first, as the
    benchmark's columns list them; or "score", one number, with "answer" saying which answer it is (default 0, for
    benchmarks of one answer a row). A column "subset" tells equal ids of different subsets apart. None and NaN are
    answers without a score. A .json file may also be one object of columns, as the published result files are.

    Raises GuerdonError naming together all rows that cannot be read, and for an answer that is scored twice.
    """

    modes: frozenset[str] = frozenset({"score"})
    rows_at_once = 4096

    def __init__(self, path: str | Path, *, name: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise GuerdonError(f"there is no file of scores {str(path)!r}")
        self.name = name or self.path.stem
        rows = read_rows(find_table(self.path), required=("id",), check=_fault, every_column=True)
        self._scores: dict[Key, dict[int, float]] = {}
        self._whole: set[Key] = set()
        self._subsets = any(row.get("subset") is not None for _, row in rows)
        for where, row in rows:
            key = (str(row.get("subset") or ""), str(row["id"]))
            known = self._scores.setdefault(key, {})
            listed = row.get("scores")
            new = dict(enumerate(map(_number, listed))) if listed is not None else {_place(row): _number(row["score"])}
            twice = sorted(set(known) & set(new))
            if twice:
                raise GuerdonError(f"{where}: answer {twice[0]} of id {key[1]!r} is scored twice")
            known.update(new)
            if listed is not None:
                self._whole.add(key)
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]
        self.identity = f"{self.name}@1#{digest}"

    def __len__(self) -> int:
        return len(self._scores)

    def score(
        self,
        conversations: Sequence[list[Message]],
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: str | None = None,
    ) -> Outcomes:
        """The scores of a benchmark's answers; a row that the file lacks, or lists with another number of answers, is a
        failure.

        columns: "row_id", "answer_index", "answer_count" and, where the file tells subsets apart, "subset".
        Raises GuerdonError without them: elsewhere than in a benchmark there is nothing to look up.
        """
        given = dict(columns or {})
        if any(name not in given for name in NEEDED):
            raise GuerdonError(f"{self.path}: a file of scores can stand for a model in a benchmark only")
        subsets = given.get("subset") if self._subsets else None
        values = np.full(len(conversations), np.nan)
        problems: dict[int, str] = {}
        for row in range(len(conversations)):
            name, place, count = (given[column][row] for column in NEEDED)
            key = (str(subsets[row] or "") if subsets is not None else "", str(name))
            known = self._scores.get(key)
            if known is None:
                problems[row] = f"failed: {self.path} has no row of id {str(name)!r}"
            elif key in self._whole and len(known) != count:
                problems[row] = f"failed: {self.path} has {len(known)} scores for the {count} answers of {str(name)!r}"
            elif place not in known or not np.isfinite(known[place]):
                problems[row] = f"failed: {self.path} has no score of answer {place} of {str(name)!r}"
            else:
                values[row] = known[place]
        return Outcomes(values, problems)


def _fault(row: dict[str, Any]) -> str | None:
    listed = row.get("scores")
    if listed is None:
        if "score" not in row:
            return "a row of scores needs the column 'scores' (a list) or 'score' (a number)"
        if isinstance(row.get("answer", 0), bool) or not isinstance(row.get("answer", 0), int):
            return f"column 'answer' must be the answer's number, got {row['answer']!r}"
        return None if _is_score(row["score"]) else f"column 'score' must be a number, got {row['score']!r}"
    if not isinstance(listed, list | tuple) or not listed:
        return f"column 'scores' must be a list of numbers, got {listed!r}"
    wrong = next((value for value in listed if not _is_score(value)), _NONE)
    return None if wrong is _NONE else f"column 'scores' must hold numbers, got {wrong!r}"


_NONE = object()


def _is_score(value: Any) -> bool:
    # Pipelines return a list of one score a text, and some result files keep it.
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value is None or isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    if isinstance(value, list):
        value = value[0]
    return float("nan") if value is None else float(value)


def _place(row: Mapping[str, Any]) -> int:
    return int(row.get("answer") or 0)
