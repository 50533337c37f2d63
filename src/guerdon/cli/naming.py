"""Rewards and detectors as a command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerdon.core.catalogue import is_model_path, load_reward, rewards
from guerdon.core.config import parse_scalar
from guerdon.core.errors import GuerdonError, unknown


def named_rewards(text: str, settings: Sequence[str]) -> dict[str, Any]:
    """name -> reward, from "a,b,mine=c" and settings such as "mine.folder=runs/x".

    Each is a name of the catalogue, "module:function", "file.py:function", or the folder of a saved detector or reward
    model (or a reward model's hub id); it goes by what stands before "=", else by itself, a folder by its last part.
    Raises GuerdonError for a name given twice, an unknown reward, and a setting that fits none of them.
    """
    specs: dict[str, str] = {}
    for part in text.split(","):
        alias, equals, spec = part.strip().partition("=")
        if not equals:
            alias, spec = "", alias
        if not spec:
            raise GuerdonError(f"{text!r} names no reward; write names separated by commas")
        name = alias or (Path(spec).resolve().name if is_model_path(spec) else spec)
        if name in specs:
            raise GuerdonError(f"{name!r} is named twice; tell them apart as first={specs[name]},second={spec}")
        specs[name] = spec
    configs = _configs(specs, settings)
    return {name: _load(spec, configs[name]) for name, spec in specs.items()}


def is_saved_detector(spec: str) -> bool:
    """Whether ``spec`` is the folder of a detector as ``guerdon run realgen`` saves it."""
    return (Path(spec) / "detector.json").is_file()


def _configs(specs: dict[str, str], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    configs: dict[str, dict[str, Any]] = {name: {} for name in specs}
    for setting in settings:
        dotted, equals, value = setting.partition("=")
        # The longest name first: one name may begin another.
        owner = next((n for n in sorted(specs, key=len, reverse=True) if dotted.startswith(f"{n}.")), None)
        if not equals or "." not in dotted:
            raise GuerdonError(f"--set {setting!r}: write it as NAME.key=value, for example clip_score.mode=cosine")
        if owner is None:
            raise unknown("reward in --set", dotted.rpartition(".")[0], specs)
        configs[owner][dotted[len(owner) + 1 :]] = parse_scalar(value)
    return configs


def _load(spec: str, config: dict[str, Any]) -> Any:
    if is_saved_detector(spec):
        return load_reward("detector", **{"folder": spec, "name": Path(spec).name, **config})
    if spec not in rewards() and is_model_path(spec):
        return load_reward(spec, **{"name": Path(spec).resolve().name, **config})
    return load_reward(spec, **config)
