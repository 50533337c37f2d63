"""How a benchmark, an audit or a comparison ends: its tables on the terminal, its JSON and its page in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guerdon.cli.output import json_line, show, table, tell
from guerdon.core.sheet import Sheet


def finish(sheet: Sheet, result: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    """Print ``sheet`` (or ``result`` as one line of JSON); write ``result.json`` and ``report.html`` into ``out``."""
    from guerdon.report.sheet_page import cell_text, write_sheet

    if as_json:
        print(json_line(result))
    else:
        show(sheet.lead)
        for one in sheet.tables():
            show(table(one.title, one.columns, ([cell_text(value) for value in row] for row in one.rows)))
            if one.note:
                show(one.note)
        for note in sheet.notes:
            show(note)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(json.loads(json_line(result)), ensure_ascii=False, indent=1)
        (out / "result.json").write_text(text + "\n", encoding="utf-8")
        tell(f"page: {write_sheet(out / 'report.html', sheet)}")
