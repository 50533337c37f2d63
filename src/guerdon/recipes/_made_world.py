"""Worlds that are drawn: problems of a system's own kind, and a small policy taught by imperfect answers to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from pydantic import Field

from guerdon.core.errors import GuerdonError
from guerdon.recipes._language import LanguageConfig, Problems, World
from guerdon.trainers.warm_start import warm_start

__all__ = ["MadeConfig", "made_world"]

Row = dict[str, Any]
Draw = Callable[[np.random.Generator], tuple[Row, str]]
"""A random problem, a row with "prompt" and its truth, and an answer to it as somebody gave it: not always right."""


class MadeConfig(LanguageConfig):
    """begin_steps, begin_rows: of the embedded policy's supervised beginning, on so many imperfect answers."""

    begin_steps: int = Field(300, ge=1)
    begin_rows: int = Field(3000, ge=1)


def made_world(
    draw: Draw, *, said: Callable[[str], str | None], kind: Callable[[str], str | None] | None = None,
    hidden: int = 96, layers: int = 2,
) -> World:  # fmt: skip
    """A `World` of what ``draw`` makes. One problem in eight is held out: to be watched or tested, never learnt from.

    said, kind: the answer that a completion gives, and its class where there are few. hidden, layers: of the policy, a
    ``Qwen3ForCausalLM``.
    """

    def problems(config: Any) -> Problems:
        train = _distinct(draw, config.seed, False, config.problems)
        held = _distinct(draw, config.seed, True, config.watched + config.tested)
        return Problems(train, held[: config.watched], held[config.watched :], [])

    def policy(config: Any, folder: Any) -> tuple[Any, Any]:
        shown = list(islice(_drawn(draw, config.seed, False), config.begin_rows))
        rows = [(row["prompt"], answer) for row, answer in shown]
        size: dict[str, Any] = dict(hidden=hidden, layers=layers, seed=config.seed)
        return warm_start(rows, folder / "begin", steps=config.begin_steps, **size)

    return World(problems, policy, said, kind)


def _distinct(draw: Draw, seed: int, held: bool, count: int) -> list[Row]:
    found: dict[str, Row] = {}
    for row, _ in islice(_drawn(draw, seed + 1, held), 100 * count):
        found.setdefault(json.dumps(row["prompt"]), row)
        if len(found) == count:
            return list(found.values())
    raise GuerdonError(f"the embedded problems are only about {len(found)}; ask for fewer than {count}")


def _drawn(draw: Draw, seed: int, held: bool) -> Iterator[tuple[Row, str]]:
    rng = np.random.default_rng(seed)
    while True:
        row, answer = draw(rng)
        digest = hashlib.blake2b(json.dumps(row["prompt"]).encode(), digest_size=1).digest()
        if (digest[0] % 8 == 0) == held:
            yield row, answer
