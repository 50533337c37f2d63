"""What a benchmark, an audit or a comparison has to show, before anything decides how: tables, figures, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from guerdon.core.errors import GuerdonError

Cell: TypeAlias = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under columns; a number is shown with three digits, None as a dash. Raises GuerdonError for a ragged row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise GuerdonError(f"table {self.title!r}: a row of {len(row)} cells under {len(self.columns)} columns")


@dataclass(frozen=True)
class Bar:
    """A named value, with its interval where there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bars:
    """Named values side by side, on a scale from ``low`` to ``high``; ``mark`` is a value to compare with (chance)."""

    title: str
    bars: Sequence[Bar]
    low: float = 0.0
    high: float = 1.0
    mark: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A curve: y [N] over x [N], with a band [N] each side where ``low`` and ``high`` are given."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Lines:
    """Curves on one pair of axes; ``diagonal`` draws y = x (reliability), ``log_x`` a logarithmic first axis."""

    title: str
    lines: Sequence[Line]
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    diagonal: bool = False
    note: str = ""


@dataclass(frozen=True)
class Heat:
    """A matrix [R, C] with its names, coloured from ``low`` to ``high`` and printed in its cells."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    low: float = 0.0
    high: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Example:
    """One thing to read: ``fields`` by name, such as prompt, answer, score."""

    title: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Examples:
    """Things to read, the most telling first."""

    title: str
    items: Sequence[Example]
    note: str = ""


Part: TypeAlias = Table | Bars | Lines | Heat | Examples
Kind = Literal["benchmark", "audit", "comparison"]


@dataclass(frozen=True)
class Sheet:
    """A whole result: the answer in one sentence, facts about how it came about, and the parts that show it.

    lead:   what was found, in a sentence that stands alone.
    facts:  name and value of what a reader must know to trust it: model, data, rows, failures, seconds.
    """

    kind: Kind
    title: str
    lead: str
    facts: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    notes: Sequence[str] = ()

    def tables(self) -> list[Table]:
        """Its tables, for a terminal."""
        return [part for part in self.parts if isinstance(part, Table)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; each part holds its kind under "part"."""
        parts = [{"part": type(part).__name__.lower(), **asdict(part)} for part in self.parts]
        return {**asdict(self), "parts": parts, "facts": dict(self.facts), "notes": list(self.notes)}
