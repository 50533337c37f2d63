"""Group-relative policy optimisation of a language model on any rewards, through TRL, with the hacking watch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from pydantic import Field, model_validator
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig

from guerdon.core.adapters import to_trl
from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.processes import count, first, first_goes_first
from guerdon.core.progress import Progress, progress
from guerdon.core.reward import identity
from guerdon.core.runs import RunFolder
from guerdon.objectives.dense_advantages import Baseline
from guerdon.rewards.dense import is_dense
from guerdon.rewards.policy_bound import policy_bound
from guerdon.trainers.dense_grpo import DenseRewards
from guerdon.trainers.keyed_grpo import (
    COMPLETE,
    KeyedGRPO,
    latest_complete,
    lora,
    mark_complete,
    prompt_plan,
    quiet_trl,
    step_of,
)
from guerdon.trainers.language_watch import LanguageWatch
from guerdon.trainers.policy_link import PolicyLink

__all__ = ["DenseKeyedGRPO", "LanguageResult", "LanguageTrainingConfig", "Watching", "begin", "fit",
           "told_of", "train_language"]  # fmt: skip

_OURS = ("output_dir", "max_steps", "seed", "num_generations", "reward_weights", "shuffle_dataset", "save_steps")


class LanguageTrainingConfig(Config):
    """Hyperparameters. A step samples ``prompts_per_step * num_generations`` completions; defaults are TRL's.

    lora_rank: 0 trains all weights. micro_batch: completions in one forward pass. scale_rewards, loss_type, beta,
    epsilon: TRL's. watch_every: steps between two looks of the hacking watch. stop_on: "hack" ends the run once the
    proxy rises while the held-out judge falls, and keeps the weights of the judge's best look. baseline, gamma: of
    rewards on parts of a text (`guerdon.trainers.dense_grpo`), without meaning for others. trl: further settings of
    TRL's ``GRPOConfig`` as they are (``use_vllm``, ``deepspeed``, ``fsdp``, ``mask_truncated_completions``, ...).
    """

    steps: int = Field(200, ge=1)
    prompts_per_step: int = Field(8, ge=1)
    num_generations: int = Field(8, ge=2)
    micro_batch: int | None = Field(None, ge=1)
    learning_rate: float = Field(1e-6, gt=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    beta: float = Field(0.0, ge=0)
    epsilon: float = Field(0.2, gt=0)
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    temperature: float = Field(1.0, gt=0)
    max_completion_length: int = Field(256, ge=1)
    lora_rank: int = Field(0, ge=0)
    save_every: int = Field(20, ge=1)
    watch_every: int = Field(10, ge=1)
    watch_samples: int = Field(4, ge=2)
    stop_on: Literal["hack"] | None = None
    baseline: Baseline = "segment"
    gamma: float = Field(1.0, ge=0, le=1)
    trl: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> LanguageTrainingConfig:
        batch = self.prompts_per_step * self.num_generations
        if self.micro_batch is not None and batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide a step's {batch} completions")
        known = [field.name for field in dataclasses.fields(GRPOConfig)]
        for key in self.trl:
            if key in _OURS or key in type(self).model_fields:
                raise ValueError(f"trl.{key} is set by the training itself; use its own key")
            if key not in known:
                raise unknown("setting of TRL's GRPOConfig", key, known)
        return self


@dataclass(frozen=True)
class LanguageResult:
    """The trained model, the step whose weights it has, the step at which training ended, and why it ended early."""

    model: Any
    kept_step: int
    last_step: int
    reason: str = ""


class DenseKeyedGRPO(DenseRewards, KeyedGRPO):
    """`KeyedGRPO` for rewards that lie on parts of a completion."""


def train_language(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    rewards: Mapping[str, tuple[Any, float]],
    config: LanguageTrainingConfig,
    folder: RunFolder,
    *,
    watch: LanguageWatch | None = None,
    stage: str = "policy",
    views: int = 1,
    seed: int = 0,
    resume: bool = False,
) -> LanguageResult:
    """Train a causal language model in place.

    Args:
        rows: "prompt" (messages, or a text) and the columns that the rewards read, the same in every row.
        rewards: name -> (reward by the contract, pointwise, groupwise or dense, and its weight).
        views: so many rows that stand together go to the rewards in one call: wordings of one problem. Each is still a
            group of its own.
        folder: gets one line of metrics a step and a line a look under ``stage``, and checkpoints in ``grpo/STAGE``.
        resume: go on from the last whole checkpoint; the numbers are those of an uninterrupted run.

    Raises GuerdonError for no rows or rewards, rows that differ in their columns, and a checkpoint of other rows,
    rewards or settings.
    """
    _check(rows, rewards)
    if len(rows) % views or config.prompts_per_step % views:
        raise GuerdonError(
            f"{len(rows)} rows and {config.prompts_per_step} prompts a step must be whole sets of {views} views"
        )
    place = folder.path / "grpo" / stage
    initial = place / "initial"
    told = told_of(rows, rewards, config, seed)
    with quiet_trl():
        arguments = _arguments(config, rewards, place, seed)
        checkpoint = latest_complete(place) if resume else None
        done = step_of(checkpoint)
        with first_goes_first():
            begin(place, told, checkpoint, folder, stage, watch)
            if config.beta and not (initial / COMPLETE).exists():
                model.save_pretrained(initial)
                tokenizer.save_pretrained(initial)
                mark_complete(initial)
        if config.beta:
            # TRL builds its frozen reference from this path: always the initial weights, also in a resumed run.
            model.config._name_or_path = str(initial)
        units = [range(start, start + views) for start in range(0, len(rows), views)]
        if views > 1:  # the wordings of a problem are one group for a reward that compares them
            rows = [{**row, "group_ids": place // views} for place, row in enumerate(rows)]
        chosen = prompt_plan(units, config.steps * config.prompts_per_step // views, seed)
        plan = [place for unit in chosen for place in unit]
        originals = [reward for reward, _ in rewards.values()]
        dense = any(is_dense(one) for one in originals)
        # A ceiling on failures, deadlines and checks come with the adapter; dense rewards bring their own.
        size = config.num_generations * views
        functions = originals if dense else [to_trl(one, group_size=size) for one in originals]
        with progress(config.steps, stage.replace("_", " ")) as bar:
            bar.advance(done)
            callback = Watching(folder, stage, bar, watch, config, tokenizer)
            links: list[TrainerCallback] = [PolicyLink(*originals)] if policy_bound(*originals) else []
            kind: Any = KeyedGRPO
            if dense:
                kind = partial(DenseKeyedGRPO, baseline=config.baseline, gamma=config.gamma)
            trainer: Any = kind(
                model=model, reward_funcs=functions, args=arguments, processing_class=tokenizer,
                train_dataset=Dataset.from_list([dict(rows[index]) for index in plan]),
                callbacks=[*links, callback], peft_config=lora(config.lora_rank),
            )  # fmt: skip
            return fit(trainer, callback, place, checkpoint)


def fit(trainer: Any, watching: Watching, place: Path, checkpoint: Path | None) -> LanguageResult:
    """Run a trainer of TRL from ``checkpoint`` to its end, or to the alarm of ``watching``, one of its callbacks."""
    done, config = step_of(checkpoint), watching.config
    trainer.remove_callback(PrinterCallback)
    if done < config.steps and not watching.ended(place):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    elif checkpoint is not None:
        trainer._load_from_checkpoint(str(checkpoint))
    last = max(int(trainer.state.global_step), done)
    kept = last
    if watching.stopped:
        kept = watching.best
        trainer._load_from_checkpoint(str(place / f"look-{kept}"))
    trained: Any = trainer.accelerator.unwrap_model(trainer.model)
    trained = trained.merge_and_unload() if config.lora_rank else trained
    return LanguageResult(trained.eval(), kept, last, watching.stopped)


def _check(rows: Sequence[Mapping[str, Any]], rewards: Mapping[str, Any]) -> None:
    if not rows or not rewards:
        raise GuerdonError(f"training needs rows and rewards, got {len(rows)} rows and {len(rewards)} rewards")
    for number, row in enumerate(rows):
        if "prompt" not in row:
            raise GuerdonError(f"row {number} has no 'prompt'; its columns: {', '.join(map(str, row))}")
        if set(row) != set(rows[0]):
            other = sorted(set(row) ^ set(rows[0]))[0]
            raise GuerdonError(f"row {number} and row 0 differ in their columns: {other!r}")


def begin(
    place: Path, told: str, checkpoint: Path | None, folder: RunFolder, stage: str, watch: LanguageWatch | None
) -> None:
    """Forget what came after ``checkpoint``; raises GuerdonError where it was made from something else."""
    if checkpoint is not None and (place / "told").read_text(encoding="utf-8") != told:
        raise GuerdonError(f"{place}: made with other rows, rewards or settings; use a new folder")
    if first():
        place.mkdir(parents=True, exist_ok=True)
        (place / "told").write_text(told, encoding="utf-8")
    kept = step_of(checkpoint) if checkpoint is not None else -1
    folder.rollback(kept, stage=stage)
    if watch is not None:
        watch.rollback(kept)


def told_of(rows: Any, rewards: Mapping[str, tuple[Any, float]], *settings: Any) -> str:
    """A digest of what a training is made from."""
    named = {name: [identity(reward), weight] for name, (reward, weight) in rewards.items()}
    plain = [one.model_dump(mode="json") if isinstance(one, Config) else one for one in settings]
    asked = [list(map(dict, rows)), named, *plain]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _arguments(config: LanguageTrainingConfig, rewards: Mapping[str, Any], place: Path, seed: int) -> GRPOConfig:
    batch = config.prompts_per_step * config.num_generations
    processes = count()
    if config.prompts_per_step % processes:
        raise GuerdonError(
            f"prompts_per_step {config.prompts_per_step} is not a multiple of {processes} processes: groups stay whole"
        )
    micro = config.micro_batch or batch // processes
    if batch % (micro * processes):
        raise GuerdonError(f"micro_batch {micro} times {processes} processes does not divide {batch} completions")
    given: dict[str, Any] = dict(
        output_dir=str(place), max_steps=config.steps, per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // (micro * processes), num_generations=config.num_generations,
        learning_rate=config.learning_rate, lr_scheduler_type="constant_with_warmup", warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm, beta=config.beta, epsilon=config.epsilon, loss_type=config.loss_type,
        scale_rewards=config.scale_rewards, temperature=config.temperature,
        max_completion_length=config.max_completion_length, seed=seed, shuffle_dataset=False, logging_steps=1,
        reward_weights=[weight for _, weight in rewards.values()], save_strategy="steps", save_steps=config.save_every,
        save_total_limit=2, report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(), bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    return GRPOConfig(**{**given, **config.trl})


_SHOWN = {
    "reward": "reward",
    "completions/mean_length": "length",
    "rewards/margins": "margin",
    "mean_token_accuracy": "accuracy",
}


class Watching(TrainerCallback):
    """Lines of metrics.jsonl, looks of the watch, the marks of whole checkpoints, and the end at an alarm."""

    def __init__(
        self, folder: RunFolder, stage: str, bar: Progress[Any], watch: LanguageWatch | None,
        config: LanguageTrainingConfig, tokenizer: Any,
    ) -> None:  # fmt: skip
        self.folder, self.stage, self.bar, self.watch = folder, stage, bar, watch
        self.config, self.tokenizer = config, tokenizer
        self.stopped, self.best = "", 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.watch is not None and 0 not in self.watch.looks and state.global_step == 0:
            self._look(args, state, control, model)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.watch is None:
            return
        step = int(state.global_step)
        if step % self.config.watch_every == 0 or step == self.config.steps:
            self._look(args, state, control, model)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        row = {key: value for key, value in logs.items() if value is None or isinstance(value, int | float)}
        self.folder.log(state.global_step, row, stage=self.stage)
        self.bar.advance(1, **{name: row[key] for key, name in _SHOWN.items() if key in row})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            # First, so that the lines of a whole checkpoint are never taken for ones that came after it.
            self.folder.mark_done(f"{self.stage}.saved", {"step": int(state.global_step)})
            mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    def ended(self, place: Path) -> bool:
        """Whether an earlier run of this folder already ended at an alarm."""
        path = place / "stopped.json"
        if self.config.stop_on is None or not path.is_file():
            return False
        found = json.loads(path.read_text(encoding="utf-8"))
        self.stopped, self.best = found["reason"], found["best"]
        return True

    def _look(self, args: Any, state: Any, control: Any, model: Any) -> None:
        assert self.watch is not None
        step, place = int(state.global_step), Path(str(args.output_dir))
        unwrapped = getattr(model, "module", model)
        row = self.watch.measure(unwrapped, self.tokenizer, step)
        if state.is_world_process_zero:  # every process looks, and so all come to the same end
            self.folder.log(step, row, stage=self.stage)
        if self.config.stop_on is None:
            return
        # The weights of the best look so far: a stopped run keeps them.
        if self.watch.best() == step and state.is_world_process_zero:
            unwrapped.save_pretrained(place / f"look-{step}")
            for old in place.glob("look-*"):
                if old.name != f"look-{step}":
                    for file in old.iterdir():
                        file.unlink()
                    old.rmdir()
        rung = self.watch.ring()
        if rung is not None:
            alarm, self.best = rung
            self.stopped = (
                f"the held-out judge fell by {alarm.fallen:.3f} since step {self.best} while the rewards rose by "
                f"{alarm.risen:.3f}"
            )
            if state.is_world_process_zero:
                (place / "stopped.json").write_text(json.dumps({"reason": self.stopped, "best": self.best}))
            control.should_training_stop = True
