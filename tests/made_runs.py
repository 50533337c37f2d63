"""What the tests of runs in made worlds share: the smallest settings, and a file of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "preset": "tiny", "seed": 3, "problems": 16, "watched": 4, "tested": 4, "samples": 2,
    "begin_steps": 3, "begin_rows": 64,
    "training": {
        "steps": 2, "prompts_per_step": 2, "num_generations": 4, "learning_rate": 1e-4,
        "max_completion_length": 24, "save_every": 1, "watch_every": 1,
    },
}  # fmt: skip


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    """The path of ``rows`` as a file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
