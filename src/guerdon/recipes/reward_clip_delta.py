"""Clip and Delta: On Designing Effective RL Reward at Training Time for LLM Reasoning (arXiv 2410.15115).

maximise  Correct(q, s) + alpha sum_k r_k,  r_k at the end of step k, from a process reward model's scores x_k:
    c_k = min(x_k - eta, 0)                                                           (Clip)
    r_k = c_k - c_{k+1} for k < K - 1, r_{K-1} = c_{K-1}, r_K = 0                      (Delta)
The baseline that must be beaten is success alone; the arm "raw scores" (r_k = x_k) is what goes wrong without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.core.segments import segmenter
from guerdon.models.scalar.backbone import quiet
from guerdon.models.step_scorer import StepScorer, load_step_scorer
from guerdon.objectives.step_rewards import Mode
from guerdon.policies.reasoner import ASSETS
from guerdon.recipes._dense_run import Arm, DenseRunConfig, Problems, begin, load_problems, run_arms, sampled
from guerdon.rewards.process import ProcessReward
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.rewards.text.segment_judges import calculation_judge
from guerdon.trainers.step_labels import StepTuningConfig, segment_accuracy, tune_step_scorer

TITLE = "On Designing Effective RL Reward at Training Time for LLM Reasoning"
PRM = "prm"


def _both() -> list[Mode]:
    return ["none", "clip_delta"]


class ClipDeltaConfig(DenseRunConfig):
    """Clip and Delta beside success. eta, alpha and all settings of the training are UNVERIFIED: the paper has none.

    prm: a process reward model's folder or hub id; None: one is trained on steps that the embedded reasoner samples,
    labelled by whether every calculation so far is right. trust_remote_code: for a model that brings code. steps_cut:
    what a step is. modes: of the shaping, an arm each, besides success alone. labelled: completions to train the
    embedded process reward model on.
    """

    prm: str | None = None
    trust_remote_code: bool = False
    steps_cut: str = "step"
    modes: list[Mode] = Field(default_factory=_both)
    eta: float | None = Field(None, ge=0, le=1)
    alpha: float = Field(0.2, gt=0)
    labelled: int = Field(600, ge=8)
    prm_training: StepTuningConfig = Field(
        default_factory=lambda: StepTuningConfig(learning_rate=1e-3, epochs=3.0, batch_size=16)
    )


CONFIG = ClipDeltaConfig
PRESETS: dict[str, dict[str, Any]] = {}


def run(config: ClipDeltaConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train an arm a mode in ``folder``; returns the summary, which is written there too."""
    problems = load_problems(config)
    with quiet():
        scorer = _scorer(config, folder, problems)
    arms = [Arm("success", [rule_verifier])]
    for mode in config.modes:
        eta: Any = "group_mean" if config.eta is None else config.eta
        process = ProcessReward(scorer, config.steps_cut, mode=mode, eta=eta, alpha=config.alpha)
        arms.append(Arm(mode, [rule_verifier, process]))
    return run_arms(config, folder, arms, problems, system="reward-clip-delta", title=TITLE, verdicts=_verdicts)


def _scorer(config: ClipDeltaConfig, folder: RunFolder, problems: Problems) -> StepScorer:
    if config.prm is not None:
        return load_step_scorer(config.prm, trust_remote_code=config.trust_remote_code)
    if config.model is not None or config.data is not None:
        raise GuerdonError("a model or data of one's own needs a process reward model: --set prm=FOLDER or a hub id")
    place = folder.path / PRM
    if not folder.stage_done(PRM):
        folder.mark_done(PRM, _train_scorer(config, place, problems))
    return load_step_scorer(place)


def _train_scorer(config: ClipDeltaConfig, place: Path, problems: Problems) -> dict[str, float]:
    """The embedded process reward model, begun with the reasoner's own weights; returns how well it tells steps."""
    from transformers import Qwen3ForTokenClassification

    _, tokenizer = begin(config)
    torch.manual_seed(config.seed)
    model: Any = Qwen3ForTokenClassification.from_pretrained(ASSETS / "reasoner", num_labels=2, dtype=torch.float32)
    scorer = StepScorer(model, tokenizer, name="embedded_prm")
    asked = (problems.train * (1 + config.labelled // len(problems.train)))[: config.labelled]
    rows = labelled_steps(asked, sampled(*begin(config), asked, config), config.steps_cut)
    kept = max(1, len(rows) // 8)
    settings = config.prm_training.model_copy(update={"seed": config.seed})
    told = tune_step_scorer(scorer, rows[kept:], settings, place.parent / "trl" / PRM)
    scorer.save(place)
    return segment_accuracy(scorer, rows[:kept]) | {"loss": told.loss}


def labelled_steps(problems: list[dict[str, Any]], texts: list[str], cut: str = "step") -> list[dict[str, Any]]:
    """Rows {"prompt", "completions", "labels"}: a step is right where every calculation up to it is, and, of the last
    one, the answer too."""
    rows = []
    for problem, text in zip(problems, texts, strict=True):
        steps = [span.of(text) for span in segmenter(cut)(text)]
        if not steps:
            continue
        found = calculation_judge([problem["prompt"]], [steps])[0]
        labels = [all(found[: place + 1]) for place in range(len(steps))]
        labels[-1] &= rule_verifier(None, [text], solution=[problem["solution"]])[0] == 1.0
        rows.append({"prompt": problem["prompt"], "completions": steps, "labels": labels})
    return rows


def _verdicts(grades: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    base, success = grades["base"]["sampled"], grades["success"]
    rows = [{"name": "success alone less the beginning, sampled", "target": "interval above 0",
             "value": success["sampled"] - base, "holds": success["sampled low"] > base}]  # fmt: skip
    for mode in [name for name in ("clip", "delta", "clip_delta") if name in grades]:
        rows.append({"name": f"{mode} less success alone, sampled", "target": "interval not below 0",
                     "value": grades[mode]["sampled"] - success["sampled"],
                     "holds": grades[mode]["sampled high"] >= success["sampled"]})  # fmt: skip
    return rows
