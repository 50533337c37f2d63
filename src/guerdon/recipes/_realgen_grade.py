"""RealGen's final figures: RealBench on every arm, a detector trained afresh against each, and what they add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from guerdon.benchmarks.judges import DetectorJudge
from guerdon.benchmarks.realbench import realbench
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.metrics.diversity import diversity, features, manifold_scores
from guerdon.metrics.intervals import Interval, bootstrap_mean
from guerdon.recipes._realgen_config import RealGenConfig
from guerdon.recipes._realgen_world import Score, World
from guerdon.trainers.detector import fresh_detector_accuracy

LABELS = {"base": "base", "stage1": "stage 1: rewritten prompts", "stages12": "stages 1+2: and a tuned generator"}


def grade(
    config: RealGenConfig,
    world: World,
    roles: dict[str, str],
    scores: dict[str, Score],
    arms: dict[str, Tensor],
    folder: RunFolder,
) -> dict[str, Any]:
    """Score every arm on the test prompts; the figures of ``summary.json``."""  # fmt: skip
    test = world.test[: config.evaluation.images]
    held_out = config.detectors.held_out
    embedded = config.preset == "embedded"
    result = realbench(
        {**arms}, reference=test.images, detectors=scores, training_detectors=config.detectors.training,
        judge=DetectorJudge(scores[held_out], margin=0.02), prompts=test.prompts, seed=config.seed,
        codec="png" if embedded else "jpeg:90", size=None if embedded else "auto",
        out=folder.path / "realbench", batch_size=256 if embedded else 16,
    )  # fmt: skip
    real_features = features(test.images)
    summary: dict[str, Any] = {"arms": {}, "reference": {"detectors": {}, "drift": result.drift["real"]}}
    summary["reference"]["diversity"] = diversity(test.images, test.groups)
    for name, images in arms.items():
        aligned = bootstrap_mean(world.align(test.prompts, images).numpy(), groups=test.groups, seed=config.seed)
        rows = {row.detector: row for row in result.detectors if row.player == name}
        arena = next(row for row in result.arena if row.player == name and row.opponent == "real")
        own = arena.score
        summary["arms"][name] = {
            "label": LABELS[name],
            "detectors": {
                key: {
                    "role": roles[key], **_interval(row.mean), "pass_rate": row.pass_rate,
                    "auroc": row.auroc.value if row.auroc else None, "tpr_at_1fpr": row.tpr_at_fpr,
                }
                for key, row in rows.items()
            },
            "alignment": _interval(aligned),
            "diversity": diversity(images, test.groups),
            "coverage": manifold_scores(real_features, features(images)).coverage,
            "fresh": _fresh(config, test.images, images, LABELS[name]),
            "drift": result.drift[name],
            "arena": {
                **_interval(own.win_rate, "win_rate"), "consistency": own.consistency, "slot_bias": own.slot_bias.value,
                "parse_failures": arena.unparseable_rate,
            } if own else None,
        }  # fmt: skip
        for key, row in rows.items():
            if row.reference_mean is not None:
                summary["reference"]["detectors"][key] = {"role": roles[key], **_interval(row.reference_mean)}
    summary["verdicts"] = verdicts(summary["arms"], held_out)
    return summary


def _interval(interval: Interval, name: str = "mean") -> dict[str, float]:
    return {name: interval.value, "low": interval.low, "high": interval.high}


def _fresh(config: RealGenConfig, real: Tensor, fake: Tensor, label: str) -> dict[str, float]:
    """Balanced accuracy of detectors that were never a reward, over seeds (low and high: their extremes)."""
    values = []
    with progress(config.evaluation.fresh_seeds, f"fresh detectors against {label.partition(':')[0]}") as bar:
        for seed in range(config.evaluation.fresh_seeds):
            values.append(
                fresh_detector_accuracy(
                    real, fake, config.evaluation.fresh_family, seed=config.seed + seed,
                    steps=config.evaluation.fresh_steps,
                )
            )  # fmt: skip
            bar.advance(accuracy=values[-1])
    return {"balanced_accuracy": float(np.mean(values)), "low": min(values), "high": max(values)}


def verdicts(arms: dict[str, Any], held_out: str) -> list[dict[str, Any]]:
    """What the run was to show, what it showed, and whether that is enough."""
    base, one, both = (arms[name] for name in ("base", "stage1", "stages12"))

    def real(arm: dict[str, Any]) -> float:
        return arm["detectors"][held_out]["mean"]

    def row(name: str, target: str, value: float, holds: bool) -> dict[str, Any]:
        return {"name": name, "target": target, "value": value, "holds": bool(holds)}

    gain, fresh = real(both) - real(base), both["fresh"]["balanced_accuracy"] - base["fresh"]["balanced_accuracy"]
    rows = [
        row("base does not pass as real (held-out judge)", "below 0.40", real(base), real(base) < 0.4),
        row("held-out judge: stages 1+2 minus base", "at least +0.25", gain, gain >= 0.25),
        row("held-out judge: stage 1 minus base", "above 0", real(one) - real(base), real(one) > real(base)),
        row("fresh detector's accuracy: stages 1+2 minus base", "below 0", fresh, fresh < 0),
    ]
    for key in ("alignment", "diversity", "coverage"):
        values = [arm[key]["mean"] if key == "alignment" else arm[key] for arm in (base, both)]
        ratio = values[1] / values[0] if values[0] else float("nan")
        rows.append(row(f"{key}: stages 1+2 over base", "at least 0.90", ratio, ratio >= 0.9))
    kept = one["alignment"]["mean"] / base["alignment"]["mean"]
    rows.append(row("alignment: stage 1 over base", "at least 0.95", kept, kept >= 0.95))
    return rows
