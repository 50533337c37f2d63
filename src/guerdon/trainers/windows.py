"""Which denoising steps are stochastic, and hence trained, at each training step.

Every window depends on (seed, step) only and never touches a global generator: RealGen's released pipelines reseed the
global one on every batch, so that each process trains one window for ever.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch

from guerdon.core.errors import GuerdonError
from guerdon.policies.rollout import keyed_generator


class Window(Protocol):
    """Chooses the trained steps [start, stop) of training step ``step``; None is the full SDE."""

    def at(self, step: int) -> tuple[int, int] | None: ...


class FullWindow:
    """Every denoising step is stochastic and all but the last are trained (Flow-GRPO)."""

    def at(self, step: int) -> None:
        return None


class RandomWindow:
    """``size`` steps with the start uniform in {lo, ..., hi - size} (RealGen, Flow-GRPO-Fast)."""

    def __init__(self, lo: int, hi: int, size: int, seed: int = 0) -> None:
        _check(lo, hi, size)
        self.lo, self.hi, self.size, self.seed = lo, hi, size, seed

    def at(self, step: int) -> tuple[int, int]:
        generator = keyed_generator(self.seed, step, "window")
        start = self.lo + int(torch.randint(self.hi - self.size - self.lo + 1, (), generator=generator))
        return start, start + self.size


class SlidingWindow:
    """``size`` steps that slide from high to low noise, ``stride`` at a time, and roll back to the start (MixGRPO).

    pace "constant": every position is held for ``interval`` training steps. "decay": position l is held for
    interval * exp(-decay_rate * max(0, l - decay_from)) steps, at least one, so that low noise gets less training.
    "random": a position is drawn anew every ``interval`` steps.
    Source: MixGRPO (arXiv 2507.21802): size 4, interval 25 (Flash 20), stride 1. The decay's exact form and its
    defaults (rate 0.1 from position 13) are UNVERIFIED.
    """

    def __init__(
        self,
        lo: int,
        hi: int,
        size: int = 4,
        *,
        interval: int = 25,
        stride: int = 1,
        pace: Literal["constant", "decay", "random"] = "constant",
        decay_rate: float = 0.1,
        decay_from: int = 13,
        seed: int = 0,
    ) -> None:
        _check(lo, hi, size)
        if interval < 1 or stride < 1:
            raise GuerdonError(f"a sliding window needs interval and stride of 1 or more, got {interval} and {stride}")
        self.size, self.interval, self.pace, self.seed = size, interval, pace, seed
        self.starts = list(range(lo, hi - size + 1, stride))
        slow = [max(0, start - decay_from) if pace == "decay" else 0 for start in self.starts]
        self.held = [max(1, round(interval * math.exp(-decay_rate * late))) for late in slow]

    def at(self, step: int) -> tuple[int, int]:
        if self.pace == "random":
            generator = keyed_generator(self.seed, step // self.interval, "window")
            start = self.starts[int(torch.randint(len(self.starts), (), generator=generator))]
            return start, start + self.size
        left = step % sum(self.held)
        for start, held in zip(self.starts, self.held, strict=True):
            if left < held:
                return start, start + self.size
            left -= held
        raise AssertionError("the remainder lies in one of the positions")


def _check(lo: int, hi: int, size: int) -> None:
    if not (0 <= lo and 1 <= size <= hi - lo):
        raise GuerdonError(f"a window of {size} steps does not fit into the steps {lo}..{hi}")
