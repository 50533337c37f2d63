"""A recipe that counts: small enough for the tests of the command line, resumable like a real one."""

from __future__ import annotations

from typing import Any

from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder


class Inner(Config):
    rate: float = 1.0
    width: int = 8


class CountingConfig(Config):
    preset: str = "small"
    seed: int = 0
    steps: int = 3
    inner: Inner = Inner(rate=0.5)
    stop_at: int | None = None
    fail_at: int | None = None


CONFIG = CountingConfig
PRESETS: dict[str, dict[str, Any]] = {"small": {}, "large": {"steps": 30, "inner": {"width": 64}}}
# What happens outside the configuration: a person presses Ctrl-C at this step, once.
interrupt: list[int] = []
calls: list[int] = []


def run(config: CountingConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    import torch

    path = folder.latest_checkpoint() if resume else None
    first, total = 0, 0.0
    if path is not None:
        tensors, state = folder.load_checkpoint(path)
        first, total = state["step"], float(tensors["total"])
    for step in range(first + 1, config.steps + 1):
        calls.append(step)
        if interrupt == [step]:
            interrupt.clear()
            raise KeyboardInterrupt
        if config.fail_at == step:
            raise GuerdonError(f"reward 'count' failed at row {step}")
        total += config.inner.rate
        folder.log(step, {"reward/count": total})
        folder.save_checkpoint(step, {"total": torch.tensor(total)})
    summary = {"system": "counting", "title": "Counting", "seed": config.seed, "total": total}
    folder.write_summary(summary)
    return summary
