"""What was decided about each pair, written down as it happens: one line of JSON a pair, evidence beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.curation.cleaning import pair_key
from guerdon.curation.consistency import Decision

__all__ = ["DecisionLog", "JsonLines", "write_curated"]


class JsonLines:
    """Rows that a killed process leaves whole: a file of JSON lines of which half a last line is forgotten.

    path: None keeps the rows in memory alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path is None or not path.exists():
            return
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                raise GuerdonError(f"{path}:{number}: not a line of JSON") from None

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows and flush them."""
        self.rows += rows
        if self.path is not None and rows:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))


class DecisionLog:
    """Decisions by stage and place in the pool. A row holds stage, row, pair (its hash), where, and the decision's
    columns: decision, provenance, p_best, p_gold, judge_votes, attributes."""

    def __init__(self, path: Path | None, pool: Sequence[Pair]) -> None:
        self.pool, self._lines = pool, JsonLines(path)
        self._made: dict[str, dict[int, Decision]] = {}
        for number, line in enumerate(self._lines.rows, 1):
            row = line["row"]
            if row >= len(pool) or line["pair"] != pair_key(pool[row]):
                raise GuerdonError(f"{path}:{number}: row {row} of the pool is another pair now; use a new folder")
            known = {key: line[key] for key in Decision.__dataclass_fields__}
            self._made.setdefault(line["stage"], {})[row] = Decision(**known)

    def of(self, stage: str) -> dict[int, Decision]:
        """Row of the pool -> decision, in the order in which they were made."""
        return self._made.get(stage, {})

    def add(self, stage: str, decided: Sequence[tuple[int, Decision]]) -> None:
        """Write decisions about rows of the pool."""
        self._made.setdefault(stage, {}).update(decided)
        self._lines.add(
            [
                {"stage": stage, "row": row, "pair": pair_key(pair), "where": pair.where, **decision.to_json()}
                for row, decision in decided
                for pair in [self.pool[row]]
            ]
        )


def write_curated(path: Path, pairs: Sequence[Pair]) -> Path:
    """Pairs as JSON lines in TRL's columns, evidence beside them; pictures stay where they were (``where``)."""
    path.unlink(missing_ok=True)
    JsonLines(path).add([{**pair.to_row(), "where": pair.where} for pair in pairs])
    return path
