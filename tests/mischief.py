"""Rewards that hang, crash and block, for the tests of the worker process; light, since every worker imports this."""

from __future__ import annotations

import asyncio
import os
import re
import time

import numpy as np

from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import reward


@reward(on_failure="drop_sample")
def mischief(prompts, completions, **columns):
    for text in completions:
        if text == "hang":
            time.sleep(3600)
        if text == "spin":
            re.match(r"(a+)+$", "a" * 60 + "!")  # catastrophic backtracking, which holds the interpreter's lock
        if text == "exit":
            os._exit(7)
        if text == "raise":
            raise ValueError("no number in it")
        if text == "nan":
            return [float("nan")]
    return [float(len(text)) for text in completions]


class Sleeper:
    __name__ = "sleeper"
    on_failure = "drop_sample"

    async def __call__(self, prompts, completions, **columns):
        for text in completions:
            if text == "block":
                time.sleep(3600)  # blocks the whole loop: no coroutine can be cancelled
            await asyncio.sleep(3600 if text == "hang" else 0.01)
        return [float(len(text)) for text in completions]


class Composite:
    __name__ = "composite"
    groupwise = True

    def __call__(self, **columns):
        raise AssertionError

    def scores(self, prompts, completions, images=None, **columns):
        ranks = np.arange(len(completions), dtype=float)
        return Scores(ranks, ranks > 0, parts={"pixels": np.full(len(ranks), float(images.sum()))})


class Settled:
    """Every row failed inside and was given a declared fallback there; the score tells the trainer's step."""

    __name__ = "settled"

    def __call__(self, **columns):
        raise AssertionError

    def scores(self, prompts, completions, trainer_state=None, **columns):
        rows = len(completions)
        step = float(trainer_state.global_step)
        return Scores(np.full(rows, step), np.ones(rows, bool), {row: Failed("inside", "own") for row in range(rows)})


class Broken:
    __name__ = "broken"

    def __call__(self, prompts, completions, **columns):
        return [1.0, 2.0]


class Unbuildable:
    __name__ = "unbuildable"

    def __init__(self):
        raise OSError("no weights")

    def __call__(self, prompts, completions, **columns):
        return []
