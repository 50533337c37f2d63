"""What a run folder says, read with tolerance: a report of an unfinished or damaged run is still a report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from guerdon.core.errors import GuerdonError

ROLES = ("training", "validation", "held-out")
_MARKERS = ("config.yaml", "metrics.jsonl", "summary.json", "samples")


@dataclass(frozen=True)
class Series:
    """One logged quantity of one stage: ``values`` at ``steps``, finite, steps ascending."""

    key: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    def at(self, step: int) -> float:
        """The value at the logged step nearest to ``step`` (the earlier one of two)."""
        return self.values[min(range(len(self.steps)), key=lambda i: (abs(self.steps[i] - step), i))]


@dataclass(frozen=True)
class Record:
    """A run folder as far as it could be read; ``missing`` says in plain words what could not."""

    path: Path
    name: str
    summary: dict[str, Any]
    stages: dict[str, dict[str, Series]]
    config: str | None
    missing: list[str] = field(default_factory=list)

    @property
    def rewarded(self) -> set[str]:
        """Names of the training detectors: from the measured arms, in an unfinished run from the configuration."""
        arms = [mapping(arm, "detectors") for arm in self.arms.values()]
        found = {name for detectors in arms for name in detectors if mapping(detectors, name).get("role") == "training"}
        if found or self.config is None:
            return found
        try:
            names = mapping(yaml.safe_load(self.config), "detectors").get("training")
        except yaml.YAMLError:
            return set()
        return {str(name) for name in names} if isinstance(names, list) else set()

    @property
    def textual(self) -> bool:
        """Whether the policy writes texts, not pictures."""
        return "policy" in self.stages

    @property
    def finished(self) -> bool:
        return bool(self.summary)

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """The measured versions of the policy in the order of the summary, ``base`` first where there is one."""
        arms = {str(name): dict(arm) for name, arm in mapping(self.summary, "arms").items() if isinstance(arm, Mapping)}
        return dict(sorted(arms.items(), key=lambda item: item[0] != "base"))

    @property
    def base(self) -> str | None:
        """The arm before training: the first one."""
        return next(iter(self.arms), None)

    @property
    def final(self) -> str | None:
        """The arm after all training: ``stages12`` where there is one, else the last; None with fewer than two arms."""
        arms = list(self.arms)
        return None if len(arms) < 2 else "stages12" if "stages12" in arms else arms[-1]

    def style(self, arm: str) -> str:
        """The colour of an arm everywhere on the page: arm0 before, arm2 after, arm1 between."""
        return "arm0" if arm == self.base else "arm2" if arm == self.final else "arm1"

    @property
    def reference(self) -> dict[str, Any]:
        return mapping(self.summary, "reference")

    def label(self, arm: str) -> str:
        return str(self.arms.get(arm, {}).get("label") or arm)


def number(value: Any) -> float | None:
    """A finite float, or None for anything else (booleans and text are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def mapping(parent: Any, *keys: str) -> dict[str, Any]:
    """The mapping at ``parent[key][key]...``, empty where there is none."""
    for key in keys:
        parent = parent.get(key) if isinstance(parent, Mapping) else None
    return dict(parent) if isinstance(parent, Mapping) else {}


def rows(parent: Any, key: str) -> list[dict[str, Any]]:
    """The mappings in the list ``parent[key]``, empty where there is none."""
    items = parent.get(key) if isinstance(parent, Mapping) else None
    return [dict(item) for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def read_record(path: str | Path) -> Record:
    """Read the run folder at ``path``. Raises GuerdonError when it is not a run folder at all."""
    folder = Path(path)
    if not folder.is_dir():
        raise GuerdonError(f"{folder} is not a folder; give the folder of a run (it holds config.yaml)")
    if not any((folder / name).exists() for name in _MARKERS):
        raise GuerdonError(f"{folder} is not a run folder: it holds none of {', '.join(_MARKERS)}")
    missing: list[str] = []
    summary = _read_summary(folder / "summary.json", missing)
    stages = _read_metrics(folder / "metrics.jsonl", missing)
    config = None
    try:
        config = (folder / "config.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        missing.append("config.yaml is not there: the configuration is unknown.")
    except (OSError, UnicodeDecodeError) as error:
        missing.append(f"config.yaml cannot be read ({error}).")
    return Record(folder, folder.resolve().name, summary, stages, config, missing)


def _read_summary(path: Path, missing: list[str]) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append("summary.json is not there: the run has not reached its final measurements.")
        return {}
    except (OSError, ValueError) as error:
        missing.append(f"summary.json cannot be read ({error}): the final measurements are left out.")
        return {}
    if not isinstance(data, dict):
        missing.append("summary.json is not a JSON object: the final measurements are left out.")
        return {}
    return data


def _read_metrics(path: Path, missing: list[str]) -> dict[str, dict[str, Series]]:
    """Stage -> key -> series. A step logged twice (a resumed run) keeps its last value; broken lines are counted."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        missing.append("metrics.jsonl is not there: no curves can be drawn.")
        return {}
    points: dict[str, dict[str, dict[int, float]]] = {}
    broken = 0
    for line in filter(str.strip, lines):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        step = number(row.get("step")) if isinstance(row, dict) else None
        if step is None:
            broken += 1
            continue
        stage = points.setdefault(str(row.get("stage") or "training"), {})
        for key, value in row.items():
            finite = number(value)
            if key not in ("step", "stage") and finite is not None:
                stage.setdefault(str(key), {})[int(step)] = finite
    if broken:
        missing.append(f"metrics.jsonl: {broken} line{'s' if broken > 1 else ''} could not be read and were left out.")
    if not points:
        missing.append("metrics.jsonl holds no rows yet: no curves can be drawn.")
    return {
        stage: {key: Series(key, *zip(*sorted(series.items()))) for key, series in keys.items()}
        for stage, keys in points.items()
    }
