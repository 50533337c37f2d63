"""Tiny training runs, started by accelerate from a test: python sharded_run.py OUT SETTINGS_JSON [shard].

"shard" shards every parameter over the processes as FSDP 2 does (accelerate itself does so on GPUs only).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import tiny_pipelines as tiny
from guerdon.core.runs import RunFolder
from guerdon.objectives.advantages import group_advantages
from guerdon.policies.flow import FlowPolicy
from guerdon.trainers.diffusion import DiffusionTrainer
from guerdon.trainers.diffusion_config import DiffusionConfig


@dataclass
class Scored:
    parts: dict[str, np.ndarray]
    valid: np.ndarray
    failures: dict[int, str] = field(default_factory=dict)

    def advantages(self, group_ids: torch.Tensor) -> torch.Tensor:
        rewards = torch.tensor(np.stack(list(self.parts.values())))
        return group_advantages(rewards, group_ids, valid=torch.tensor(self.valid), std="batch")


class Sharding(Accelerator):
    """What accelerate does for fsdp_version 2, on a CPU mesh."""

    def prepare(self, model: Any, optimizer: Any) -> Any:  # type: ignore[override]
        mesh = init_device_mesh("cpu", (self.num_processes,))
        for block in model.transformer_blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        group = optimizer.param_groups[0]
        options = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
        sharded = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return model, self.prepare_optimizer(torch.optim.AdamW(sharded, **options))

    @contextmanager
    def no_sync(self, model: Any) -> Iterator[None]:
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)


def scorer(prompts: list[str], images: torch.Tensor, step: int, **columns: Any) -> Scored:
    values = -images.mean((1, 2, 3)).double().numpy()
    values[[prompt == "flat" for prompt in prompts]] = 0.0  # a group that one process alone may hold: no signal
    valid = images[:, 0, 0, 0].numpy() < 0.9  # a rule of the image alone, so that sharding cannot change it
    return Scored({"darkness": np.where(valid, values, np.nan)}, valid)


def train(accelerator: Accelerator, out: Path, number: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One run; with "break_after" it is cut off there, and a second trainer resumes it from the folder."""
    cut = settings.pop("break_after", None)
    config, run = DiffusionConfig(**settings), None
    if cut is not None:
        folder = out / f"run-{type(accelerator).__name__}-{accelerator.num_processes}-{number}"
        if accelerator.is_main_process:
            RunFolder.open(folder, config)
        accelerator.wait_for_everyone()
        run = RunFolder(folder)
    prompts = ["a cat", "flat", "rocks"]
    for stop in ([cut] if cut is not None else []) + [config.steps]:
        policy = FlowPolicy(tiny.sd3(pixels=True, layers=1))
        part = config.model_copy(update={"steps": stop})
        trainer = DiffusionTrainer(policy, scorer, prompts, part, run, accelerator)
        history = trainer.train()
    norm = float(sum(tensor.double().square().sum() for tensor in trainer.lora_state(ema=False).values()))
    return {"history": run.metrics() if run is not None else history, "norm": norm, "step": trainer.step}


def main(out: Path, runs: list[dict[str, Any]], shard: bool) -> None:
    accelerator = (Sharding if shard else Accelerator)(cpu=True)
    found = [train(accelerator, out, number, settings) for number, settings in enumerate(runs)]
    if accelerator.is_main_process:
        (out / f"{'shard' if shard else accelerator.num_processes}.json").write_text(json.dumps(found))
    accelerator.end_training()
    # On a loaded machine gloo's threads sometimes abort the interpreter's own exit, when all is written and closed.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:] == ["shard"])
