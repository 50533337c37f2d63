"""Sheets: what benchmarks, audits and comparisons show, on the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guerdon.cli.sheets import finish
from guerdon.core.errors import GuerdonError
from guerdon.core.sheet import Bar, Bars, Example, Examples, Heat, Line, Lines, Sheet, Table
from guerdon.report.sheet_page import cell_text, render_sheet

NAN = float("nan")


@pytest.fixture
def sheet() -> Sheet:
    return Sheet(
        kind="benchmark",
        title="a <b>benchmark</b>",
        lead="One of two is right.",
        facts={"model": "<script>alert(1)</script>", "rows": "2"},
        notes=("A note.",),
        parts=[
            Table("By subset", ["subset", "accuracy", "n"], [["maths", 0.5, 10], ["all", None, 12]], note="why"),
            Bars("Accuracy", [Bar("maths & more", 0.5, 0.3, 0.7), Bar("none", NAN)], mark=0.25),
            Lines("Curve", [Line("gold", [1, 2, 4], [0.1, 0.2, 0.1], [0.0, 0.1, 0.0], [0.2, 0.3, 0.2]),
                            Line("proxy", [1, 2, 4], [0.1, NAN, 0.5])], x_label="n", log_x=True),
            Heat("Distance", ["a", "b"], ["a", "b"], [[0.0, 1.0], [1.0, NAN]]),
            Examples("Worst", [Example("first", {"answer": "<img src=x onerror=alert(1)>"})]),
        ],
    )  # fmt: skip


def test_the_page_shows_every_part_and_escapes_what_it_shows(sheet: Sheet) -> None:
    page = render_sheet(sheet)
    assert page.count("<section") == 5 and page.count("<svg") == 3
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    assert "0.500" in page and "One of two is right." in page and "A note." in page
    assert "NaN" not in page and ">nan<" not in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert page == render_sheet(sheet), "the same sheet gives the same page"


def test_ids_of_figures_do_not_clash(sheet: Sheet) -> None:
    page = render_sheet(Sheet(**{**sheet.__dict__, "parts": [sheet.parts[1], sheet.parts[1]]}))
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids)) > 2


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(GuerdonError, match="2 cells under 1 columns"):
        Table("t", ["a"], [["x", "y"]])


@pytest.mark.parametrize(
    "value, text", [(0.5, "0.500"), (3, "3"), ("x", "x"), (None, "–"), (NAN, "–"), (12345.6, "12,346")]
)
def test_cells(value: object, text: str) -> None:
    assert cell_text(value) == text  # type: ignore[arg-type]


def test_a_result_ends_with_tables_json_and_a_page(
    sheet: Sheet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(sheet, {"accuracy": NAN, "n": 2}, tmp_path / "out", as_json=False)
    printed = capsys.readouterr()
    assert "One of two is right." in printed.out and "maths" in printed.out and "report.html" in printed.err
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == {"accuracy": None, "n": 2}
    finish(sheet, {"accuracy": 0.5}, None, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"accuracy": 0.5}


def test_a_sheet_as_plain_values(sheet: Sheet) -> None:
    plain = sheet.to_dict()
    assert [part["part"] for part in plain["parts"]] == ["table", "bars", "lines", "heat", "examples"]
    json.dumps(plain)
