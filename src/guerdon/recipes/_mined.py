"""A language model tuned on pairs of its own samples that a reward chose: sample, score, mine, tune; with the watch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.processes import count, first, first_goes_first
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.curation.reward_pairs import Strategy, kto_rows, mine_preferences
from guerdon.rewards.compose import weighted_sum
from guerdon.trainers.keyed_grpo import latest_complete, lora, quiet_trl, step_of
from guerdon.trainers.language import LanguageResult, LanguageTrainingConfig, Watching, begin, fit, told_of
from guerdon.trainers.language_watch import LanguageWatch, sample

__all__ = ["Method", "Mining", "train_on_mined"]

Method = Literal["dpo", "kto", "sft"]
_TRAINERS: dict[str, tuple[Any, Any]] = {
    "dpo": (DPOTrainer, DPOConfig), "kto": (KTOTrainer, KTOConfig), "sft": (SFTTrainer, SFTConfig),
}  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class Mining:
    """k, strategy, margin, threshold: of `guerdon.curation.reward_pairs.mine_preferences`. method: TRL's direct
    preference optimisation, Kahneman-Tversky optimisation, or supervised tuning on what was chosen. beta: of the first
    two. sft_weight: of the likelihood of what was chosen, beside the loss of "dpo", which alone may make both sides of
    a pair, and with them every text, unlikely. epochs: passes over the pairs."""

    method: Method = "dpo"
    k: int = 8
    strategy: Strategy = "max_min"
    margin: float = 0.0
    threshold: float | None = None
    beta: float = 0.1
    sft_weight: float = 0.0
    epochs: int = 1


def train_on_mined(
    model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], rewards: Mapping[str, tuple[Any, float]],
    config: LanguageTrainingConfig, folder: RunFolder, *, mining: Mining, watch: LanguageWatch | None = None,
    stage: str = "policy", views: int = 1, seed: int = 0, resume: bool = False,
) -> LanguageResult:  # fmt: skip
    """As `guerdon.trainers.language.train_language`, on mined pairs: the policy is sampled once, before it learns.

    Of ``config`` count learning_rate, warmup_steps, max_grad_norm, prompts_per_step (pairs a step), micro_batch,
    temperature, max_completion_length, lora_rank, save_every, watch_every, stop_on and trl (here settings of the
    method's own configuration); the steps are those of ``mining.epochs``. The pairs are kept in ``folder``: a run that
    goes on mines no second time.

    Source: the use of the reward in Follow-up Likelihood as Reward (arXiv 2409.13948). Raises GuerdonError where no
    pair could be mined, and for a setting that the method's trainer does not have.
    """
    if views > 1:
        raise GuerdonError("pairs are mined a prompt at a time; rewards that compare wordings need another method")
    place = folder.path / mining.method / stage
    checkpoint = latest_complete(place) if resume else None
    with first_goes_first():
        begin(place, told_of(rows, rewards, config, seed, asdict(mining)), checkpoint, folder, stage, watch)
        if not (folder.stage_done("mined") and (resume or not first())):
            folder.mark_done("mined", _mined(model, tokenizer, rows, rewards, config, mining, seed))
    data = _rows_of(folder.stage_result("mined"), mining.method, seed)
    micro = config.micro_batch or max(1, config.prompts_per_step // count())
    if config.prompts_per_step % (micro * count()):
        raise GuerdonError(
            f"micro_batch {micro} times {count()} processes does not divide a step's {config.prompts_per_step} pairs"
        )
    config = config.model_copy(update={"steps": mining.epochs * -(-len(data) // config.prompts_per_step)})
    trainer_of, settings_of = _TRAINERS[mining.method]
    # Adapters are their own reference when switched off.
    paired = mining.method != "sft" and not config.lora_rank
    frozen = {"ref_model": copy.deepcopy(model)} if paired else {}
    known = [field.name for field in fields(settings_of)]
    for key in config.trl:
        if key not in known:
            raise unknown(f"setting of TRL's {settings_of.__name__}", key, known)
    own: dict[str, Any] = {} if mining.method == "sft" else {"beta": mining.beta}
    if mining.method == "dpo" and mining.sft_weight:
        own |= {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, mining.sft_weight]}
    with quiet_trl(), progress(config.steps, stage.replace("_", " ")) as bar:
        bar.advance(step_of(checkpoint))
        callback = Watching(folder, stage, bar, watch, config, tokenizer)
        given: dict[str, Any] = dict(
            output_dir=str(place), num_train_epochs=mining.epochs, per_device_train_batch_size=micro,
            gradient_accumulation_steps=config.prompts_per_step // (micro * count()),
            learning_rate=config.learning_rate, lr_scheduler_type="constant_with_warmup",
            warmup_steps=config.warmup_steps, max_grad_norm=config.max_grad_norm, logging_steps=1, seed=seed,
            save_strategy="steps", save_steps=config.save_every, save_total_limit=2, report_to="none",
            disable_tqdm=True, use_cpu=not torch.cuda.is_available(), bf16=False, gradient_checkpointing=False,
            max_length=None,  # TRL's default would cut long texts without a word
        )  # fmt: skip
        arguments = settings_of(**{**given, **own, **config.trl})
        trainer = trainer_of(
            model=model, args=arguments, processing_class=tokenizer, train_dataset=Dataset.from_list(data),
            peft_config=lora(config.lora_rank), callbacks=[callback], **frozen,
        )  # fmt: skip
        return fit(trainer, callback, place, checkpoint)


def _mined(
    model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], rewards: Mapping[str, tuple[Any, float]],
    config: LanguageTrainingConfig, mining: Mining, seed: int,
) -> list[Row]:  # fmt: skip
    found: list[Row] = []
    whole = weighted_sum(dict(rewards)) if len(rewards) > 1 else next(iter(rewards.values()))[0]
    with progress(len(rows), "sampling and scoring") as bar:
        for start in range(0, len(rows), 32):
            prompts = [row["prompt"] for row in rows[start : start + 32]]
            texts = sample(
                model, tokenizer, prompts, count=mining.k, temperature=config.temperature, seed=seed,
                max_new_tokens=config.max_completion_length,
            ).grouped()  # fmt: skip
            said = {id(prompt): some for prompt, some in zip(prompts, texts, strict=True)}
            found += mine_preferences(
                prompts, partial(_of, said), whole, k=mining.k, strategy=mining.strategy, margin=mining.margin,
                threshold=mining.threshold,
            ).rows  # fmt: skip
            bar.advance(len(prompts), pairs=len(found))
    if not found:
        raise GuerdonError(f"no pair could be mined from {len(rows)} prompts: no reward told two samples of one apart")
    return found


def _of(said: Mapping[int, Sequence[str]], prompt: Any, count: int) -> Sequence[str]:
    return said[id(prompt)]


def _rows_of(pairs: Sequence[Row], method: Method, seed: int) -> list[Row]:
    if method == "dpo":
        found = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in pairs]
    elif method == "sft":
        found = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs]
    else:
        # KTO takes a row's neighbour for an unrelated completion, so the two of a pair must not stand together.
        every = kto_rows(pairs)
        found = [every[place] for place in np.random.default_rng(seed).permutation(len(every))]
    return [{key: _turns(value, row["prompt"]) for key, value in row.items()} for row in found]


def _turns(value: Any, prompt: Any) -> Any:
    """A completion of a dialogue is a turn, as TRL has it."""
    if isinstance(prompt, str) or not isinstance(value, str):
        return value
    return [{"role": "assistant", "content": value}]
