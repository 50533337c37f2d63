"""Reinforcement learning of a prompt rewriter with TRL's GRPO, on pictures drawn by a frozen image model.

Source: RealGen (arXiv 2512.00473), stage 1, on top of TRL's ``GRPOTrainer``. The paper's hyperparameters for this stage
are not released; the defaults below are TRL's, or ours where TRL's would not run on one machine (UNVERIFIED).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from pydantic import Field, model_validator
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig

from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.processes import count
from guerdon.core.progress import Progress, progress
from guerdon.core.runs import RunFolder
from guerdon.policies.rewriter import PromptRewriter
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
from guerdon.trainers.rewriter_env import PromptRewriterEnv

__all__ = [
    "PromptRewriterEnv",
    "RewriterResult",
    "RewriterTrainingConfig",
    "train_rewriter",
]


class RewriterTrainingConfig(Config):
    """Hyperparameters of stage 1. A step samples ``prompts_per_step * num_generations`` completions.

    ``lora_rank`` 0 trains all weights; otherwise adapters on every linear layer, merged at the end. ``micro_batch`` is
    the number of completions in one forward pass (default: all of a step). ``steps`` counts optimiser updates; with
    ``num_iterations`` above 1 each batch of completions is used for that many of them.
    """

    steps: int = Field(default=200, ge=1)
    prompts_per_step: int = Field(default=8, ge=1)
    num_generations: int = Field(default=8, ge=2)
    micro_batch: int | None = Field(default=None, ge=1)
    num_iterations: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.04, ge=0)
    epsilon: float = Field(default=0.2, gt=0)
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_completion_length: int | None = Field(default=None, ge=1)
    lora_rank: int = Field(default=0, ge=0)
    lora_alpha: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    save_every: int = Field(default=20, ge=1)
    keep_checkpoints: int = Field(default=2, ge=2)
    use_cpu: bool | None = None
    bf16: bool = False
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _fits(self) -> RewriterTrainingConfig:
        batch = self.prompts_per_step * self.num_generations
        if self.micro_batch is not None and batch % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide prompts_per_step * num_generations = {batch}"
            )
        if self.save_every % self.num_iterations:
            # A checkpoint inside a batch's re-use would have to hold the batch.
            raise ValueError(f"save_every {self.save_every} is not a multiple of num_iterations {self.num_iterations}")
        return self


@dataclass(frozen=True)
class RewriterResult:
    """What training gives: the rewriter (its model trained in place) and one row of metrics a step."""

    rewriter: PromptRewriter
    metrics: list[dict[str, Any]]


def train_rewriter(
    rewriter: PromptRewriter,
    env: PromptRewriterEnv,
    prompts: Sequence[str],
    config: RewriterTrainingConfig,
    run_dir: str | Path,
    resume: bool = False,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> RewriterResult:
    """Train a rewriter, in place, to raise the scores of the pictures drawn of its rewrites.

    ``run_dir`` becomes a run folder with ``initial/`` (the rewriter at the start, which is also the KL reference),
    ``metrics.jsonl`` (one line a step), ``checkpoints/`` (transformers' own) and ``final/``. With ``resume`` the run
    goes on from the last complete checkpoint and gives the numbers of an uninterrupted run; without one it starts
    again.

    Args:
        rewriter: policy; its instruction and length limit are used.
        env: reward.
        prompts: the users' prompts, repeated in passes.
        config: hyperparameters.
        run_dir: folder of this stage.
        resume: continue what is in ``run_dir``; the weights then come from there, not from ``rewriter``.
        on_step: called with (step, metrics) after each step.

    Raises:
        GuerdonError: no prompts, an empty one, ``run_dir`` holds another run, or the run to resume had other settings.
    """
    if not prompts:
        raise GuerdonError("training a rewriter needs at least one prompt")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise GuerdonError(f"prompt {index} is {prompt!r}; a prompt to rewrite is a non-empty string")
    run_dir = Path(run_dir)
    initial, final = run_dir / "initial", run_dir / "final"
    with quiet_trl():
        arguments = _arguments(rewriter, env, config, run_dir / "checkpoints")
        with arguments.main_process_first(local=False):
            first = arguments.process_index == 0
            run = _claim(run_dir, rewriter, env, prompts, config, resume or not first)
            checkpoint = latest_complete(run_dir / "checkpoints")
            done = step_of(checkpoint)
            if first:
                run.rollback(done)
            if (initial / COMPLETE).exists():
                start = PromptRewriter.load(initial).model
                rewriter.model.load_state_dict(start.state_dict())
            else:
                rewriter.save(initial)
                mark_complete(initial)
        # TRL builds its frozen reference from this path: always the initial weights, also in a resumed run.
        rewriter.model.config._name_or_path = str(initial)
        rounds = math.ceil(config.steps / config.num_iterations)
        plan = prompt_plan(prompts, rounds * config.prompts_per_step, config.seed)
        rows = [{"prompt": rewriter.conversation(user), "user_prompt": user} for user in plan]
        bar: Progress[int] = progress(config.steps, "rewriter")
        with bar:
            bar.advance(done)
            trainer = KeyedGRPO(
                model=rewriter.model,
                reward_funcs=env,
                args=arguments,
                train_dataset=Dataset.from_list(rows),
                processing_class=rewriter.tokenizer,
                callbacks=[_Log(run, bar, env, on_step)],
                peft_config=lora(config.lora_rank, config.lora_alpha),
            )
            trainer.remove_callback(PrinterCallback)
            if done < config.steps:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            else:
                trainer._load_from_checkpoint(str(checkpoint))
        trained: Any = trainer.accelerator.unwrap_model(trainer.model)
        # Merged, so that what is saved needs neither the adapter's library nor the path of its base.
        rewriter.model = trained.merge_and_unload() if config.lora_rank else trained
        if trainer.accelerator.is_main_process and not (final / COMPLETE).exists():
            rewriter.save(final)
            mark_complete(final)
    return RewriterResult(rewriter, run.metrics())


def _arguments(
    rewriter: PromptRewriter, env: PromptRewriterEnv, config: RewriterTrainingConfig, folder: Path
) -> GRPOConfig:
    batch = config.prompts_per_step * config.num_generations
    processes = count()
    if config.prompts_per_step % processes:
        raise GuerdonError(
            f"prompts_per_step {config.prompts_per_step} is not a multiple of {processes} processes: groups stay whole"
        )
    micro = config.micro_batch or batch // processes
    if batch % (micro * processes):
        raise GuerdonError(
            f"micro_batch {micro} times {processes} processes does not divide a step's {batch} completions"
        )
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // (micro * processes),
        num_generations=config.num_generations,
        num_iterations=config.num_iterations,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        beta=config.beta,
        epsilon=config.epsilon,
        loss_type=config.loss_type,
        scale_rewards=env.scale_rewards,
        temperature=config.temperature,
        top_p=config.top_p,
        max_completion_length=config.max_completion_length or rewriter.config.max_new_tokens,
        chat_template_kwargs=rewriter.config.chat_template_kwargs or None,
        seed=config.seed,
        shuffle_dataset=False,
        logging_steps=1,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=config.keep_checkpoints,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available() if config.use_cpu is None else config.use_cpu,
        bf16=config.bf16,
        gradient_checkpointing=config.gradient_checkpointing,
    )


def _claim(
    run_dir: Path,
    rewriter: PromptRewriter,
    env: PromptRewriterEnv,
    prompts: Sequence[str],
    config: RewriterTrainingConfig,
    resume: bool,
) -> RunFolder:
    """Begin the run folder with everything that decides its numbers, or check that against the folder to resume."""
    settings = {
        **config.model_dump(mode="json"),
        "rewriter": rewriter.config.model_dump(mode="json"),
        "reward": env.identity(),
        "prompts_sha256": hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest(),
    }
    run = RunFolder(run_dir)
    if not (resume and run.config_path.exists()):
        return RunFolder.open(run_dir, settings)
    before = run.config()
    for key, value in settings.items():
        if before.get(key) != value:
            raise GuerdonError(
                f"{run.config_path}: the run has {key} = {before.get(key)!r}, but {value!r} was asked for; "
                "use a new folder"
            )
    return run


class _Log(TrainerCallback):
    """Lines of metrics.jsonl, the completeness marker of checkpoints, and progress."""

    def __init__(
        self,
        run: RunFolder,
        bar: Progress[int],
        env: PromptRewriterEnv,
        on_step: Callable[[int, dict[str, Any]], None] | None,
    ) -> None:
        self.run, self.bar, self.on_step = run, bar, on_step
        self.shown = [f"{env.__name__}/{part}" for part in ("format", *env.bank.rewards)]

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        row = {key: value for key, value in logs.items() if value is None or isinstance(value, (int, float))}
        self.run.log(state.global_step, row)
        self.bar.show(**{key.rpartition("/")[2]: row[key] for key in self.shown if row.get(key) is not None})
        self.bar.advance()
        if self.on_step is not None:
            self.on_step(state.global_step, row)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
