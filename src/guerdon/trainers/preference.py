"""Training a scalar reward model on preference pairs.

A plain loop on accelerate and not transformers' ``Trainer``: that one stores optimiser, schedule and random states as
pickles, cuts an effective batch into micro-batches of so many rows where this one cuts it by tokens, and has no place
for a step that needs two gradients. Here a step depends on (seed, step) and on the state of model and optimiser alone,
so a run that was killed and resumed writes the numbers of one that was not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.models.scalar.batching import default_budget
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tokens import Encoded
from guerdon.objectives.preference import bradley_terry
from guerdon.trainers.diffusion_state import check_same
from guerdon.trainers.dropout_views import View
from guerdon.trainers.pair_batches import (
    ModalityAlternatingSampler,
    PairBatch,
    ShuffledSampler,
    micro_batches,
    view_of,
)
from guerdon.trainers.preference_config import PreferenceConfig, learning_rate

__all__ = ["ExtraLoss", "Objective", "PreferenceConfig", "RewardModelTrainer", "StepHook", "learning_rate"]

Metrics = dict[str, float]
STAGE = "reward_model"

Objective = Callable[[Callable[[], View], PairBatch], Tensor]
"""``objective(passes, batch)``: a batch's mean loss in place of Bradley-Terry; each ``passes()`` runs the model."""
ExtraLoss = Callable[[ScalarRewardModel, PairBatch, View], tuple[Tensor, Mapping[str, float]]]
"""``extra_loss(model, batch, view)``: a term that is added to the mean loss of a batch, and metrics."""
StepHook = Callable[[ScalarRewardModel, Callable[[ScalarRewardModel], Tensor]], Mapping[str, Any]]
"""``step(model, loss)`` adds a step's gradient to ``parameter.grad``; ``loss(model)`` is L of the step's batch."""

_MANY = 5000  # pairs whose reading takes long enough to be shown
# Keys that may change between an interruption and its resumption without changing the numbers.
_FREE_KEYS = ("checkpoint_every", "keep_checkpoints")


class RewardModelTrainer:
    """Train a `ScalarRewardModel`, whole, in part (frozen) or its LoRA adapters, on pairs.

    Args:
        model: trained in place; what of it is in half precision and trains becomes float32.
        pairs: to train on. evaluation: held-out ones, looked at before, during and after.
        folder: where metrics and checkpoints go, under ``stage``; None keeps nothing.
        objective, extra_loss, step: see `Objective`, `ExtraLoss`, `StepHook`; at most one of the three. They see all of
            a step's pairs (of this process) at once, in the order of the data where not shuffled, which takes the
            memory of a whole batch. Contrastive views: ``objective=lambda passes, batch: two_view_loss(passes, ...)``.
            MetaRM: ``step=lambda model, loss: vars(meta(model, loss, difference))``.
        accelerator: None makes one. Several processes share a batch; gradients are summed after the backward pass, so
            parameters are whole on each (no FSDP).

    Metrics of a step, counted from 1: loss, accuracy (a tie half; without the margin), chosen, rejected and gap (mean
    rewards), grad_norm, learning_rate; at a look ``held_out/`` accuracy, loss (plain Bradley-Terry), chosen, rejected.

    Attributes: ``step`` steps done, ``total`` steps in all, ``truncated`` conversations that lost the beginning of
    their prompt to the length limit (texts; what shows pictures is refused).

    Raises GuerdonError for no pairs, nothing to train, a batch that cannot be made, and a loss that is not finite.
    """

    def __init__(
        self,
        model: ScalarRewardModel,
        pairs: Sequence[Pair],
        config: PreferenceConfig,
        folder: RunFolder | None = None,
        evaluation: Sequence[Pair] | None = None,
        objective: Objective | None = None,
        *,
        extra_loss: ExtraLoss | None = None,
        step: StepHook | None = None,
        stage: str = STAGE,
        accelerator: Accelerator | None = None,
    ) -> None:
        if not pairs:
            raise GuerdonError("there are no pairs to train a reward model on")
        if sum(hook is not None for hook in (objective, extra_loss, step)) > 1:
            raise GuerdonError("give at most one of objective, extra_loss and step: each is a loss of its own")
        if config.alternate is not None and (config.together > 1 or not config.shuffle):
            raise GuerdonError("alternate draws pairs at random, one by one, so together and shuffle=false exclude it")
        if config.keep_best and not evaluation:
            raise GuerdonError("keep_best chooses by held-out pairs, and there are none; give evaluation pairs")
        self.model, self.pairs, self.config = model, list(pairs), config
        self.folder, self.evaluation, self.stage = folder, list(evaluation or []), stage
        self.objective, self.extra_loss, self.step_hook = objective, extra_loss, step
        if accelerator is None:
            mixed = "bf16" if config.precision == "bf16" else "no"
            accelerator = Accelerator(mixed_precision=mixed, cpu=model.device.type == "cpu")
        self.accelerator = accelerator
        model.to(accelerator.device)
        self.trained = {name: part for name, part in model.named_parameters() if part.requires_grad}
        if not self.trained:
            raise GuerdonError("nothing of this reward model is trainable; freeze less of it")
        if any(part.dtype != torch.float32 for part in self.trained.values()):
            model.backbone.float()  # a rate of 5e-6 moves no weight of 8 bits
        if config.gradient_checkpointing:
            model.backbone.gradient_checkpointing_enable()
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [one for one in self.trained.values() if one.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [one for one in self.trained.values() if one.ndim < 2], "weight_decay": 0.0},
            ],
            lr=config.learning_rate, betas=config.betas, eps=config.eps,
        )  # fmt: skip
        self.sampler: ShuffledSampler | ModalityAlternatingSampler
        if config.alternate is not None:
            shown = [bool(pair.images) for pair in self.pairs]
            ratio = config.alternate
            self.sampler = ModalityAlternatingSampler(shown, config.batch_size, ratio=ratio, seed=config.seed)
        else:
            self.sampler = ShuffledSampler(
                len(self.pairs), config.batch_size, seed=config.seed, shuffle=config.shuffle, together=config.together
            )
        self.total = config.steps or math.ceil(config.epochs * self.sampler.steps_per_epoch)
        self.budget = config.token_budget or min(default_budget(model), 4096)
        shown_pairs = progress(self.pairs, "reading the pairs") if len(self.pairs) > _MANY else self.pairs
        self.encoded = [None if pair.images else self._encode(pair) for pair in shown_pairs]
        texts = [one for both in self.encoded if both is not None for one in both]
        self.truncated = model.report_cuts(texts) if texts else 0
        self.step = 0
        self.best: tuple[float, dict[str, Tensor]] = (-1.0, {})

    # The run

    def train(self, resume: bool = True) -> list[Metrics]:
        """Run to the last step, from the newest checkpoint with ``resume``; the metrics of the steps of this call.

        The model is left in evaluation mode.
        """
        if resume:
            self._restore()
        if self.folder is not None and self.accelerator.is_main_process:
            self.folder.rollback(self.step if self.step else -1, stage=self.stage)
        history = []
        if self.step == 0 and self.evaluation:
            self._log(0, self._look())
        with progress(self.total - self.step, "training the reward model") as bar:
            while self.step < self.total:
                metrics = self.train_step()
                if self.evaluation and (self.step % self._look_every == 0 or self.step == self.total):
                    metrics |= self._look()
                self._log(self.step, metrics)
                history.append(metrics)
                bar.advance(loss=metrics["loss"], accuracy=metrics["accuracy"])
                if self.step % self.config.checkpoint_every == 0 or self.step == self.total:
                    self._save_checkpoint()
        if self.best[1]:
            self._load(self.best[1])
        self.model.eval()
        return history

    def train_step(self) -> Metrics:
        """One optimiser step; returns its metrics. Sets the seeds of torch, numpy and Python to the step's own."""
        self.model.train()
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        set_seed(((self.config.seed * 1_000_003 + self.step) * ranks + rank) % 2**32)
        rows = self.sampler(self.step)
        batch = self._batch(self._own(rows))
        rate = learning_rate(self.config, self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._gradient(batch, len(rows))
        if self.accelerator.num_processes > 1:
            sums = self._over_processes(sums)
        metrics = {name: value / len(rows) for name, value in sums.items()}
        norm = torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.config.max_grad_norm)
        if not math.isfinite(metrics["loss"]) or not bool(torch.isfinite(norm)):
            places = ", ".join(self.pairs[row].where or str(row) for row in rows[:3])
            raise GuerdonError(
                f"loss {metrics['loss']} with gradient norm {float(norm)} at step {self.step + 1} (pairs {places}, ...)"
            )
        self.optimizer.step()
        self.step += 1
        metrics["gap"] = metrics["chosen"] - metrics["rejected"]
        return metrics | {"grad_norm": float(norm), "learning_rate": rate}

    def evaluate(self, pairs: Sequence[Pair]) -> Metrics:
        """Accuracy (a tie half), plain Bradley-Terry loss and mean rewards of pairs."""
        conversations = [pair.conversation(side) for pair in pairs for side in ("chosen", "rejected")]  # type: ignore[arg-type]
        scores = self.model.score(conversations, images=[pair.images for pair in pairs for _ in range(2)])
        chosen, rejected = scores[0::2], scores[1::2]
        return {
            "accuracy": pair_accuracy(chosen.numpy(), rejected.numpy()),
            "loss": float(bradley_terry(chosen, rejected)),
            "chosen": float(chosen.mean()), "rejected": float(rejected.mean()),
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Save the model, load it again and score pairs again: GuerdonError unless the scores agree to 1e-5."""
        folder = self.model.save_pretrained(path)
        asked = (self.evaluation or self.pairs)[:32]
        talks = [pair.conversation(side) for pair in asked for side in ("chosen", "rejected")]  # type: ignore[arg-type]
        images = [pair.images for pair in asked for _ in range(2)]
        before = self.model.score(talks, images=images)
        loaded = type(self.model).from_pretrained(folder, device=self.model.device)
        moved = (loaded.score(talks, images=images) - before).abs()
        if not bool((moved <= 1e-5 * before.abs().clamp(min=1.0)).all()):
            raise GuerdonError(f"{folder}: loaded again, the model scores up to {float(moved.max()):.2g} differently")
        return folder

    # A step

    def _gradient(self, batch: PairBatch, count: int) -> Metrics:
        """Add the gradient of the mean loss of ``count`` pairs, of which ``batch`` are here; sums of its metrics."""
        if self.objective is not None or self.extra_loss is not None or self.step_hook is not None:
            return self._hooked_gradient(batch, count)
        sums: Metrics = {}
        for rows in micro_batches(self.model, batch, self.config.layout, self.budget):
            with self.accelerator.autocast():
                view, part = view_of(self.model, batch, [rows], self.config.layout), batch.of_rows(rows)
            losses = self._losses(view, part)
            self.accelerator.backward(losses.sum() / count)
            for name, value in (_figures(view) | {"loss": float(losses.detach().sum())}).items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def _hooked_gradient(self, batch: PairBatch, count: int) -> Metrics:
        seen: list[View] = []
        told: dict[str, Any] = {}

        def passes(model: ScalarRewardModel) -> View:
            rows = micro_batches(model, batch, self.config.layout, self.budget)
            with self.accelerator.autocast():
                seen.append(view_of(model, batch, rows, self.config.layout))
            return seen[-1]

        def loss(model: ScalarRewardModel) -> Tensor:
            if self.objective is not None:
                total = self.objective(lambda: passes(model), batch)
            else:
                view = passes(model)
                total = self._losses(view, batch).mean()
                if self.extra_loss is not None:
                    extra, more = self.extra_loss(model, batch, view)
                    total = total + extra
                    told.update(more)
            told["loss"] = total.detach()
            return total

        share = len(batch) / count
        if self.step_hook is not None:
            told |= self.step_hook(self.model, loss)
            for parameter in self.trained.values():
                if parameter.grad is not None:
                    parameter.grad *= share
        else:
            self.accelerator.backward(loss(self.model) * share)
        if not seen:
            raise GuerdonError("this run's objective or step never passed its pairs through the model")
        return _figures(seen[0]) | {name: float(value) * len(batch) for name, value in told.items()}

    def _losses(self, view: View, batch: PairBatch) -> Tensor:
        """Bradley-Terry losses [N]."""
        config, device = self.config, view.chosen.device
        lengths: dict[str, Any] = {}
        if config.length_norm is not None:
            lengths = {
                "length_norm": config.length_norm,
                "chosen_length": batch.chosen_length.to(device), "rejected_length": batch.rejected_length.to(device),
            }  # fmt: skip
        return bradley_terry(
            view.chosen, view.rejected, margin=batch.margin.to(device), label_smoothing=batch.smoothing.to(device),
            ties=batch.ties.to(device), centre=config.centre, floor=config.floor, reduce="none", **lengths,
        )  # fmt: skip

    def _own(self, rows: list[int]) -> list[int]:
        """This process' share of a step's rows; whole groups."""
        ranks, together = self.accelerator.num_processes, self.config.together
        groups = len(rows) // together
        if groups < ranks:
            raise GuerdonError(f"a step of {groups} groups of pairs cannot be shared by {ranks} processes")
        first, last = (groups * (self.accelerator.process_index + more) // ranks * together for more in (0, 1))
        return rows[first:last]

    def _batch(self, rows: Sequence[int]) -> PairBatch:
        encoded = [one for row in rows for one in self.encoded[row] or self._encode(self.pairs[row])]
        config = self.config
        return PairBatch.of(
            [self.pairs[row] for row in rows], encoded, smoothing=config.label_smoothing, margins=config.margins
        )

    def _encode(self, pair: Pair) -> tuple[Encoded, Encoded]:
        # Pictures are not kept in memory: their pairs are encoded when a step asks for them.
        try:
            first, second = (
                self.model.encode(pair.conversation(side), pair.images, split=True)  # type: ignore[arg-type]
                for side in ("chosen", "rejected")
            )
        except GuerdonError as error:
            raise GuerdonError(f"{pair.where or 'a pair'}: {error}") from None
        return first, second

    def _over_processes(self, sums: Metrics) -> Metrics:
        for parameter in self.trained.values():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(gradient, "sum")
        names = sorted(sums)
        told = torch.tensor([sums[name] for name in names], dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(names, self.accelerator.reduce(told, "sum").tolist(), strict=True))

    # Looking, logging, saving

    @property
    def _look_every(self) -> int:
        return self.config.evaluate_every or max(1, self.total // 4)

    def _look(self) -> Metrics:
        found = self.evaluate(self.evaluation)
        if self.config.keep_best and self.step and found["accuracy"] > self.best[0]:
            self.best = (found["accuracy"], {name: part.detach().clone() for name, part in self.trained.items()})
        return {f"held_out/{name}": value for name, value in found.items()}

    def _log(self, step: int, metrics: Metrics) -> None:
        if self.folder is not None and self.accelerator.is_main_process:
            self.folder.log(step, metrics, stage=self.stage)

    def _save_checkpoint(self) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
            return
        tensors: dict[str, Tensor] = {f"parameter/{name}": part for name, part in self.trained.items()}
        tensors |= {f"best/{name}": part for name, part in self.best[1].items()}
        for name, part in self.trained.items():
            tensors |= {f"adam/{key}/{name}": torch.as_tensor(v) for key, v in self.optimizer.state[part].items()}
        state = {"config": self._settings(), "pairs": self._fingerprint, "best": self.best[0]}
        self.folder.save_checkpoint(self.step, tensors, state, stage=self.stage, keep=self.config.keep_checkpoints)

    def _restore(self) -> None:
        latest = self.folder.latest_checkpoint(stage=self.stage) if self.folder is not None else None
        if self.folder is None or latest is None:
            return
        tensors, state = self.folder.load_checkpoint(latest)
        check_same(state["config"], self._settings(), _FREE_KEYS)
        if state["pairs"] != self._fingerprint:
            raise GuerdonError(f"{latest}: made with other training pairs; use a new folder")
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = tensor
        if groups["parameter"].keys() != self.trained.keys():
            odd = sorted(groups["parameter"].keys() ^ self.trained.keys())[0]
            raise GuerdonError(f"{latest}: other parameters are trained now, for instance {odd!r}")
        self._load(groups["parameter"])
        for name, part in self.trained.items():
            kept = {key.partition("/")[0]: value for key, value in groups["adam"].items() if key.endswith(f"/{name}")}
            # The count of steps stays on the CPU, where AdamW keeps it.
            self.optimizer.state[part] = {k: v if k == "step" else v.to(part.device) for k, v in kept.items()}
        self.step, self.best = int(state["step"]), (state["best"], groups.get("best", {}))

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, part in self.trained.items():
            part.copy_(tensors[name])

    def _settings(self) -> dict[str, Any]:
        settings = self.config.model_dump(mode="json")
        return settings | {"total steps": self.total, "processes": self.accelerator.num_processes}

    @cached_property
    def _fingerprint(self) -> str:
        told = hashlib.sha256()
        for pair, both in zip(self.pairs, self.encoded, strict=True):
            sides: list[Any] = [one.ids for one in both or ()]
            if both is None:
                sides = [text_of(pair.conversation(side)) for side in ("chosen", "rejected")]  # type: ignore[arg-type]
            told.update(repr((sides, pair.margin, pair.smoothing)).encode())
        return told.hexdigest()[:16]


def _figures(view: View) -> Metrics:
    """Sums over pairs."""
    chosen, rejected = view.chosen.detach(), view.rejected.detach()
    right = (chosen > rejected).double() + 0.5 * (chosen == rejected).double()
    return {"accuracy": float(right.sum()), "chosen": float(chosen.sum()), "rejected": float(rejected.sum())}
