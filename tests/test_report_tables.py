"""Tables and calibration that a recipe brings along: shown on the page and in the terminal, never read as markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from guerdon.core.runs import RunFolder
from guerdon.report.html import render
from guerdon.report.record import read_record
from guerdon.report.tables import given
from guerdon.report.terminal import given_tables

TABLE = {
    "title": "Held-out <b>pairs</b>",
    "note": "ties & halves",
    "columns": ["judge", "accuracy", "says"],
    "rows": [["model", "0.71 [0.66, 0.75]", "[red]good[/red]"], ["length", "+0.50", "<script>"], ["short"]],
}
BINS = [{"predicted": 0.6, "observed": 0.55, "count": 30}, {"predicted": 0.9, "observed": 0.8, "count": 10}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder.open(tmp_path / "run", {"seed": 1})
    for step in range(5):
        folder.log(step, {"loss": 0.7 - 0.1 * step}, stage="reward_model")
    more: dict[str, Any] = {"tables": [TABLE], "calibration": {"bins": BINS}}
    folder.write_summary({"system": "basereward", "title": "T", "seed": 1, "verdicts": [], **more})
    return folder.path


def test_tables_are_read_with_their_numeric_columns(run: Path) -> None:
    (table,) = given(read_record(run))
    assert table.rows == TABLE["rows"][:2]  # a row of another width is left out
    assert table.numeric == [False, True, False]


def test_page_shows_them_escaped_and_misses_no_pictures(run: Path) -> None:
    page = render(run)
    assert "Held-out &lt;b&gt;pairs&lt;/b&gt;" in page and "<script>" not in page
    assert page.count("<circle") + page.count("<use") >= 2 or "reliability" in page
    assert "How often the answer that the model prefers" in page
    assert "pictures (samples/)" not in page and "The hacking watch</h2>" not in page


def test_page_without_tables_has_no_such_section(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", {"seed": 1})
    folder.write_summary({"system": "x", "verdicts": []})
    assert 'id="tables"' not in render(folder.path) and given_tables(folder.path) == []


def test_terminal_tables_read_cells_as_text(run: Path) -> None:
    (table,) = given_tables(run)
    console = Console(width=120, record=True)
    console.print(table)
    text = console.export_text()
    assert "[red]good[/red]" in text and "0.71 [0.66, 0.75]" in text


@pytest.mark.parametrize("wrong", [{"tables": 3}, {"tables": [{"rows": 3}]}, {"calibration": {"bins": [{}]}}])
def test_a_summary_of_another_shape_is_no_error(tmp_path: Path, wrong: dict[str, Any]) -> None:
    folder = RunFolder.open(tmp_path / "run", {"seed": 1})
    (folder.path / "summary.json").write_text(json.dumps(wrong))
    assert "<html" in render(folder.path)
