"""What the commands write: tables and one-line errors, results to the standard output, all else to the error output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


class Interrupted(KeyboardInterrupt):
    """The person stopped a command; the message says how to go on."""


def show(renderable: RenderableType, *, error: bool = False) -> None:
    """Print a table or text; where the output is no terminal, wide enough that nothing is cut."""
    stream = sys.stderr if error else sys.stdout
    shown = Text(renderable) if isinstance(renderable, str) else renderable
    Console(file=stream, width=None if stream.isatty() else 200, highlight=False).print(shown)


def tell(message: str) -> None:
    """A line for the person, beside the results."""
    print(message, file=sys.stderr, flush=True)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]], *, right: Iterable[str] = ()) -> Table:
    """A table of plain texts: names and captions come from outside and are never read as markup."""
    made = Table(title=Text(title, style="bold"), title_justify="left")
    numbers = set(right)
    for name in columns:
        made.add_column(Text(name), justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


def number(value: float | None) -> str:
    """Four digits, or a dash where there is no number."""
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def json_line(value: Mapping[str, Any]) -> str:
    """One line of strict JSON; numbers that are not finite become null."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
