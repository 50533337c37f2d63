"""RewardMATH's published result files: scores, ratings, step scores or comparisons, and what they are worth."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.metrics.one_to_many import OneToMany, one_to_many, pairwise_to_one_to_many
from guerdon.metrics.position_bias import PositionBias, position_bias
from guerdon.metrics.step_aggregation import REDUCERS, Reducer, StepAggregator

__all__ = ["PublishedScores", "read_published_scores"]

Kind = Literal["scores", "steps", "comparisons"]


@dataclass(frozen=True)
class PublishedScores:
    """One result file: a row a problem, the right solution's score first.

    problems:   the text of each row's problem; one that stands in several rows counts once in every figure.
    values:     of "scores" a row of numbers [K]; of "steps" K lists of step scores; of "comparisons" [K - 1], 1 where
                the right solution won, 0 where it lost, NaN where the judge's word could not be read.
    positions:  of "comparisons", where the right solution stood.
    """

    path: Path
    kind: Kind
    problems: list[str]
    values: list[Any]
    positions: list[list[str]]

    @property
    def name(self) -> str:
        """The file's name without what all result files are called."""
        stem = self.path.name.split(".")[0]
        return stem.removesuffix("_reward").removeprefix("rewardbench_")

    @property
    def identity(self) -> str:
        """name@version#hash of the file."""
        return f"{self.name}@1#{hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]}"

    def unparsable(self) -> int:
        """Comparisons and scores that are none."""
        if self.kind == "steps":
            return sum(not len(steps) for row in self.values for steps in row)
        return int(sum(np.isnan(row).sum() for row in self.values))

    def ranked(self, reducer: Reducer = "prod", *, unparsable: Literal["loss", "leave_out"] = "loss") -> OneToMany:
        """Each row's right solution among its wrong ones; ``reducer`` for step scores alone."""
        if self.kind == "comparisons":
            return pairwise_to_one_to_many(self.values, unparsable=unparsable)
        return one_to_many(self.scores(reducer))

    def scores(self, reducer: Reducer = "prod") -> list[NDArray[np.float64]]:
        """Scores of each row's solutions, the right one first. Raises GuerdonError for comparisons, which have none."""
        if self.kind == "comparisons":
            raise GuerdonError(f"{self.path} holds comparisons, not scores")
        if self.kind == "scores":
            return list(self.values)
        reduce = StepAggregator(reducer)
        return [reduce(row) for row in self.values]

    def reducers(self) -> dict[str, dict[str, float]]:
        """Accuracies by each of the eight reducers, of step scores; empty for the others."""
        if self.kind != "steps":
            return {}
        return {how: self.by_problem(self.ranked(how)).summary() for how in REDUCERS}

    def step_counts(self) -> list[NDArray[np.float64]]:
        """Steps of each solution, the right one first; empty for files without step scores."""
        if self.kind != "steps":
            return []
        return [np.array([float(len(steps)) for steps in row]) for row in self.values]

    def position_bias(self) -> PositionBias | None:
        """Accuracy of comparisons by the right solution's place; None for the other kinds."""
        if self.kind != "comparisons" or len({place for row in self.positions for place in row}) != 2:
            return None
        groups = [number for number, row in enumerate(self.values) for _ in row]
        return position_bias(
            np.concatenate(self.values), [place for row in self.positions for place in row], groups=groups
        )

    def by_problem(self, found: OneToMany) -> OneToMany:
        """The means of rows that share a problem, in the order of `names`. Some files list a problem twice."""
        index = {name: place for place, name in enumerate(self.names())}
        place = np.array([index[problem] for problem in self.problems])
        counts = np.bincount(place)

        def mean(values: NDArray[Any]) -> NDArray[np.float64]:
            return np.bincount(place, weights=values) / counts

        wrong = np.round(mean(found.wrong)).astype(np.int64)
        return OneToMany(
            mean(found.first), mean(found.first_or_tied), mean(found.first_by_lot), mean(found.reciprocal_rank),
            mean(found.beaten), wrong,
        )  # fmt: skip

    def names(self) -> list[str]:
        """The problems, each once."""
        return list(dict.fromkeys(self.problems))


def read_published_scores(path: str | Path) -> PublishedScores | None:
    """A result file in one of the published layouts, .json or .json.gz; None for a file of another kind.

    {"problem", "score": [numbers]}                                     reward models and rating judges
    {"problem", "score": [lists of step scores]}                        process reward models
    {"problem", "score": ["A" | "B" | ...], "chosen_position": [...]}   judges of pairs; anything else was unparsable
    {"problem", "problem_id", "solution_type", "output": {"step_scores"}}   a row a solution (RewardBench's pairs)

    Raises GuerdonError naming the row that does not fit.
    """
    path = Path(path)
    rows = _rows(path)
    if rows is None:
        return None
    if "output" in rows[0]:
        return _of_solutions(path, rows)
    values: list[Any] = []
    positions: list[list[str]] = []
    kinds: set[Kind] = set()
    for number, row in enumerate(rows, 1):
        where = f"{path}:{number}"
        listed = row.get("score")
        if not isinstance(row.get("problem"), str) or not isinstance(listed, list) or not listed:
            raise GuerdonError(f"{where}: a row of published scores needs 'problem' and 'score', a list")
        if "chosen_position" in row:
            kinds.add("comparisons")
            places = row["chosen_position"]
            if not isinstance(places, list) or len(places) != len(listed):
                raise GuerdonError(f"{where}: 'chosen_position' needs a place for each of {len(listed)} comparisons")
            known = {str(place) for place in places}
            if not known <= {"A", "B"}:
                raise GuerdonError(
                    f"{where}: the right solution stands in place A or B, not {sorted(known - {'A', 'B'})}"
                )
            positions.append([str(place) for place in places])
            values.append(np.array([_won(said, place) for said, place in zip(listed, places, strict=True)]))
        elif all(isinstance(one, list) for one in listed):
            kinds.add("steps")
            values.append([_numbers(one, where) for one in listed])
        else:
            kinds.add("scores")
            values.append(_numbers(listed, where))
    if len(kinds) > 1:
        raise GuerdonError(f"{path} mixes rows of {' and '.join(sorted(kinds))}")
    return PublishedScores(path, kinds.pop(), [row["problem"] for row in rows], values, positions)


def _of_solutions(path: Path, rows: Sequence[Mapping[str, Any]]) -> PublishedScores:
    problems: dict[str, str] = {}
    sides: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path}:{number}"
        output, side = row.get("output"), row.get("solution_type")
        if not isinstance(output, dict) or side not in ("chosen", "rejected") or "problem_id" not in row:
            raise GuerdonError(f"{where}: a row needs 'problem_id', 'solution_type' and 'output' with 'step_scores'")
        key = str(row["problem_id"])
        problems.setdefault(key, str(row.get("problem", key)))
        steps = _numbers(output.get("step_scores"), where)
        sides.setdefault(key, {"chosen": [], "rejected": []})[str(side)].append(steps)
    for key, known in sides.items():
        if len(known["chosen"]) != 1 or not known["rejected"]:
            raise GuerdonError(f"{path}: problem {key} needs one chosen solution and at least one rejected one")
    values = [[*known["chosen"], *known["rejected"]] for known in sides.values()]
    return PublishedScores(path, "steps", [problems[key] for key in sides], values, [])


def _rows(path: Path) -> list[dict[str, Any]] | None:
    """The file's list of rows where they look like a published file's, else None."""
    if not path.is_file() or not path.name.lower().endswith((".json", ".json.gz")):
        return None
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        rows = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError, OSError, EOFError):
        return None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return None
    return rows if "problem" in rows[0] and ("score" in rows[0] or "output" in rows[0]) else None


def _won(said: Any, place: Any) -> float:
    return float(said == place) if said in ("A", "B") else float("nan")


def _numbers(values: Any, where: str) -> NDArray[np.float64]:
    if not isinstance(values, list):
        raise GuerdonError(f"{where}: scores must be a list of numbers, got {type(values).__name__}")
    for value in values:
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise GuerdonError(f"{where}: a score must be a number, got {value!r}")
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
