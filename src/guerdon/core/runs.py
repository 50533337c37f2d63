"""A run is a folder: what was asked, what was measured, and enough to continue as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from guerdon.core.config import to_yaml
from guerdon.core.errors import GuerdonError
from guerdon.core.processes import first

if TYPE_CHECKING:
    import torch

Checkpoint = tuple[dict[str, "torch.Tensor"], dict[str, Any]]
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


class RunFolder:
    """``config.yaml``, ``metrics.jsonl``, ``samples/``, ``checkpoints/``, ``stages/``, ``summary.json`` in one place.

    Open one with ``RunFolder.open``. A recipe of several stages gives each its name (``stage=``): its metric lines and
    checkpoints are then its own, and its steps may start at 0 again. Of several processes only the first writes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.writes = Path(path), first()

    @classmethod
    def open(cls, path: str | Path, config: BaseModel | Mapping[str, Any], *, resume: bool = False) -> RunFolder:
        """Begin a run in a new or empty folder, or continue the one that is there.

        With ``resume``, metric lines beyond the last checkpoint are dropped, so that the file becomes the one of an
        uninterrupted run; a folder that does not exist yet is begun.

        Raises GuerdonError for a folder that holds a run already, for other things in it, and for another configuration
        than the folder's, naming the first key that differs.
        """
        run = cls(path)
        wanted = config.model_dump(mode="json") if isinstance(config, BaseModel) else _plain(dict(config))
        if run.config_path.exists():
            if not resume:
                raise GuerdonError(f"{run.path} already holds a run; resume it, or choose another folder")
            _same_config(run.config(), wanted, run.config_path)
            run._recover()
            return run
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise GuerdonError(f"{run.path} is not empty and holds no run; choose another folder")
        for folder in (run.samples, run.path / "checkpoints", run.path / "stages"):
            folder.mkdir(parents=True, exist_ok=True)
        _write(run.config_path, to_yaml(wanted))
        return run

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    def config(self) -> dict[str, Any]:
        """The resolved configuration that the run began with."""
        try:
            data = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise GuerdonError(f"{self.config_path} cannot be read: {error}") from None
        return data if isinstance(data, dict) else {}

    # Metrics

    def log(self, step: int, metrics: Mapping[str, Any], *, stage: str | None = None) -> None:
        """Append one line ``{"step", "stage"?, ...}`` and flush it. Numbers that are not finite are written as null."""
        if not self.writes:
            return
        line: dict[str, Any] = {"step": int(step), **({"stage": stage} if stage is not None else {})}
        for key, value in metrics.items():
            if key in ("step", "stage"):
                raise GuerdonError(f"{self.metrics_path}: a metric cannot be named {key!r}")
            line[key] = _plain(value)
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def metrics(self, *, stage: str | None = None) -> list[dict[str, Any]]:
        """The metric lines, of one stage if it is named; a partial last line is left out."""
        if not self.metrics_path.exists():
            return []
        lines = []
        for number, raw in enumerate(self.metrics_path.read_bytes().split(b"\n")[:-1], 1):
            try:
                lines.append(json.loads(raw))
            except ValueError:
                raise GuerdonError(f"{self.metrics_path}:{number}: not a line of JSON") from None
        return [line for line in lines if stage is None or line.get("stage") == stage]

    def rollback(self, step: int, *, stage: str | None = None) -> None:
        """Drop the stage's metric lines of later steps than ``step``."""
        self._keep(lambda _, line: line.get("stage") != stage or line.get("step", step) <= step)

    def _keep(self, wanted: Any) -> None:
        if not self.writes or not self.metrics_path.exists():
            return
        kept, offset = [], 0
        for number, raw in enumerate(self.metrics_path.read_bytes().splitlines(keepends=True), 1):
            offset += len(raw)
            if not raw.endswith(b"\n"):
                continue  # the line that was being written when the run was killed
            try:
                line = json.loads(raw)
            except ValueError:
                raise GuerdonError(f"{self.metrics_path}:{number}: not a line of JSON") from None
            if wanted(offset, line):
                kept.append(raw)
        _write(self.metrics_path, b"".join(kept))

    def _metrics_size(self) -> int:
        if not self.metrics_path.exists():
            return 0
        with self.metrics_path.open("rb") as file:
            os.fsync(file.fileno())
        return self.metrics_path.stat().st_size

    def _recover(self) -> None:
        """Undo what an interrupted run left behind: half checkpoints, a half line, lines beyond the last checkpoint."""
        if not self.writes:
            return
        checkpoints = self.path / "checkpoints"
        for folder in (self.samples, checkpoints, self.path / "stages"):
            folder.mkdir(parents=True, exist_ok=True)
        for left in checkpoints.glob(".old-*"):
            home = checkpoints / left.name.removeprefix(".old-")
            if home.exists():
                shutil.rmtree(left)
            else:
                left.rename(home)
        for left in checkpoints.glob(".tmp-*"):
            shutil.rmtree(left)
        states = [_read_json(path / "state.json") for path in self._checkpoints()]
        done = [_read_json(path) for path in sorted((self.path / "stages").glob("*.json"))]
        # All lines up to the last thing that was made safe belong to the past; of later ones, those that the newest
        # checkpoint of their stage covers.
        safe = max([int(entry.get("metrics_bytes", 0)) for entry in (*states, *done)], default=0)
        covered: dict[str | None, int] = {}
        for state in states:
            covered[state["stage"]] = max(covered.get(state["stage"], -1), int(state["step"]))
        self._keep(lambda end, line: end <= safe or line.get("step", 0) <= covered.get(line.get("stage"), -1))

    # Checkpoints

    def save_checkpoint(
        self,
        step: int,
        tensors: Mapping[str, torch.Tensor],
        state: Mapping[str, Any] | None = None,
        *,
        stage: str | None = None,
        keep: int | None = None,
    ) -> Path:
        """Write ``tensors.safetensors`` and ``state.json`` whole or not at all; log the step's metrics before.

        Written into a temporary folder, synced, then renamed. ``keep``: how many of the stage's newest stay, None: all.
        Raises GuerdonError naming what could not be written (disk full, a state that is not JSON); earlier checkpoints
        stay as they were.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        checkpoints = self.path / "checkpoints"
        name = f"{_checked_name(stage)}-{int(step):08d}" if stage is not None else f"step-{int(step):08d}"
        final, old = checkpoints / name, checkpoints / f".old-{name}"
        if not self.writes:
            return final
        partial = checkpoints / f".tmp-{name}-{os.getpid()}"
        entry = {"step": int(step), "stage": stage, "metrics_bytes": self._metrics_size(), "state": dict(state or {})}
        try:
            text = json.dumps(entry)
        except (TypeError, ValueError) as error:
            raise GuerdonError(f"checkpoint {final}: its state is not JSON: {error}") from None
        try:
            partial.mkdir(parents=True)
            save_file(_savable(tensors), partial / "tensors.safetensors")
            _sync(partial / "tensors.safetensors")
            _write(partial / "state.json", text)
            _sync(partial)
            if final.exists():
                final.rename(old)
            partial.rename(final)
            _sync(checkpoints)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not final.exists():
                old.rename(final)
            latest = self.latest_checkpoint(stage=stage)
            intact = f"; the previous one, {latest.name}, is intact" if latest else ""
            raise GuerdonError(f"checkpoint {final} could not be written ({error}){intact}") from error
        if keep is not None:
            for path in self._checkpoints(stage)[: -max(keep, 1)]:
                # Renamed first: killed while deleting, a checkpoint must not be left with half of its files.
                doomed = checkpoints / f".tmp-{path.name}-{os.getpid()}"
                path.rename(doomed)
                shutil.rmtree(doomed)
        return final

    def _checkpoints(self, *stages: str | None) -> list[Path]:
        """Whole checkpoints by step, of the given stages (default: all)."""
        found = []
        for path in (self.path / "checkpoints").glob("[!.]*"):
            if (path / "state.json").is_file() and (path / "tensors.safetensors").is_file():
                entry = _read_json(path / "state.json")
                if not stages or entry["stage"] in stages:
                    found.append((int(entry["step"]), path))
        return [path for _, path in sorted(found)]

    def latest_checkpoint(self, *, stage: str | None = None) -> Path | None:
        """The stage's checkpoint of the highest step, or None."""
        found = self._checkpoints(stage)
        return found[-1] if found else None

    def load_checkpoint(self, path: str | Path) -> Checkpoint:
        """(tensors on the CPU, state with its "step"). Raises GuerdonError naming a file that cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(path)
        entry = _read_json(folder / "state.json")
        try:
            tensors = load_file(folder / "tensors.safetensors")
        except (OSError, SafetensorError) as error:
            raise GuerdonError(f"checkpoint file {folder / 'tensors.safetensors'} cannot be read: {error}") from None
        return tensors, {**entry["state"], "step": entry["step"]}

    # Stages

    def stage_done(self, name: str) -> bool:
        """Whether the stage was marked done."""
        return self._stage_path(name).exists()

    def stage_result(self, name: str) -> Any:
        """What the stage left behind when it was marked done. Raises GuerdonError if it was not."""
        if not self.stage_done(name):
            raise GuerdonError(f"{self.path}: stage {name!r} is not done")
        return _read_json(self._stage_path(name))["result"]

    def mark_done(self, name: str, result: Any = None) -> None:
        """Mark a stage done, with a JSON result; a resumed run skips it."""
        if not self.writes:
            return
        entry = {"result": _plain(result), "metrics_bytes": self._metrics_size()}
        _write(self._stage_path(name), json.dumps(entry, indent=1, ensure_ascii=False))

    def _stage_path(self, name: str) -> Path:
        return self.path / "stages" / f"{_checked_name(name)}.json"

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        """Write ``summary.json``; numbers that are not finite become null."""
        path = self.path / "summary.json"
        if self.writes:
            _write(path, json.dumps(_plain(dict(summary)), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return path

    def summary(self) -> dict[str, Any]:
        """What ``write_summary`` wrote. Raises GuerdonError if there is none."""
        return _read_json(self.path / "summary.json")


def _savable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # safetensors refuses views and tied weights; every tensor gets memory of its own.
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _checked_name(name: str) -> str:
    if not _NAME.match(name):
        raise GuerdonError(f"stage name {name!r} may hold only letters, digits, '_', '-' and '.'")
    return name


def _plain(value: Any) -> Any:
    """Paths, numpy and torch scalars and arrays as JSON; nan and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise GuerdonError(f"{value!r} ({type(value).__name__}) cannot be written as JSON")


def _same_config(there: Any, wanted: Any, path: Path, prefix: str = "") -> None:
    for key in {**there, **wanted}:
        dotted = f"{prefix}{key}"
        one, other = there.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            _same_config(one, other, path, f"{dotted}.")
        elif one != other or (key in there) != (key in wanted):
            has, asked = (repr(side[key]) if key in side else "no such key" for side in (there, wanted))
            raise GuerdonError(f"{path}: the run has {dotted} = {has}, but {asked} was asked for; use a new folder")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GuerdonError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise GuerdonError(f"{path} does not hold a JSON object")
    return data


def _write(path: Path, content: str | bytes) -> None:
    """Replace a file whole or not at all."""
    partial = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
