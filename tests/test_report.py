"""The report: what it says is computed from the run, nothing from the run can become markup, nothing is loaded."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from rich.console import Console

from guerdon.core.errors import GuerdonError
from guerdon.core.photographs import sample
from guerdon.core.runs import RunFolder
from guerdon.report import find, read_record, render, summary_table, write_report
from guerdon.report.figures import running_mean, spread
from guerdon.report.tables import approach, verdict_of

ARMS = {"base": "Base", "stage1": "Stage 1", "stages12": "Stages 1+2"}
ROLES = {"cnn": "training", "patch": "training", "gradient": "training", "wavelet": "validation", "spectrum": "held-out"}
METERS = {"edge_density": (0.21, 0.44), "colour_entropy": (3.6, 4.3), "saturation": (0.29, 0.33), "dark_share": (0.11, 0.12),
          "sharpness": (0.006, 0.031), "noise": (0.008, 0.021)}  # fmt: skip
# P(real) of each arm by outcome: (training detectors, validation, held-out); real photographs get 0.88
LEVELS = {
    "improved": {"base": (0.28, 0.33, 0.34), "stage1": (0.41, 0.42, 0.43), "stages12": (0.66, 0.67, 0.64)},
    "hacked": {"base": (0.28, 0.33, 0.34), "stage1": (0.41, 0.36, 0.35), "stages12": (0.97, 0.30, 0.24)},
    "unchanged": {"base": (0.28, 0.33, 0.34), "stage1": (0.29, 0.33, 0.35), "stages12": (0.30, 0.34, 0.33)},
}
FRESH = {"improved": (0.81, 0.78, 0.69), "hacked": (0.81, 0.8, 0.99), "unchanged": (0.81, 0.81, 0.82)}


def summary(outcome: str, rewrites: int = 14) -> dict[str, Any]:
    """A summary as the recipe writes it, with figures of one ``outcome``."""
    arms: dict[str, Any] = {}
    for place, (name, label) in enumerate(ARMS.items()):
        by_role = dict(zip(("training", "validation", "held-out"), LEVELS[outcome][name]))
        detectors = {}
        for shift, (detector, role) in enumerate(ROLES.items()):
            mean = min(by_role[role] + 0.01 * (shift % 3), 0.99)
            detectors[detector] = {
                "role": role, "mean": mean, "low": mean - 0.035, "high": min(mean + 0.035, 1.0), "pass_rate": mean**1.2,
                "auroc": 0.95 - 0.45 * mean, "tpr_at_1fpr": 0.5 * (1 - mean),
            }  # fmt: skip
        fresh = FRESH[outcome][place]
        step = place / 2 if outcome != "unchanged" else 0.02 * place
        arms[name] = {
            "label": label,
            "detectors": detectors,
            "alignment": {"mean": 0.262 - 0.003 * place, "low": 0.255 - 0.003 * place, "high": 0.269 - 0.003 * place},
            "diversity": 1.32 + (0.05 if outcome == "improved" else -0.3) * step,
            "coverage": 0.61 + (0.12 if outcome == "improved" else -0.25) * step,
            "fresh": {"balanced_accuracy": fresh, "low": fresh - 0.03, "high": min(fresh + 0.03, 1.0)},
            "drift": {meter: base + (1.9 if outcome == "hacked" else 0.6) * step * (real - base) for meter, (base, real) in METERS.items()},
            "arena": {"win_rate": 0.14 + 0.3 * step, "low": 0.10 + 0.3 * step, "high": 0.19 + 0.3 * step, "consistency": 0.83,
                      "slot_bias": 0.04, "parse_failures": 0} if place != 1 else None,
        }  # fmt: skip
    gain = arms["stages12"]["detectors"]["spectrum"]["mean"] - arms["base"]["detectors"]["spectrum"]["mean"]
    fell = arms["stages12"]["diversity"] / arms["base"]["diversity"] - 1
    tails = ("raw photo, natural grain", "crisp snapshot", "sharp detailed photo, daylight")
    return {
        "system": "realgen", "title": "RealGen: photorealism from detector rewards", "seed": 11, "seconds": 682.4,
        "stages": [{"name": "detectors", "seconds": 74.0}, {"name": "rewriter", "seconds": 131.5}, {"name": "generator", "seconds": 331.2},
                   {"name": "evaluation", "seconds": 140.1}],
        "finding": None, "arms": arms,
        "reference": {"detectors": {name: {"mean": 0.88, "low": 0.86, "high": 0.9, "pass_rate": 0.93} for name in ROLES},
                      "drift": {meter: real for meter, (_, real) in METERS.items()}, "diversity": 1.41},
        "verdicts": [
            {"name": "held-out judge: gain from base to stages 1+2", "target": "at least +0.25", "value": gain, "holds": gain >= 0.25},
            {"name": "fresh detector: change of balanced accuracy", "target": "below 0", "value": FRESH[outcome][2] - 0.81,
             "holds": FRESH[outcome][2] < 0.81},
            {"name": "alignment: relative change", "target": "at least -10%", "value": -0.02, "holds": True},
            {"name": "diversity: relative change", "target": "at least -10%", "value": fell, "holds": fell >= -0.1},
            {"name": "stage 1 beats the untouched prompt at equal alignment", "target": "above 0", "value": None, "holds": None},
        ],
        "rewrites": [{"prompt": f"a picture of {sample(1, seed=i).captions[0].split(' of ')[-1]}",
                      "rewrite": "" if i == 5 else f"a {tails[i % 3]} of the same, taken on a walk", "valid": i != 5} for i in range(rewrites)],
        "rewriter": {"distinct_2": 0.41, "commonest_tail_share": 0.19, "malformed_share": 0.02},
        "stopped": {"step": 36, "reason": "no better validation score in 4 measurements", "chosen_step": 20},
    }  # fmt: skip


def log_training(run: RunFolder, outcome: str, *, steps: int = 40) -> None:
    """Both stages: noisy rewards, sparse judges and meters; the held-out judge peaks near step 20 and falls."""
    rng = np.random.default_rng(3)
    for step in range(1, 21):
        rise = 1 - np.exp(-step / 8)
        rewards = {f"reward/{name}": 0.28 + 0.14 * rise + rng.normal(0, 0.02) for name, role in ROLES.items() if role == "training"}
        run.log(step, {**rewards, "reward/alignment": 0.26 + rng.normal(0, 0.004), "reward/format": 0.98, "kl": 0.02 * rise, "seconds": 6.1},
                stage="rewriter")  # fmt: skip
    for step in range(steps + 1):
        top = {"improved": 0.6, "hacked": 0.68, "unchanged": 0.02}[outcome]
        rise = 1 - np.exp(-step / 10)
        row: dict[str, Any] = {f"reward/{name}": min(0.38 + 0.02 * i + top * 0.85 * rise + rng.normal(0, 0.025), 0.995)
                               for i, name in enumerate(("cnn", "patch", "gradient"))}  # fmt: skip
        row |= {"reward/alignment": 0.26, "kl": 2e-4 * rise, "ratio": 1 + rng.normal(0, 1e-4), "lr": 3e-4, "seconds": 8.0}
        if step % 4 == 0:
            hump = {"improved": 0.27, "hacked": 0.0, "unchanged": 0.01}[outcome] * np.exp(-(((step - 21) / 13) ** 2))
            late = 0.12 * max(0, step - 24) / 16 if outcome != "unchanged" else 0.0
            row["judge/spectrum/held-out"] = 0.40 + hump - late + rng.normal(0, 0.01)
            row["judge/wavelet/validation"] = 0.41 + hump - late + rng.normal(0, 0.01)
            for meter, (base, real) in METERS.items():
                row[f"drift/{meter}"] = base + (real - base) * (1.2 * step / 40 + rng.normal(0, 0.03))
            row |= {"distance_to_base": 0.9 * rise, "alignment": 0.262 - 0.0002 * step, "diversity": 1.32 + 0.002 * step}
        run.log(step, row, stage="generator")


def draw_samples(path: Path, count: int = 12) -> None:
    photographs = sample(count, seed=5)
    pictures = [Image.fromarray(image) for image in photographs.images]
    blur = {"base": 1.3, "stage1": 0.9, "stages12": 0.45}
    for folder in (*blur, "reference"):
        (path / "samples" / folder).mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(pictures):
            shown = picture if folder == "reference" else picture.filter(ImageFilter.GaussianBlur(blur[folder]))
            shown.save(path / "samples" / folder / f"{index:03d}.png")
    entries = [{"index": i, "prompt": photographs.captions[i], "rewrite": f"a sharp detailed raw photo of {photographs.captions[i]}", "seed": 900 + i}
               for i in range(count)]  # fmt: skip
    (path / "samples" / "index.json").write_text(json.dumps(entries), encoding="utf-8")


def make_run(path: Path, outcome: str = "improved", *, finished: bool = True, images: int = 12) -> Path:
    run = RunFolder.open(path, {"system": "realgen", "seed": 11, "detectors": {"training": ["cnn", "patch", "gradient"]},
                                "generator": {"learning_rate": 3e-4, "steps": 40}})
    log_training(run, outcome, steps=36 if finished else 12)
    if finished:
        run.write_summary(summary(outcome))
        draw_samples(path, images)
    return path
