"""``guerdon inspect``: what a preference set is like, before anything trains on it."""

from __future__ import annotations

from pathlib import Path

from guerdon.cli.output import json_line, show, table, tell
from guerdon.core.data import find_source, read_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import load_pairs, text_of


def inspect_pairs(
    file: str,
    columns: list[str],
    benchmark: list[str],
    limit: int | None,
    out: Path | None,
    *,
    skip: bool,
    as_json: bool,
) -> None:
    """Read the pairs of ``file``, measure them, and print a table or one line of JSON."""
    from guerdon.curation.set_report import report_on

    names = renamed(columns)
    pairs = load_pairs(file, skip_bad_rows=skip, limit=limit, out=out, columns=names)
    tell(f"{len(pairs)} pairs from {file}")
    prompts = [prompt for name in benchmark for prompt in _prompts(name, names.get("prompt", "prompt"))]
    report = report_on(pairs, benchmark=prompts)
    if as_json:
        print(json_line({"file": file, "measures": report.to_json()}))
        return
    shown = report.table()
    show(table(f"{file}", shown["columns"], shown["rows"], right=("value",)))


def renamed(columns: list[str]) -> dict[str, str]:
    """name here -> name in the file, from "chosen=answer_a". Raises GuerdonError for anything else."""
    names = {}
    for text in columns:
        ours, equals, theirs = text.partition("=")
        if not equals or not ours or not theirs:
            raise GuerdonError(f"--column {text!r}: write it as OURS=THEIRS, for example chosen=best_answer")
        names[ours] = theirs
    return names


def _prompts(file: str, column: str) -> list[str]:
    return [text_of(row[column]) for _, row in read_rows(find_source(file), required=(column,))]
