"""Online reinforcement learning of flow-matching image models: Flow-GRPO, GRPO-Guard, MixGRPO and DiffusionNFT.

One training step: draw prompts, roll out a group of images each, score them, turn scores into group-relative
advantages, and take a few clipped policy-gradient steps on a LoRA adapter. Everything random is keyed by (seed, step,
sample), so neither the number of processes nor an interruption changes a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.rng import rng_state, set_rng_state
from guerdon.core.runs import RunFolder
from guerdon.objectives.diffusion_nft import nft_old_policy_decay
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rollout import keyed_generator
from guerdon.policies.shards import whole
from guerdon.trainers import diffusion_state as saved
from guerdon.trainers.diffusion_config import DiffusionConfig
from guerdon.trainers.diffusion_sample import GroupSampler, ScorerFn
from guerdon.trainers.diffusion_update import Samples, Terms, nft_terms, policy_terms, recompute_old
from guerdon.trainers.ema import EMA
from guerdon.trainers.scored import ScoredBatch, usable

Metrics = dict[str, float]
Verdict = Literal["stop", "best"] | None
# Keys that may change between an interruption and its resumption without changing the numbers.
_FREE_KEYS = ("steps", "checkpoint_every", "keep_checkpoints", "log_with", "eval_steps")
_RATIO_CAUSES = (
    "usual causes: dropout left on, autocast in one of the two passes, a transformer whose output depends on the batch "
    "size (half precision; set recompute_old=true), torch.compile"
)


class Callback(Protocol):
    """Called after every training step on every process, before the step is logged; ``step`` counts from 1.

    It may add entries to ``metrics``. "stop" ends the run after this step; "best" makes the trainer keep the adapter
    (``DiffusionTrainer.keep_best``). The main process's answer counts. A callback with ``state_dict`` and
    ``load_state_dict`` (JSON), or ``state_tensors`` and ``load_state_tensors``, is saved in checkpoints.
    """

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: Metrics) -> Verdict: ...


class DiffusionTrainer:
    """Train a FlowPolicy's LoRA adapter on a reward.

    Args:
        policy: gets ``config.guidance`` and ``config.detach_uncond``, and an adapter if it has none.
        scorer_fn: scores whole batches; ``RewardBank.score`` fits but for the step.
        prompts: texts, or rows with a "prompt" and further columns for the scorer.
        config: see DiffusionConfig.
        run_folder: where metrics and checkpoints go, under ``stage``; None keeps nothing.
        accelerator: None makes one. On several processes each draws an equal share of every step's samples.
        callbacks: see Callback.

    Attributes: ``step`` training steps done, ``updates`` optimiser steps done, ``ema`` the averaged adapter,
    ``best_state`` and ``best_step`` what ``keep_best`` kept.

    Raises GuerdonError for prompts or process counts that do not fit the configuration.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        scorer_fn: ScorerFn,
        prompts: Sequence[str] | Sequence[Mapping[str, Any]],
        config: DiffusionConfig,
        run_folder: RunFolder | None = None,
        accelerator: Accelerator | None = None,
        callbacks: Sequence[Callback] = (),
        stage: str | None = None,
    ) -> None:
        self.policy, self.scorer_fn, self.config = policy, scorer_fn, config
        self.run, self.stage, self.callbacks = run_folder, stage, list(callbacks)
        self.rows = [{"prompt": row} if isinstance(row, str) else dict(row) for row in prompts]
        self.accelerator = accelerator or Accelerator(
            log_with=config.log_with, project_dir=None if run_folder is None else str(run_folder.path)
        )
        self._check_inputs()
        # Ranks may sample and evaluate different numbers of batches, so buffers must not be synchronised in forward.
        if self.accelerator.ddp_handler is None:
            self.accelerator.ddp_handler = DistributedDataParallelKwargs(broadcast_buffers=False)
        policy.to(self.accelerator.device)
        policy.guidance, policy.detach_uncond = config.guidance, config.detach_uncond
        if not policy.trainable_parameters():
            policy.add_lora(config.lora_rank, config.lora_alpha, seed=config.seed)
        if config.gradient_checkpointing:
            policy.transformer.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(
            policy.trainable_parameters(), lr=config.learning_rate, betas=config.betas, eps=config.eps,
            weight_decay=config.weight_decay,
        )  # fmt: skip
        policy.module, self.optimizer = self.accelerator.prepare(policy.transformer, optimizer)
        self.parameters = policy.trainable_parameters()
        self.ema = EMA(self.parameters, config.ema_decay, config.ema_every)
        self.old = EMA(self.parameters, 0.0, 1) if config.algorithm == "nft" else None
        self.window = config.make_window()
        self.sampler = GroupSampler(policy, scorer_fn, self.rows, config, self.accelerator, self.window)
        self.step = self.updates = self.best_step = 0
        self.best_state: dict[str, Tensor] | None = None
        self.stopped = self._ratio_checked = False
        self._trackers = False

    def _check_inputs(self) -> None:
        if not self.rows:
            raise GuerdonError("a diffusion run needs at least one prompt")
        for number, row in enumerate(self.rows):
            if not isinstance(row.get("prompt"), str):
                raise GuerdonError(
                    f"prompt row {number} has no text under 'prompt'; its keys: {', '.join(map(str, row))}"
                )
            if row.keys() != self.rows[0].keys():
                odd = sorted(row.keys() ^ self.rows[0].keys())[0]
                raise GuerdonError(f"prompt row {number} differs from row 0 in its columns: '{odd}'")
        images, ranks = self.config.group_size * self.config.prompts_per_step, self.accelerator.num_processes
        if images % (ranks * self.config.branches):
            raise GuerdonError(
                f"{images} images a step in branches of {self.config.branches} cannot be shared by {ranks} processes; "
                "choose prompts_per_step as a multiple of the number of processes"
            )
        if self.config.prompts_per_step % ranks and getattr(self.scorer_fn, "groupwise", False):
            raise GuerdonError(
                f"a groupwise scorer needs whole groups: prompts_per_step {self.config.prompts_per_step} is not a "
                f"multiple of {ranks} processes"
            )

    # The run

    def train(self, resume: bool = True) -> list[Metrics]:
        """Run to ``config.steps``, or until a callback stops; returns the metrics of the steps done in this call.

        With ``resume`` the run goes on from the folder's latest checkpoint of this stage, if there is one, and gives
        the numbers of an uninterrupted run; metric lines beyond that checkpoint are dropped.
        """
        checkpoint = self.run.latest_checkpoint(stage=self.stage) if self.run is not None and resume else None
        if checkpoint is not None and self.run is not None:
            self.load_checkpoint(*self.run.load_checkpoint(checkpoint))
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                self.run.rollback(self.step, stage=self.stage)
        if self.accelerator.log_with and not self._trackers:
            flat = {
                key: value for key, value in self.config.model_dump().items() if not isinstance(value, dict | tuple)
            }
            self.accelerator.init_trackers("guerdon", config=flat)
            self._trackers = True
        history = []
        while self.step < self.config.steps and not self.stopped:
            metrics = self.train_step()
            self._call_back(metrics)
            history.append(metrics)
            self.accelerator.log(metrics, step=self.step)
            if self.run is not None:
                if self.accelerator.is_main_process:
                    self.run.log(self.step, metrics, stage=self.stage)
                last = self.stopped or self.step == self.config.steps
                if last or self.step % self.config.checkpoint_every == 0:
                    self.save_checkpoint()
        return history

    def train_step(self) -> Metrics:
        """Sample, score and update once."""
        step, config = self.step, self.config
        with self._sampling_policy():
            samples, scored = self.sampler.sample(step)
        metrics, advantages, taken = self._advantages(scored)
        if window := self.window.at(step):
            metrics["window/start"] = float(window[0])
        metrics |= self._update(step, samples, advantages, taken)
        if self.old is not None:
            self.old.blend(nft_old_policy_decay(self.updates, config.nft_schedule))
        self.step += 1
        return metrics

    def _sampling_policy(self) -> Any:
        return self.policy.using(self.old.tensors) if self.old is not None else nullcontext()

    def _call_back(self, metrics: Metrics) -> None:
        for callback in self.callbacks:
            verdict = callback.on_step_end(self, self.step, metrics)
            if verdict not in ("stop", "best", None):
                raise GuerdonError(f"a callback answers 'stop', 'best' or None, not {verdict!r}")
            code = torch.tensor(("stop", "best", None).index(verdict), device=self.accelerator.device)
            if self.accelerator.num_processes > 1:
                code = broadcast(code)
            if int(code) == 1:
                self.keep_best()
            self.stopped = self.stopped or int(code) == 0

    # Scores

    def _advantages(self, scored: ScoredBatch) -> tuple[Metrics, Tensor, Tensor]:
        """Return what to log of the scores, and the advantages [N] and use [N] of all processes' samples."""
        config = self.config
        groups = torch.arange(config.prompts_per_step).repeat_interleave(config.group_size)
        advantages = scored.advantages(groups).detach().float().cpu()
        if advantages.shape != groups.shape:
            raise GuerdonError(f"the scorer gave {list(advantages.shape)} advantages for {len(groups)} images")
        taken = usable(scored) & torch.isfinite(advantages)
        advantages = torch.where(taken, advantages, 0.0)
        metrics: Metrics = {}
        for name, values in scored.parts.items():
            finite = torch.as_tensor(values, dtype=torch.float64)
            finite = finite[torch.isfinite(finite)]
            metrics[f"reward/{name}"] = finite.mean().item() if len(finite) else float("nan")
            metrics[f"reward_std/{name}"] = finite.std(unbiased=False).item() if len(finite) else float("nan")
        flat = (advantages.view(config.prompts_per_step, config.group_size) == 0).all(1)
        metrics |= {
            "samples/valid": taken.float().mean().item(),
            "advantage/abs_mean": advantages.abs().mean().item(),
            "advantage/flat_groups": flat.float().mean().item(),
        }
        return metrics, advantages, taken

    # Updating

    def _update(self, step: int, samples: Samples, advantages: Tensor, taken: Tensor) -> Metrics:
        config, ranks = self.config, self.accelerator.num_processes
        order = torch.randperm(len(advantages), generator=keyed_generator(config.seed, step, "order"))
        # Without KL a sample of zero advantage has exactly zero gradient: it counts in the mean but is not computed.
        # DiffusionNFT pulls such a sample towards the old policy, so there it stays.
        matters = taken & ((advantages != 0) | torch.tensor(config.kl_used or config.algorithm == "nft"))
        share = len(advantages) // ranks
        parts = []
        for part in order.tensor_split(config.updates_per_step):
            local = [part[matters[part] & (part // share == rank)] - rank * share for rank in range(ranks)]
            # Every process takes part in every backward pass, with filling where it has fewer images.
            passes = -(-max(len(rows) for rows in local) // config.micro_batch)
            parts.append((self._micro_batches(local[self.accelerator.process_index], passes), int(taken[part].sum())))
        if config.recompute_old and config.algorithm != "nft":
            for batches, _ in parts:
                for rows, counted in batches:
                    recompute_old(self.policy, config, samples, rows, counted)
        advantages = advantages[self.accelerator.process_index * share :][:share].to(self.accelerator.device)
        totals: dict[str, Tensor] = {}
        norms: list[float] = []
        deviations: dict[int, float] = {}
        images = computed = 0
        for update, (batches, number) in enumerate(parts):
            if not batches:
                continue
            deviation = torch.zeros((), device=self.accelerator.device)
            for place, (rows, counted) in enumerate(batches):
                terms = self._backward(samples, advantages, rows, counted, number, step, place == len(batches) - 1)
                for name, value in terms.sums.items():
                    totals[name] = totals.get(name, 0.0) + value
                deviation = torch.maximum(deviation, terms.ratio_deviation)
                computed += int(counted.sum())
            deviation = self.accelerator.gather(deviation.reshape(1)).max().item()
            deviations[update] = deviation
            if update == 0:
                self._check_ratio(deviation)
            norms.append(self._optimise())
            images += number
        summed = {name: self.accelerator.reduce(value, "sum").item() for name, value in sorted(totals.items())}
        computed = int(self.accelerator.reduce(torch.tensor(computed, device=self.accelerator.device), "sum"))
        metrics = {name: value / self._divisor(name, images, computed) for name, value in summed.items()}
        if norms:
            metrics["grad_norm"] = sum(norms) / len(norms)
        if config.algorithm != "nft":
            metrics |= {f"ratio_deviation/{update}": value for update, value in deviations.items()}
        metrics["samples/trained"] = computed / len(order)
        metrics["updates"] = float(self.updates)
        return metrics

    @staticmethod
    def _divisor(name: str, images: int, computed: int) -> int:
        # Losses are means over all images that take part; the ratio's figures over those that were computed.
        return max(images if name in ("loss", "policy_loss", "positive", "negative", "kl") else computed, 1)

    def _micro_batches(self, rows: Tensor, passes: int) -> list[tuple[Tensor, Tensor]]:
        """Split rows into ``passes`` micro-batches; where there are too few, row 0 fills up, uncounted."""
        size, device = self.config.micro_batch, self.accelerator.device
        batches = []
        for place in range(passes):
            chosen = rows[place * size : (place + 1) * size]
            counted = torch.ones(max(len(chosen), 1), dtype=torch.bool)
            if not len(chosen):
                chosen, counted = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.bool)
            batches.append((chosen.to(device), counted.to(device)))
        return batches

    def _backward(
        self, samples: Samples, advantages: Tensor, rows: Tensor, counted: Tensor, number: int, step: int, last: bool
    ) -> Terms:
        policy, config = self.policy, self.config
        # DeepSpeed asks accelerate, not the module, whether this pass ends the accumulation.
        self.accelerator.gradient_state._set_sync_gradients(last)
        with nullcontext() if last else self.accelerator.no_sync(policy.module):
            if self.old is None:
                terms = policy_terms(policy, config, samples, rows, advantages[rows], counted)
            else:
                key = (config.seed, step, "times")
                terms = nft_terms(policy, config, samples, rows, advantages[rows], counted, self.old.tensors, key)
            # Gradients are averaged over processes, the mean runs over the images of all of them.
            self.accelerator.backward(terms.loss * (self.accelerator.num_processes / max(number, 1)))
        return terms

    def _check_ratio(self, deviation: float) -> None:
        if self._ratio_checked or self.config.algorithm == "nft":
            return
        if not deviation <= self.config.ratio_tolerance:
            raise GuerdonError(
                f"the first on-policy update has |ratio - 1| = {deviation:.2e}, more than ratio_tolerance "
                f"{self.config.ratio_tolerance:g}: rollout and update do not compute the same policy; {_RATIO_CAUSES}"
            )
        self._ratio_checked = True

    def _optimise(self) -> float:
        self.accelerator.gradient_state._set_sync_gradients(True)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        if norm is None:  # DeepSpeed has clipped and stepped in its backward pass
            value = float(getattr(self.policy.module, "get_global_grad_norm", lambda: 0.0)() or 0.0)
        else:
            value = float(whole(norm))
        if not value < float("inf"):
            raise GuerdonError(
                f"training step {self.step + 1}: the gradient's norm is {value}; lower learning_rate, or train the "
                "transformer in float32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.updates)
        self.updates += 1
        return value

    # What callbacks and recipes use

    def evaluate(
        self, prompts: Sequence[str], seeds: Sequence[int], *, ema: bool = True, batch_size: int | None = None
    ) -> Tensor:
        """Draw images of fixed prompts and seeds by the ODE in ``eval_steps`` steps, float32 [N, 3, H, W] in [0, 1].

        ``ema`` draws from the averaged adapter, else from the one being trained.
        """
        with self.policy.using(self.ema.tensors) if ema else nullcontext():
            return self.policy.generate(
                prompts, seeds, num_steps=self.config.eval_steps, batch_size=batch_size or self.config.sample_batch
            )

    def lora_state(self, *, ema: bool = True) -> dict[str, Tensor]:
        """Return a copy of the averaged adapter (or of the one being trained), named as diffusers saves it."""
        with self.policy.using(self.ema.tensors) if ema else nullcontext():
            return self.policy.lora_state()

    def keep_best(self) -> None:
        """Remember the averaged adapter of now as the best; it is saved in checkpoints."""
        self.best_state, self.best_step = self.lora_state(), self.step

    def restore_best(self) -> int:
        """Put the best adapter (or, if none was kept, the averaged one) into the policy; returns its step."""
        if self.best_state is None:
            self.keep_best()
        assert self.best_state is not None
        self.policy.load_lora_state(self.best_state)
        return self.best_step

    # Checkpoints

    def save_checkpoint(self) -> None:
        """Write adapter, averages, AdamW's state, the best adapter, random states and counters to the run folder."""
        assert self.run is not None
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            adam = {}  # ZeRO keeps the moments in flat shards of its own; a resumed run starts them at zero
        else:
            adam = saved.pack_adam(self.optimizer, self.parameters)
        tensors = saved.pack("lora", self.parameters) | saved.pack("ema", self.ema.tensors) | adam | rng_state()
        tensors |= saved.pack("old", self.old.tensors) if self.old is not None else {}
        tensors |= {f"best/{name}": tensor for name, tensor in (self.best_state or {}).items()}
        for place, one in enumerate(self.callbacks):
            own = one.state_tensors() if hasattr(one, "state_tensors") else {}
            tensors |= {f"callback/{place}/{name}": tensor for name, tensor in own.items()}
        state = {
            "updates": self.updates, "stopped": self.stopped, "best_step": self.best_step,
            "config": self.config.model_dump(mode="json"), "prompts": saved.fingerprint(self.rows),
            "callbacks": [one.state_dict() if hasattr(one, "state_dict") else None for one in self.callbacks],
        }  # fmt: skip
        if self.accelerator.is_main_process:
            keep = self.config.keep_checkpoints
            self.run.save_checkpoint(self.step, tensors, state, stage=self.stage, keep=keep)
        self.accelerator.wait_for_everyone()

    def load_checkpoint(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Put back what ``save_checkpoint`` wrote. Raises GuerdonError if configuration or prompts differ."""
        saved.check_same(state["config"], self.config.model_dump(mode="json"), _FREE_KEYS)
        if state["prompts"] != saved.fingerprint(self.rows):
            raise GuerdonError("cannot resume: the checkpoint was made with other prompts")
        saved.fill([parameter.data for parameter in self.parameters], "lora", tensors)
        saved.fill(self.ema.tensors, "ema", tensors)
        if self.old is not None:
            saved.fill(self.old.tensors, "old", tensors)
        if self.accelerator.distributed_type != DistributedType.DEEPSPEED:
            inner = getattr(self.optimizer, "optimizer", self.optimizer)
            saved.fill_adam(inner, self.parameters, tensors)
        best = {name.removeprefix("best/"): tensor for name, tensor in tensors.items() if name.startswith("best/")}
        self.best_state, self.best_step = best or None, state["best_step"]
        self.step, self.updates, self.stopped = state["step"], state["updates"], state["stopped"]
        for place, (callback, entry) in enumerate(zip(self.callbacks, state["callbacks"], strict=False)):
            if hasattr(callback, "load_state_dict") and entry is not None:
                callback.load_state_dict(entry)
            if hasattr(callback, "load_state_tensors"):
                own = f"callback/{place}/"
                callback.load_state_tensors({k.removeprefix(own): v for k, v in tensors.items() if k.startswith(own)})
        set_rng_state(tensors)
