"""The same figures for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from guerdon.report.finding import find, measured, real_detectors
from guerdon.report.record import mapping, read_record
from guerdon.report.tables import by_role, costs, given, interval, verdicts

_STATES = {"holds": ("✓ holds", "green"), "fails": ("✗ missed", "red"), "open": ("? open", "yellow")}


def summary_table(run: str | Path) -> Table:
    """The headline, every detector's mean P(real) by arm, the price paid, and the aims, for the folder of a run.

    Raises GuerdonError when ``run`` is not the folder of a run. Unfinished runs give a table with the headline alone.
    """
    record = read_record(run)
    found = find(record)
    # Text, not strings: labels and prompts come from outside and must not be read as rich markup.
    table = Table(title=Text(f"{found.symbol} {found.headline}", style="bold"), caption=Text(" ".join(found.detail)))
    table.min_width = 60
    table.title_justify = table.caption_justify = "left"
    arms = list(record.arms)
    table.add_column("measure")
    for arm in arms:
        table.add_column(Text(record.label(arm)), justify="right")
    if arms:
        table.add_column("real photographs", justify="right")
    table.add_column("aim" if arms else "value")
    real = real_detectors(record)
    names = {name: one for arm in record.arms.values() for name, one in mapping(arm, "detectors").items()}
    for name in by_role(names):
        scores = [interval(measured(mapping(record.arms[arm], "detectors", name))) for arm in arms]
        label = f"P(real) {name} ({mapping(names, name).get('role') or 'detector'})"
        table.add_row(*map(Text, (label, *scores, interval(measured(real.get(name))), "")))
    for line in costs(record):
        *cells, moved = line.cells
        table.add_row(*map(Text, (line.name, *cells, moved)))
    table.add_section()
    for verdict in verdicts(record):
        text, style = _STATES[verdict.state]
        padding = [Text("")] * max(len(arms) - 1, 0)
        middle = [Text(verdict.target), *padding, Text(verdict.value)] if arms else []
        table.add_row(Text(verdict.name), *middle, Text(text if arms else f"{verdict.value}  {text}", style=style))
    return table


def given_tables(run: str | Path) -> list[Table]:
    """The tables that the recipe wrote into its summary, for the folder of a run."""
    made = []
    for one in given(read_record(run)):
        table = Table(title=Text(one.title, style="bold"), title_justify="left", caption=Text(one.note))
        table.caption_justify = "left"
        for name, numeric in zip(one.columns, one.numeric):
            table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
        for row in one.rows:
            table.add_row(*map(Text, row))
        made.append(table)
    return made
