"""The page of a benchmark, an audit or a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from guerdon.core.sheet import Bars, Cell, Examples, Heat, Lines, Part, Sheet, Table
from guerdon.report import sheet_figures
from guerdon.report.html import environment
from guerdon.report.wording import NONE

_KINDS = {"benchmark": "Benchmark", "audit": "Audit", "comparison": "Comparison"}


@dataclass(frozen=True)
class Shown:
    """A part ready for the page: its ``kind``, and what that kind needs."""

    kind: str
    title: str
    note: str
    table: Table | None = None
    numeric: tuple[bool, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    figure: Markup | None = None
    items: tuple[Any, ...] = ()


def render_sheet(sheet: Sheet) -> str:
    """The page for ``sheet``; the same sheet always gives the same text. All that it shows is escaped."""
    shown = [_shown(part, f"part{index}") for index, part in enumerate(sheet.parts)]
    template = environment().get_template("sheet.html.j2")
    # A headline is one clause; what else the lead says stands under it.
    first, *rest = re.split(r"(?<=[.;]) ", sheet.lead, maxsplit=1)
    headline = first.rstrip(";") + ("." if first.endswith(";") else "")
    more = rest[0][:1].upper() + rest[0][1:] if rest else ""
    return template.render(sheet=sheet, parts=shown, kind=_KINDS[sheet.kind], headline=headline, more=more)


def write_sheet(path: str | Path, sheet: Sheet) -> Path:
    """Write `render_sheet` to ``path``, whole or not at all; returns its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(render_sheet(sheet), encoding="utf-8")
    os.replace(partial, target)
    return target


def cell_text(value: Cell) -> str:
    """A cell as a person reads it: three decimals, a dash for what is not there."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def _shown(part: Part, name: str) -> Shown:
    if isinstance(part, Table):
        columns = list(zip(*part.rows)) if part.rows else [()] * len(part.columns)
        numeric = tuple(bool(column) and all(_is_number(one) for one in column) for column in columns)
        rows = tuple(tuple(cell_text(value) for value in row) for row in part.rows)
        return Shown("table", part.title, part.note, table=part, numeric=numeric, rows=rows)
    if isinstance(part, Examples):
        return Shown("examples", part.title, part.note, items=tuple(part.items))
    if isinstance(part, Bars):
        return Shown("figure", part.title, part.note, figure=sheet_figures.bars(part, name=name))
    if isinstance(part, Lines):
        return Shown("figure", part.title, part.note, figure=sheet_figures.lines(part, name=name))
    assert isinstance(part, Heat)
    return Shown("figure", part.title, part.note, figure=sheet_figures.heat(part, name=name))


def _is_number(value: Cell) -> bool:
    """A number, a dash, or a number with its interval: what belongs at the right of its column."""
    return not isinstance(value, str) or re.match(r"[+\-−–]?\d|[–-]$", value) is not None
