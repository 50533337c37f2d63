"""What the recipes with dense rewards share: problems, arms that differ in their rewards only, and their grades."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, field_validator
from transformers import PrinterCallback, TrainerCallback

from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.core.segments import sentences, step_lines
from guerdon.curation.math_problems import load_math
from guerdon.metrics.intervals import bootstrap_mean
from guerdon.models.scalar.backbone import quiet
from guerdon.objectives.dense_advantages import Baseline
from guerdon.policies.continuation import CheckpointPolicy
from guerdon.policies.reasoner import LONGEST, embedded_reasoner, problem_rows, split_problems
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.trainers.dense_grpo import DenseGRPO

__all__ = ["Arm", "DenseRunConfig", "Problems", "begin", "load_problems", "run_arms", "sampled"]

_GREEDY = 1e-3  # a temperature at which the likeliest token is certain
_EVERY = 2**20  # more tokens than any vocabulary has


class DenseRunConfig(Config):
    """A policy trained by rewards on parts of its texts.

    model: a causal language model's folder or hub id; None: the embedded reasoner. data: rows with prompt and solution,
    or the columns of GSM8K or MATH; None: embedded word problems. steps: optimiser updates, each on ``prompts`` prompts
    of ``group`` completions. baseline, gamma: of `guerdon.trainers.dense_grpo.DenseGRPO`. held_out: problems to grade
    by. trl: more settings of TRL's ``GRPOConfig`` (vLLM, DeepSpeed, loss_type, ...), which win.
    """

    seed: int = Field(11, ge=0)
    model: str | None = None
    data: str | None = None
    limit: int | None = Field(None, ge=4)
    held_out: int = Field(100, ge=2)
    steps: int = Field(60, ge=1)
    prompts: int = Field(8, ge=1)
    group: int = Field(8, ge=2)
    learning_rate: float = Field(1e-4, gt=0)
    beta: float = Field(0.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    max_completion_length: int = Field(LONGEST, ge=1)
    baseline: Baseline = "segment"
    gamma: float = Field(1.0, ge=0, le=1)
    trl: dict[str, Any] = Field(default_factory=dict)

    @field_validator("trl")
    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        from trl import GRPOConfig

        known = [one.name for one in dataclasses.fields(GRPOConfig)]
        for key in given:
            if key not in known:
                raise unknown("setting of TRL's GRPOConfig", key, known)
        return given


@dataclass(frozen=True)
class Problems:
    """Rows {"prompt", "solution"} to train on and, of other problems, to grade by."""

    train: list[dict[str, Any]]
    held: list[dict[str, Any]]


@dataclass(frozen=True)
class Arm:
    """A name, the rewards that are summed, and their weights (None: 1 each)."""

    name: str
    rewards: Sequence[Any]
    weights: Sequence[float] | None = None


def load_problems(config: DenseRunConfig) -> Problems:
    """The problems of the configuration. Raises GuerdonError for too few rows to keep ``held_out`` apart."""
    if config.data is None:
        train = split_problems(config.limit or config.steps * config.prompts, config.seed)
        return Problems(problem_rows(train), problem_rows(split_problems(config.held_out, config.seed, "held_out")))
    rows = load_math(config.data, limit=config.limit).rows
    if len(rows) < config.held_out + 2:
        raise GuerdonError(
            f"{config.data}: {len(rows)} problems; {config.held_out} are to be held out, and 2 trained on"
        )
    return Problems(rows[config.held_out :], rows[: config.held_out])


def begin(config: DenseRunConfig) -> tuple[Any, Any]:
    """The policy before training, loaded anew, and its tokenizer."""
    if config.model is None:
        return embedded_reasoner()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        return AutoModelForCausalLM.from_pretrained(config.model), AutoTokenizer.from_pretrained(config.model)
    except (OSError, ValueError) as error:
        raise GuerdonError(f"no language model could be read from {config.model!r}: {error}") from None


def sampled(
    model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], config: DenseRunConfig, *, greedy: bool = False
) -> list[str]:
    """One completion a row."""
    policy = CheckpointPolicy(
        model, tokenizer, chat=True, temperature=_GREEDY if greedy else config.temperature, top_p=1.0, top_k=_EVERY,
        max_new_tokens=config.max_completion_length, batch_size=64,
    )  # fmt: skip
    return list(policy([_asked(row["prompt"]) for row in rows], config.seed))


def run_arms(
    config: DenseRunConfig, folder: RunFolder, arms: Sequence[Arm], problems: Problems, *, system: str, title: str,
    verdicts: Callable[[Mapping[str, Mapping[str, float]]], list[dict[str, Any]]],
) -> dict[str, Any]:  # fmt: skip
    """Train each arm from the same start on the same problems, grade all; returns the summary, which is written too.

    An arm that a resumed run has done already is not done again; one that was interrupted begins anew. Each trained
    policy is in ``folder/ARM``; its lines of metrics.jsonl are under its name.
    """
    started = time.monotonic()
    with quiet():
        if not folder.stage_done("base"):
            folder.mark_done("base", _grade(*begin(config), problems.held, config))
        grades = {"base": folder.stage_result("base")}
        for arm in arms:
            if not folder.stage_done(arm.name):
                folder.mark_done(arm.name, _trained(config, folder, arm, problems))
            grades[arm.name] = folder.stage_result(arm.name)
    columns = list(next(iter(grades.values())))
    summary = {
        "system": system, "title": title, "seed": config.seed, "steps": config.steps, "grades": grades,
        "rows": {"training": len(problems.train), "held-out": len(problems.held)},
        "tables": [{"title": "Held-out problems", "columns": ["policy", *columns],
                    "rows": [[name, *(f"{one[key]:.3f}" for key in columns)] for name, one in grades.items()]}],
        "verdicts": verdicts(grades), "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    folder.write_summary(summary)
    return summary


def _trained(config: DenseRunConfig, folder: RunFolder, arm: Arm, problems: Problems) -> dict[str, float]:
    from datasets import Dataset
    from trl import GRPOConfig

    model, tokenizer = begin(config)
    cuda = torch.cuda.is_available()
    settings: dict[str, Any] = dict(
        output_dir=str(folder.path / "trl" / arm.name), max_steps=config.steps, seed=config.seed,
        per_device_train_batch_size=config.prompts * config.group, num_generations=config.group,
        learning_rate=config.learning_rate, beta=config.beta, temperature=config.temperature,
        max_completion_length=config.max_completion_length, lr_scheduler_type="constant", logging_steps=1,
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=not cuda, bf16=cuda,
        gradient_checkpointing=False, reward_weights=list(arm.weights) if arm.weights is not None else None,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": row["prompt"], "solution": row["solution"]} for row in problems.train])
    folder.rollback(0, stage=arm.name)
    with progress(config.steps, arm.name) as bar:
        trainer = DenseGRPO(
            model, list(arm.rewards), GRPOConfig(**(settings | config.trl)), rows, processing_class=tokenizer,
            callbacks=[_Log(folder, arm.name, bar)], baseline=config.baseline, gamma=config.gamma,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(folder.path / arm.name)
    tokenizer.save_pretrained(folder.path / arm.name)
    return _grade(model, tokenizer, problems.held, config)


def _grade(model: Any, tokenizer: Any, rows: list[dict[str, Any]], config: DenseRunConfig) -> dict[str, float]:
    """Accuracy of greedy and of sampled completions by the rule verifier, and how long they are."""
    model.eval()
    solutions = [row["solution"] for row in rows]
    found: dict[str, float] = {}
    for name, greedy in (("greedy", True), ("sampled", False)):
        texts = sampled(model, tokenizer, rows, config, greedy=greedy)
        right = [one == 1.0 for one in rule_verifier([row["prompt"] for row in rows], texts, solution=solutions)]
        interval = bootstrap_mean([float(one) for one in right], seed=config.seed)
        found |= {name: sum(right) / len(right), f"{name} low": interval.low, f"{name} high": interval.high}
        if not greedy:
            found["lines"] = sum(len(step_lines(text)) for text in texts) / len(texts)
            found["sentences"] = sum(len(sentences(text)) for text in texts) / len(texts)
    return found


class _Log(TrainerCallback):
    """Lines of metrics.jsonl and progress."""

    def __init__(self, folder: RunFolder, stage: str, bar: Any) -> None:
        self.folder, self.stage, self.bar = folder, stage, bar

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            row = {key: value for key, value in logs.items() if isinstance(value, int | float)}
            self.folder.log(state.global_step, row, stage=self.stage)
            self.bar.advance(1, reward=row.get("reward"))


def _asked(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
