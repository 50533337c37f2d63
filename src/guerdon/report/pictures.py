"""Samples of a run as data URIs: the same prompt and the same seed side by side in every arm."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from guerdon.report.record import Record

REFERENCE = "reference"
LARGEST = 384  # pixels a side; a page with two hundred full-size pictures would not open on a phone
PIXELATED_BELOW = 129  # pictures up to 128 pixels are enlarged without smoothing: what is shown is what was drawn


@dataclass(frozen=True)
class Row:
    """One prompt; ``cells`` holds a data URI for each column, None where the picture is not there."""

    index: int
    prompt: str
    rewrite: str
    seed: str
    cells: list[str | None]


@dataclass(frozen=True)
class Grid:
    """``columns``: (folder, label) in the order of the arms, real photographs last."""

    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    pixelated: bool = False
    size: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)


def read_grid(record: Record, *, limit: int = 24) -> Grid:
    """The first ``limit`` samples of every arm that has a folder under samples/."""
    root = record.path / "samples"
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    order = [name for name in record.arms if name in folders]
    # An unfinished run has no arms yet; "base" then leads and the others follow by name.
    order += sorted((name for name in folders if name not in (*order, REFERENCE)), key=lambda n: (n != "base", n))
    if not order:
        return Grid(notes=["samples/ holds no pictures."])
    notes = [f"No pictures of {record.label(name)} (samples/{name}/)." for name in record.arms if name not in folders]
    columns = [(name, record.label(name)) for name in order]
    if REFERENCE in folders:
        columns.append((REFERENCE, "Real photographs"))
    else:
        notes.append("No real photographs beside them (samples/reference/).")
    entries = _read_index(root / "index.json", folders[order[0]], notes)
    if len(entries) > limit:
        notes.append(f"The first {limit} of {len(entries)} samples are shown.")
    reader = _Reader()
    table = []
    for entry in entries[:limit]:
        cells = [reader.uri(folders[name] / f"{entry['index']:03d}.png") for name, _ in columns]
        if any(cells):
            prompt, rewrite, seed = (entry.get(key) for key in ("prompt", "rewrite", "seed"))
            told = (str(prompt or ""), str(rewrite or ""), "" if seed is None else str(seed))
            table.append(Row(entry["index"], *told, cells))
    if reader.damaged:
        notes.append(f"Damaged and left out: {', '.join(reader.damaged)}.")
    if not table:
        notes.append("None of the samples could be shown.")
    small = reader.size is not None and max(reader.size) < PIXELATED_BELOW
    return Grid(columns if table else [], table, small, reader.size, notes)


def _read_index(path: Path, folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = [e for e in data if isinstance(e, dict) and isinstance(e.get("index"), int)]
    except (OSError, ValueError, TypeError):
        found = []
    if found:
        return found
    notes.append("samples/index.json is not there or cannot be read: the prompts are unknown.")
    return [{"index": int(file.stem)} for file in sorted(folder.glob("*.png")) if file.stem.isdecimal()]


class _Reader:
    """Pictures re-encoded: only pixels reach the page, no metadata of the file."""

    def __init__(self) -> None:
        self.damaged: list[str] = []
        self.size: tuple[int, int] | None = None

    def uri(self, path: Path) -> str | None:
        if not path.is_file():
            return None
        try:
            with Image.open(path) as file:
                picture = file.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            self.damaged.append(f"{path.parent.name}/{path.name}")
            return None
        self.size = self.size or picture.size
        if max(picture.size) > LARGEST:
            picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        kind = "jpeg" if max(picture.size) >= PIXELATED_BELOW else "png"
        buffer = io.BytesIO()
        picture.save(buffer, kind, quality=90, optimize=True)  # a PNG has no quality and ignores it
        return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
