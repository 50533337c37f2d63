"""The flagship's table is of all finished runs, whatever was run last."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "scripts" / "flagship.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("flagship", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arm(value: float) -> dict[str, Any]:
    detectors = {"cnn": {"role": "training", "mean": value}, "spectrum": {"role": "held-out", "mean": value / 2}}
    return {
        "detectors": detectors, "fresh": {"balanced_accuracy": value}, "alignment": {"mean": value},
        "diversity": value, "coverage": value,
    }  # fmt: skip


def finished(path: Path, value: float) -> None:
    path.mkdir()
    arms = {"base": arm(0.1), "stage1": arm(0.2), "stages12": arm(value)}
    (path / "summary.json").write_text(json.dumps({"arms": arms}), encoding="utf-8")


def test_one_arm_run_later_does_not_drop_the_others(tmp_path: Path) -> None:
    flagship = script()
    for name, value in (("main-11", 0.4), ("main-9", 0.6), ("no-KL-11", 0.8), ("random-12", 0.2)):
        finished(tmp_path / name, value)
    (tmp_path / "naive-11").mkdir()  # begun, not finished
    found = flagship.collected(tmp_path)
    assert {name: len(rows) for name, rows in found.items()} == {
        "base": 2, "stage 1": 2, "main": 2, "random": 1, "no KL": 1,
    }  # fmt: skip
    assert [row["training P(real)"] for row in found["main"]] == [0.6, 0.4], "by seed as a number"
    assert "| safeguarded (the demo) | 2 | 0.250 ± 0.071 |" in flagship.to_markdown(found)
