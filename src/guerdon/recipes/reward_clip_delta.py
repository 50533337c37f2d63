"""Clip and Delta: On Designing Effective RL Reward at Training Time for LLM Reasoning (arXiv 2410.15115).

maximise  Correct(q, s) + alpha sum_k r_k,  r_k at the end of step k, from a process reward model's scores x_k:
    c_k = min(x_k - eta, 0)                                                           (Clip)
    r_k = c_k - c_{k+1} for k < K - 1, r_{K-1} = c_{K-1}, r_K = 0                      (Delta)
The baseline that must be beaten is mode=success; mode=none (r_k = x_k, the raw scores) is what goes wrong without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from guerdon.core.errors import GuerdonError
from guerdon.core.processes import count
from guerdon.core.runs import RunFolder
from guerdon.core.segments import segmenter
from guerdon.models.scalar.backbone import quiet
from guerdon.models.step_scorer import StepScorer, load_step_scorer
from guerdon.policies.reasoner import ASSETS
from guerdon.recipes._language import PRESETS, LanguageConfig, Problems, preset_for, run_language
from guerdon.rewards.process import ProcessReward
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.rewards.text.segment_judges import calculation_judge
from guerdon.trainers.language_watch import sample
from guerdon.trainers.step_labels import StepTuningConfig, segment_accuracy, tune_step_scorer

TITLE = "On Designing Effective RL Reward at Training Time for LLM Reasoning"
__all__ = ["CONFIG", "PRESETS", "ClipDeltaConfig", "labelled_steps", "preset_for", "run"]
PRM = "prm"
Row = dict[str, Any]


class ClipDeltaConfig(LanguageConfig):
    """Clip and Delta beside success. eta, alpha and all settings of the training are UNVERIFIED: the paper has none.

    mode: of the shaping, or "success": no process reward. prm: a process reward model's folder or hub id; None: one is
    trained on steps that the embedded reasoner samples, labelled by whether every calculation so far is right.
    trust_remote_code: for a model that brings code. steps_cut: what a step is. eta: None is the mean of a question's
    steps. labelled: completions to train the embedded process reward model on.
    """

    mode: Literal["clip_delta", "clip", "delta", "none", "success"] = "clip_delta"
    prm: str | None = None
    trust_remote_code: bool = False
    steps_cut: str = "step"
    eta: float | None = Field(None, ge=0, le=1)
    alpha: float = Field(0.2, gt=0)
    labelled: int = Field(600, ge=8)
    prm_training: StepTuningConfig = Field(
        default_factory=lambda: StepTuningConfig(learning_rate=1e-3, epochs=3.0, batch_size=16)
    )


CONFIG = ClipDeltaConfig


def run(config: ClipDeltaConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train and grade in ``folder``; returns the summary, which is written there too."""
    asked: list[Row] = []
    notes: list[str] = []

    def rows(problems: Problems) -> Problems:
        asked.extend(problems.train)
        return problems

    def rewards(model: Any, tokenizer: Any) -> dict[str, tuple[Any, float]]:
        found: dict[str, tuple[Any, float]] = {"success": (rule_verifier, 1.0)}
        if config.mode != "success":
            with quiet():
                scorer = _scorer(config, folder, model, tokenizer, asked)
            if folder.stage_done(PRM):
                told = folder.stage_result(PRM)
                notes.append("the process reward model on steps kept apart: " + _listed(told))
            eta: Any = "group_mean" if config.eta is None else config.eta
            process = ProcessReward(scorer, config.steps_cut, mode=config.mode, eta=eta, alpha=config.alpha)
            found["process"] = (process, 1.0)
        return found

    return run_language("reward-clip-delta", TITLE, config, folder, resume, rewards, rows=rows, notes=notes)


def _listed(told: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in told.items())


def _scorer(config: ClipDeltaConfig, folder: RunFolder, model: Any, tokenizer: Any, asked: Sequence[Row]) -> StepScorer:
    if config.prm is not None:
        return load_step_scorer(config.prm, trust_remote_code=config.trust_remote_code)
    if config.model is not None or config.data is not None:
        raise GuerdonError("a model or data of one's own needs a process reward model: --set prm=FOLDER or a hub id")
    place = folder.path / PRM
    if not folder.stage_done(PRM):
        if count() > 1:
            raise GuerdonError(
                "the embedded process reward model is trained by one process; begin with one, or give prm"
            )
        folder.mark_done(PRM, _train_scorer(config, place, model, tokenizer, asked))
    return load_step_scorer(place)


def _train_scorer(
    config: ClipDeltaConfig, place: Path, policy: Any, tokenizer: Any, asked: Sequence[Row]
) -> dict[str, float]:
    """The embedded process reward model, begun with the reasoner's own weights; returns how well it tells steps."""
    from transformers import Qwen3ForTokenClassification

    torch.manual_seed(config.seed)
    model: Any = Qwen3ForTokenClassification.from_pretrained(ASSETS / "reasoner", num_labels=2, dtype=torch.float32)
    scorer = StepScorer(model, tokenizer, name="embedded_prm")
    shown = list(asked)[: config.labelled]
    count = -(-config.labelled // len(shown))
    texts = sample(
        policy, tokenizer, [row["prompt"] for row in shown], count=count, temperature=config.training.temperature,
        max_new_tokens=config.training.max_completion_length, seed=config.seed,
    ).texts  # fmt: skip
    rows = labelled_steps([row for row in shown for _ in range(count)], texts, config.steps_cut)
    kept = max(1, len(rows) // 8)
    settings = config.prm_training.model_copy(update={"seed": config.seed})
    told = tune_step_scorer(scorer, rows[kept:], settings, place.parent / "trl" / PRM)
    scorer.save(place)
    return segment_accuracy(scorer, rows[:kept]) | {"loss": told.loss}


def labelled_steps(problems: Sequence[Row], texts: Sequence[str], cut: str = "step") -> list[Row]:
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
