"""The flagship experiment: RealGen on the embedded base, every arm, several seeds; prints the README's table.

    python scripts/flagship.py --out runs/flagship --seeds 11,12,13

The main arm runs the whole recipe. Every other arm takes over its judges and its rewriter and repeats stage 2 with one
thing changed: the reward (negative controls), all safeguards (the naive recipe), or one safeguard (ablations). Killed
and started again it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from guerdon.core.config import load_config
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.recipes import realgen
from guerdon.report.html import write_report

CONTROLS = {
    "main": [],
    "naive": [
        "detectors.training=[cnn]", "safeguards.corrupted_negatives=false", "safeguards.augmentation=false",
        "safeguards.adversarial=false", "safeguards.robust_reward=false", "safeguards.early_stopping=false",
        "generator.kl_weight=0", "alignment_weight=0", "generator.steps=96",
    ],
    "random": ["reward=random", "generator.steps=16"],
    "smoothness": ["reward=smoothness", "generator.steps=16"],
}  # fmt: skip
ABLATIONS = {
    "no corrupted negatives": ["safeguards.corrupted_negatives=false"],
    "no augmentation": ["safeguards.augmentation=false"],
    "frozen detectors": ["safeguards.adversarial=false"],
    "no robust reward": ["safeguards.robust_reward=false"],
    "no early stopping": ["safeguards.early_stopping=false"],
    "one detector": ["detectors.training=[cnn]"],
    "no KL": ["generator.kl_weight=0"],
}
LABELS = {"main": "safeguarded (the demo)", "naive": "one frozen detector as the only reward, no safeguards"}
COLUMNS = ("held-out P(real)", "training P(real)", "fresh detector", "alignment", "diversity", "coverage")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/flagship"))
    parser.add_argument("--seeds", default="11,12,13")
    parser.add_argument("--arms", default="", help="comma-separated; default: controls; 'all' adds the ablations")
    parser.add_argument("--collect", action="store_true", help="run nothing: the table of the runs that are finished")
    parser.add_argument("--set", action="append", default=[], help="a.b=c, for every arm")
    arguments = parser.parse_args()
    known = CONTROLS | ABLATIONS
    chosen = {"": list(CONTROLS), "all": list(known)}.get(arguments.arms, arguments.arms.split(","))
    for name in chosen:
        if name not in known:
            raise GuerdonError(f"unknown arm '{name}'; choices: {', '.join(known)}")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if not arguments.collect:
        for seed in seeds:
            for name in chosen:
                run_arm(arguments.out, seed, name, known[name], arguments.set)
    results = collected(arguments.out)
    (arguments.out / "flagship.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    table = to_markdown(results)
    (arguments.out / "flagship.md").write_text(table, encoding="utf-8")
    print(table)


def collected(out: Path) -> dict[str, list[dict[str, float]]]:
    """The figures of every run in ``out`` that is finished, a list of seeds by table row, whatever was run today."""
    results: dict[str, list[dict[str, float]]] = {}
    for name in CONTROLS | ABLATIONS:
        paths = out.glob(f"{folder_of(out, name, 0).name.removesuffix('0')}[0-9]*")
        for path in sorted(paths, key=lambda one: int(one.name.rpartition("-")[2])):
            if (path / "summary.json").exists():
                for row, figures in rows_of(name, RunFolder(path).summary()).items():
                    results.setdefault(row, []).append(figures)
    return results


def folder_of(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.replace(' ', '-')}-{seed}"


def run_arm(out: Path, seed: int, name: str, changes: list[str], everywhere: list[str]) -> None:
    """Run one arm in its own folder, unless it is finished there."""
    path = folder_of(out, name, seed)
    overrides = [f"seed={seed}", *everywhere, *changes]
    if name != "main":
        overrides.append(f"reuse={folder_of(out, 'main', seed)}")
    config = load_config(realgen.CONFIG, overrides=overrides, preset=realgen.PRESETS["embedded"])
    folder = RunFolder.open(path, config, resume=path.exists())
    if not (path / "summary.json").exists():
        print(f"== {name}, seed {seed}", flush=True)
        torch.manual_seed(seed)
        realgen.run(config, folder, resume=True)
        write_report(path)


def rows_of(name: str, summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of one run by table row; the main run also gives the rows of base and stage 1."""
    arms = summary["arms"]
    rows = {name: figures_of(arms["stages12"])}
    if name == "main":
        rows = {"base": figures_of(arms["base"]), "stage 1": figures_of(arms["stage1"])} | rows
    return rows


def figures_of(arm: dict[str, Any]) -> dict[str, float]:
    by_role: dict[str, list[float]] = {}
    for detector in arm["detectors"].values():
        by_role.setdefault(detector["role"], []).append(detector["mean"])
    return {
        "held-out P(real)": by_role["held-out"][0],
        "training P(real)": statistics.mean(by_role["training"]),
        "fresh detector": arm["fresh"]["balanced_accuracy"],
        "alignment": arm["alignment"]["mean"],
        "diversity": arm["diversity"],
        "coverage": arm["coverage"],
    }


def to_markdown(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds, a row an arm."""
    lines = ["| arm | seeds | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, rows in results.items():
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in rows]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        lines.append(f"| {LABELS.get(name, name)} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
