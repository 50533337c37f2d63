"""One training step's samples: choose prompts, roll out whole groups, score them, on any number of processes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from guerdon.policies.families import Conditions
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rollout import Trajectory, keyed_generator, rollout
from guerdon.trainers.diffusion_config import DiffusionConfig
from guerdon.trainers.diffusion_update import Samples
from guerdon.trainers.scored import ScoredBatch, concatenated, gathered
from guerdon.trainers.windows import Window


class ScorerFn(Protocol):
    """``scorer(prompts, images [N, 3, H, W] in [0, 1], step, **columns) -> ScoredBatch``; step counts from 0.

    ``columns`` are the data's own and ``group_ids``, one entry an image.
    """

    def __call__(self, prompts: list[str], images: Tensor, step: int, **columns: list[Any]) -> ScoredBatch: ...


@dataclass
class GroupSampler:
    """Draws and scores ``prompts_per_step`` groups of ``group_size`` images each; keyed by (seed, step, image).

    ``rows``: the data, each with its "prompt" and the columns that the scorer gets.
    """

    policy: FlowPolicy
    scorer_fn: ScorerFn
    rows: list[dict[str, Any]]
    config: DiffusionConfig
    accelerator: Accelerator
    window: Window

    def _slots(self, step: int) -> list[int]:
        """Return the rows of this step's prompts; each appears once more only when all have appeared."""
        generator, wanted = keyed_generator(self.config.seed, step, "prompts"), self.config.prompts_per_step
        slots: list[int] = []
        while len(slots) < wanted:
            slots += torch.randperm(len(self.rows), generator=generator)[: wanted - len(slots)].tolist()
        return slots

    def sample(self, step: int) -> tuple[Samples, ScoredBatch]:
        """Roll out and score this process's share of the step's samples; the scores returned are everybody's."""
        config, slots = self.config, self._slots(step)
        total = config.group_size * config.prompts_per_step
        share = total // self.accelerator.num_processes
        first = self.accelerator.process_index * share
        rows = [self.rows[slots[number // config.group_size]] for number in range(first, first + share)]
        cond = self.policy.encode([row["prompt"] for row in rows])
        at_once = max(config.branches, config.sample_batch // config.branches * config.branches)
        paths, images, jobs, sizes = [], [], [], []
        pending = 0
        with ThreadPoolExecutor(1) as pool:
            for start in range(0, share, at_once):
                stop = min(start + at_once, share)
                path = self._rollout(step, cond[start:stop], range(first + start, first + stop))
                paths.append(path)
                images.append(path.images)
                whole = (first + stop) // config.group_size * config.group_size - first if config.overlap_scoring else 0
                ready = share if stop == share else max(whole, pending)
                if ready > pending:
                    # images not scored yet, of which those of finished groups go
                    left = torch.cat(images)
                    count = ready - pending
                    jobs.append(self._submit(pool, rows[pending:ready], left[:count], step, first + pending))
                    sizes.append(count)
                    images, pending = [left[count:]], ready
            scores = [job.result() if isinstance(job, Future) else job for job in jobs]
        samples = Samples.of(paths, cond, torch.arange(first, first + share))
        return samples, gathered(concatenated(scores, sizes), share, self.accelerator)

    def _rollout(self, step: int, cond: Conditions, numbers: range) -> Trajectory:
        config, seed = self.config, self.config.seed
        prefixes = numbers[:: config.branches]
        # A prompt's noise is keyed by its group, an image's by its number: sharding changes neither.
        keys = [("group", n // config.group_size) if config.same_noise else ("prefix", n) for n in prefixes]
        starts = [keyed_generator(seed, step, "start", *key) for key in keys]
        return rollout(
            self.policy, cond[:: config.branches], num_steps=config.num_steps, noise_level=config.noise_level,
            kind=config.kind, window=(0, 0) if config.algorithm == "nft" else self.window.at(step),
            branches=config.branches, initial=self.policy.initial_noise(len(starts), starts),
            generator=[keyed_generator(seed, step, "noise", number) for number in numbers],
        )  # fmt: skip

    def _submit(
        self, pool: ThreadPoolExecutor, rows: list[dict[str, Any]], images: Tensor, step: int, first: int
    ) -> Future[ScoredBatch] | ScoredBatch:
        prompts = [row["prompt"] for row in rows]
        columns = {key: [row[key] for row in rows] for key in rows[0] if key != "prompt"}
        # Two groups may share a prompt, so a groupwise reward is told where each begins.
        columns["group_ids"] = [(first + place) // self.config.group_size for place in range(len(rows))]
        if self.config.overlap_scoring:
            return pool.submit(self.scorer_fn, prompts, images, step, **columns)
        return self.scorer_fn(prompts, images, step, **columns)
