"""``guerdon run``, ``claim`` and ``report``."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import BaseModel

from guerdon.cli.output import Interrupted, json_line, show, tell
from guerdon.core.catalogue import System, find_system
from guerdon.core.config import load_config, parse_scalar
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.processes import count, first, first_goes_first, leave
from guerdon.core.runs import RunFolder

RUNS = Path("runs")
VERDICTS = ("holds", "fails", "inconclusive")


def run_system(
    slug: str,
    preset: str | None,
    config_file: Path | None,
    changes: Mapping[str, Any],
    overrides: list[str],
    out: Path | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Run a system in its folder, write its report, and print its summary.

    changes: keys that have an option of their own (None: not given); they come before ``overrides``.
    """
    if resume and overwrite:
        raise GuerdonError("--resume goes on with a run and --overwrite deletes it; give one of the two")
    recipe = find_recipe(find_system(slug))
    if count() > 1 and out is None:
        raise GuerdonError("a run of several processes needs --out: each of them would choose another folder")
    path = out or (_newest(slug) if resume else RUNS / f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}")
    if resume and config_file is None and (path / "config.yaml").is_file():
        config_file = path / "config.yaml"
    config = _configured(slug, recipe, preset, config_file, changes, overrides)
    with first_goes_first():
        if overwrite and first():
            _delete(path)
        folder = RunFolder.open(path, config, resume=resume or not first())
    if first():
        tell(f"run folder: {folder.path}")
    again = f"guerdon run {slug} --out {shlex.quote(str(path))} --resume"
    try:
        summary = recipe.run(config, folder, resume)
    except KeyboardInterrupt:
        raise Interrupted(f"\ninterrupted; the last checkpoint is whole. To go on: {again}") from None
    except (GuerdonError, OSError):
        if first():
            tell(f"the run stopped; what it had finished is in {path}. To go on after mending: {again}")
        raise
    leave()
    if not first():
        return
    if not (folder.path / "summary.json").exists():
        folder.write_summary(summary)
    print_report(folder.path)


def find_recipe(system: System) -> ModuleType:
    """The module with CONFIG, PRESETS and ``run``: that of ``target``, else the recipe named by the slug."""
    if system.how != "run":
        word = system.how if system.how in ("bench", "compare", "audit") else "score --reward"
        raise GuerdonError(f"system {system.slug!r} is not run; it is used by: guerdon {word} ({system.docs})")
    name = system.target.partition(":")[0] or f"guerdon.recipes.{system.module}"
    recipe = _module(name, f"system {system.slug!r} has no recipe {name!r} here")
    for attribute in ("CONFIG", "PRESETS", "run"):
        if not hasattr(recipe, attribute):
            raise GuerdonError(f"recipe {name!r} has no {attribute}")
    return recipe


def _module(name: str, otherwise: str) -> ModuleType:
    try:
        there = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise GuerdonError(otherwise)
    return importlib.import_module(name)


def _configured(
    slug: str,
    recipe: ModuleType,
    preset: str | None,
    config_file: Path | None,
    changes: Mapping[str, Any],
    overrides: list[str],
) -> BaseModel:
    cls: type[BaseModel] = recipe.CONFIG
    given = []
    for key, value in changes.items():
        if value is not None:
            if not _has(cls, key):
                option = {"rewards": "reward"}.get(key, key.rpartition(".")[2]).replace("_", "-")
                raise GuerdonError(f"--{option}: system {slug!r} has no configuration key {key!r}")
            given.append(f"{key}={json.dumps(value)}")
    chosen = _value_of("preset", config_file, overrides)
    if preset is not None and chosen is not None and chosen != preset:
        raise GuerdonError(f"--preset is {preset!r}, but the configuration says preset {chosen!r}")
    name = preset if preset is not None else chosen
    if name is None and hasattr(recipe, "preset_for"):
        name = recipe.preset_for(_value_of("model", config_file, [*given, *overrides]))
    if name is None and "preset" in cls.model_fields:
        name = cls.model_fields["preset"].default
    start: dict[str, Any] = {}
    if name is not None:
        if name not in recipe.PRESETS:
            raise unknown("preset", str(name), recipe.PRESETS)
        start = dict(recipe.PRESETS[name])
        if "preset" in cls.model_fields:
            start["preset"] = name
    return load_config(cls, config_file, [*given, *overrides], preset=start)


def _has(cls: Any, key: str) -> bool:
    """Whether a configuration has the dotted ``key``."""
    first, _, rest = key.partition(".")
    field = getattr(cls, "model_fields", {}).get(first)
    return field is not None and (not rest or _has(field.annotation, rest))


def _value_of(name: str, config_file: Path | None, overrides: list[str]) -> str | None:
    """What a file or an override says of a key before the configuration is made (of the preset, which comes first)."""
    found = None
    if config_file is not None:
        try:
            data = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            data = None  # load_config reads it again and says what is wrong with it
        found = data.get(name) if isinstance(data, dict) else None
    for override in overrides:
        key, equals, text = override.partition("=")
        if key.strip() == name and equals:
            found = parse_scalar(text)
    return None if found is None else str(found)


def _newest(slug: str) -> Path:
    runs = [path for path in RUNS.glob(f"{slug}-*") if (path / "config.yaml").is_file()]
    if not runs:
        raise GuerdonError(f"there is no run of {slug!r} in {RUNS}/ to resume; name its folder with --out")
    return max(runs, key=lambda path: (path / "config.yaml").stat().st_mtime)


def _delete(path: Path) -> None:
    """Delete a run, and only a run: a folder of other things stays, whatever was asked."""
    if not path.exists() or path.is_dir() and not any(path.iterdir()):
        return
    marks = (path / "config.yaml").is_file() and (path / "checkpoints").is_dir() and (path / "stages").is_dir()
    if not marks or Path.cwd().resolve().is_relative_to(path.resolve()):
        raise GuerdonError(f"--overwrite: {path} does not look like the folder of a run, so it was not deleted")
    shutil.rmtree(path)


def print_report(path: Path) -> None:
    """Write ``report.html`` of a run folder and print its summary and place."""
    from guerdon.report.html import write_report
    from guerdon.report.terminal import given_tables, summary_table

    written = write_report(path)
    for table in (*given_tables(path), summary_table(path)):
        show(table)
    print(f"report: {written}")


def check_claim(slug: str, seeds: str, *, as_json: bool) -> str:
    """Run a system's claim, print its table or its JSON object, and return its verdict."""
    system = find_system(slug)
    try:
        numbers = tuple(int(seed) for seed in seeds.split(","))
    except ValueError:
        raise GuerdonError(f"--seeds takes whole numbers separated by commas, got {seeds!r}") from None
    name = f"guerdon.claims.{system.module}"
    run: Callable[..., Any] = _module(name, f"system {slug!r} has no claim {name!r} here").run
    started = time.monotonic()
    result = run(seeds=numbers)
    found: dict[str, Any] = {"slug": slug, "seeds": list(numbers), "seconds": round(time.monotonic() - started, 1)}
    found |= result.to_json()
    verdict = found.get("verdict")
    if verdict not in VERDICTS:
        raise GuerdonError(f"claim {slug!r} gave the verdict {verdict!r}; it must be one of {', '.join(VERDICTS)}")
    if as_json:
        show(result.table(), error=True)
        print(json_line(found), flush=True)
    else:
        show(result.table())
        print(f"{slug}: the claim {'is ' if verdict == 'inconclusive' else ''}{verdict}")
    return verdict
