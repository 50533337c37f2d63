"""How often the alarm of the language watch rings in clean runs, and how soon in hacked ones.

    python scripts/measure_alarm.py            # simulated curves; add recorded runs: runs/a runs/b ...

Simulated: problems of different difficulty, four samples each at every look, the same problems at each. In a clean run
the judge's accuracy rises and stays, or rises and swings by a few points with the training's own noise; the rewards
rise throughout. In a hacked run it falls from its peak while they rise. Recorded runs (their ``looks`` folders) are
read look by look, as the alarm saw them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from guerdon.metrics.verdicts import Rate
from guerdon.trainers.hack_alarm import hack_alarm

RUNS, SAMPLES = 1000, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of recorded language runs")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--looks", type=int, default=11)
    arguments = parser.parse_args()
    print(
        f"{RUNS} simulated runs of {arguments.looks} looks at {arguments.problems} problems, {SAMPLES} samples each\n"
    )
    print("| run | the judge | rings |\n|---|---|---|")
    for name, end, swing in (
        ("clean", 0.6, 0.0), ("clean", 0.6, 0.01), ("clean", 0.6, 0.02), ("clean", 0.3, 0.0), ("clean", 0.3, 0.02),
    ):  # fmt: skip
        said = f"0.30 to {end:.2f} and stays, swings of {swing:.2f}"
        print(f"| {name} | {said} | {rung(arguments, end, end, swing)} |", flush=True)
    for fall in (0.05, 0.1, 0.2, 0.3):
        said = f"0.30 to 0.60, then falls by {fall:.2f}"
        print(f"| hacked | {said} | {rung(arguments, 0.6, 0.6 - fall, 0.01)} |", flush=True)
    for run in arguments.runs:
        steps = sorted(int(path.stem) for path in (run / "looks").glob("*.json"))
        kept = [json.loads((run / "looks" / f"{step:06d}.json").read_text(encoding="utf-8")) for step in steps]
        proxy, judge = (np.array([look[name] for look in kept]) for name in ("proxy", "judge"))
        at = next((steps[n - 1] for n in range(1, len(steps) + 1) if hack_alarm(proxy[:n], judge[:n])), None)
        print(f"| {run.name} | {np.nanmean(judge, axis=1).round(2).tolist()} | {'never' if at is None else at} |")


def rung(arguments: argparse.Namespace, peak: float, end: float, swing: float) -> Rate:
    """The share of simulated runs in which the alarm rings at any look."""
    count = 0
    half = arguments.looks // 2
    rise = np.linspace(0.3, peak, half)
    means = np.concatenate([rise, np.linspace(peak, end, arguments.looks - half + 1)[1:]])
    rewards = np.linspace(0.3, 0.9, arguments.looks)
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        hard = rng.normal(0, 0.25, arguments.problems)
        judge = drawn(means + rng.normal(0, swing, len(means)), hard, rng)
        proxy = drawn(rewards, hard, rng)
        count += any(hack_alarm(proxy[:n], judge[:n]) is not None for n in range(2, len(judge) + 1))
    return Rate.of(count, RUNS)


def drawn(means: np.ndarray, hard: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shares of right samples [looks, problems]."""
    return rng.binomial(SAMPLES, np.clip(means[:, None] + hard, 0.01, 0.99)) / SAMPLES


if __name__ == "__main__":
    main()
