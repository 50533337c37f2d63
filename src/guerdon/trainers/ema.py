"""An exponential moving average of trained parameters, for evaluation and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.objectives.ema_schedule import ema_decay


class EMA:
    """Average of ``parameters``: shadow <- d shadow + (1 - d) weights after optimiser step n.

    d = min((1 + n) / (10 + n), decay), and it is applied only when n + 1 is a multiple of ``every`` (Flow-GRPO and
    RealGen: decay 0.9, every 8). Call ``step`` once an optimiser step: the reference code calls it once a micro-batch
    with an unchanged n, which applies the decay many times in a row and shortens the memory.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float = 0.9, every: int = 8) -> None:
        if every < 1:
            raise GuerdonError(f"an EMA is applied every 1 or more optimiser steps, got {every}")
        self.parameters = list(parameters)
        self.decay = decay
        self.every = every
        #: The averaged values, in the parameters' order.
        self.tensors: list[Tensor] = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def step(self, n: int) -> bool:
        """Take in the weights after optimiser step ``n`` (counted from 0); returns whether the average moved."""
        if (n + 1) % self.every != 0:
            return False
        self.blend(ema_decay(n, self.decay))
        return True

    @torch.no_grad()
    def blend(self, decay: float) -> None:
        """Move the average: ``decay`` times itself plus (1 - decay) times the weights now."""
        for tensor, parameter in zip(self.tensors, self.parameters, strict=True):
            tensor.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    @torch.no_grad()
    def load(self, tensors: Sequence[Tensor]) -> None:
        """Copy averaged values back in, as after a resume."""
        for own, tensor in zip(self.tensors, tensors, strict=True):
            own.copy_(tensor)
