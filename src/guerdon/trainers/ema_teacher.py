"""A slow copy of the policy whose votes label the policy's own samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from guerdon.core.errors import GuerdonError
from guerdon.objectives.teacher_schedule import cosine_rate


class EMATeacher:
    """teacher <- (1 - a_k) teacher + a_k student, with a_k falling on a cosine (`cosine_rate`).

    student: the policy; the teacher is a frozen copy of it, in evaluation mode. total: optimiser steps of the run.
    start, end: the first and the last rate. Buffers that are not floating point are copied as they are; tied weights
    move once. Weights in 16 bits are averaged in 32 beside the model, since such steps are less than 16 bits can tell.

    ``model`` is the teacher; give samples of it to `rewards.text.agreement.PeerVoteReward`. The whole weights are
    averaged: for a sharded (FSDP, ZeRO-3) student gather them first. Source: Co-rewarding (arXiv 2508.00410 v2), II.
    """

    def __init__(self, student: nn.Module, *, total: int, start: float = 0.01, end: float = 1e-5) -> None:
        cosine_rate(0, total, start=start, end=end)
        self.total, self.start, self.end, self.steps = total, start, end, 0
        self.model = copy.deepcopy(student).eval().requires_grad_(False)
        self._exact = {
            name: tensor.float()
            for name, tensor in self.model.state_dict().items()
            if tensor.dtype in (torch.float16, torch.bfloat16)
        }

    @property
    def rate(self) -> float:
        """The share of the student that the next step mixes in."""
        return cosine_rate(self.steps, self.total, start=self.start, end=self.end)

    @torch.no_grad()
    def step(self, student: nn.Module) -> float:
        """Follow the student after an optimiser step; the rate that was used. Raises GuerdonError for other weights."""
        own, theirs = self.model.state_dict(keep_vars=True), student.state_dict()
        if own.keys() != theirs.keys():
            odd = sorted(own.keys() ^ theirs.keys())[0]
            raise GuerdonError(f"the teacher and its student differ in weights, first in {odd!r}")
        rate = self.rate
        moved: set[int] = set()
        for name, tensor in own.items():
            if id(tensor) in moved:  # tied: the same weight under a second name
                continue
            moved.add(id(tensor))
            other = theirs[name].detach()
            if tensor.is_floating_point():
                average = self._exact.get(name, tensor)
                average.lerp_(other.to(average.device, average.dtype), rate)
                tensor.copy_(average)
            else:
                tensor.copy_(other)
        self.steps += 1
        return rate

    def state_dict(self) -> dict[str, Any]:
        """Weights and steps taken, to go on from."""
        return {"steps": self.steps, "model": self.model.state_dict(), "exact": self._exact}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        weights: Mapping[str, Tensor] = state["model"]
        self.model.load_state_dict(weights)
        for name, average in self._exact.items():
            average.copy_(state["exact"][name])
        self.steps = int(state["steps"])


class EMATeacherCallback(TrainerCallback):
    """Moves a teacher after each optimiser step of a transformers or TRL trainer."""

    def __init__(self, teacher: EMATeacher) -> None:
        self.teacher = teacher

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Called by the trainer."""
        self.teacher.step(given["model"])
