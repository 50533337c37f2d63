"""Any reward with known noise put on it: how much of a reward's error does a training stand?"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import ndtri

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import name_of
from guerdon.core.outcome import Scores
from guerdon.core.reward import Reward, range_of
from guerdon.metrics.reward_noise import NoiseRates
from guerdon.objectives.reward_noise import KINDS, Kind, noisy_rewards
from guerdon.rewards.composite import Combined, Composite, Floats, bounds_of, broken, numbers, training_step
from guerdon.rewards.text.final_answer import stated_answer

__all__ = ["NoisePoint", "NoisyReward", "noise_sweep"]

Unit = Literal["group", "rollout"]
Redraw = Literal["step", "never"]


class NoisyReward(Composite):
    """A reward whose score is, with probability ``p``, not what was earned.

    base:     any reward; for every kind but "gaussian" it must declare a range, (0, 1) as a rule.
    p:        probability that a unit is struck; for "gaussian" the standard deviation of what is added.
    unit:     "group": one draw for a prompt, which all of its completions share; "rollout": one a completion.
    kind:     "flip" low + high - r; "fn" misses right answers; "fp" lets wrong ones through; "gaussian" blurs. Gaussian
              noise shared by a group is the same for all in it, and cancels in a group-relative advantage.
    redraw:   "step": a prompt that comes again at a later training step is drawn anew, as published; "never": it stays
              struck, as a wrong label in the data does.
    parsed:   text -> whether it states an answer; a completion without one keeps its score even in a struck group, so
              that "state an answer" is learnt without noise. None: nothing is spared.

    A draw depends on (seed, training step, prompt) and, by completion, on its text and how many like it stand before it
    in the batch: on no global random state, and for groups not on how many processes share them. Noise is for training
    alone; evaluate with ``base``. ``rates`` counts what it did since the start; the parts "<base>" and "struck" are
    logged. What failed stays failed, what does not apply does not apply.

    Source: The Climb Carves Wisdom Deeper Than the Summit (arXiv 2505.22653), section 2.1: flips, one draw a question;
    completions without an answer are spared in its released code. "fn", "fp" and "gaussian" are ours. The published
    figures hold for bases that can already reason (up to 40% for Qwen2.5-7B, but not 30% for Llama-3.1-8B).
    """

    def __init__(
        self,
        base: Reward,
        p: float,
        *,
        unit: Unit = "group",
        kind: Kind = "flip",
        redraw: Redraw = "step",
        parsed: Callable[[str], Any] | None = stated_answer,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        name = name or f"noisy_{name_of(base)}"
        for what, value, choices in (("unit", unit, Unit), ("redraw", redraw, Redraw)):
            if value not in get_args(choices):
                raise unknown(f"{what} of noise", value, get_args(choices))
        if kind not in KINDS:
            raise unknown("kind of noise", kind, KINDS)
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < float("inf"):
            raise GuerdonError(f"reward {name!r}: p must be a number of at least 0, got {p!r}")
        if kind != "gaussian" and (p > 1 or range_of(base) is None):
            why = f"p must be a probability, got {p}" if p > 1 else "a base with a range (low, high) is needed to turn"
            raise GuerdonError(f"reward {name!r}, noise {kind!r}: {why}")
        self.p, self.unit, self.kind, self.redraw, self.seed = float(p), unit, kind, redraw, int(seed)
        self._parsed, self._base, self._ends = parsed, name_of(base), bounds_of(base)
        self._book: Counter[str] = Counter()
        settings = {
            "p": self.p, "unit": unit, "kind": kind, "redraw": redraw, "seed": self.seed,
            "parsed": None if parsed is None else getattr(parsed, "__qualname__", type(parsed).__name__),
        }  # fmt: skip
        bounds = (-float("inf"), float("inf")) if kind == "gaussian" else self._ends
        super().__init__(name, {self._base: base}, settings, bounds=bounds)

    @property
    def rates(self) -> NoiseRates:
        """What the noise has done to all completions scored so far."""
        book = self._book
        return NoiseRates(
            book["samples"],
            _ratio(book["changed"], book["samples"]),
            _ratio(book["missed"], book["right"]),
            _ratio(book["granted"], book["samples"] - book["right"]),
        )

    def draws(self, prompts: Sequence[Any], completions: Sequence[Any], step: int | None = None) -> Floats:
        """Uniform numbers in (0, 1), float64 [N], one a unit: a unit is struck where its number lies below ``p``."""
        when = 0 if self.redraw == "never" or step is None else step
        seen: Counter[str] = Counter()
        found = np.empty(len(prompts))
        for row, prompt in enumerate(prompts):
            asked = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
            key = f"{self.seed}/{when}/{asked}"
            if self.unit == "rollout":
                key = f"{key}/{completion_text(completions[row])}"
                seen[key] += 1
                key = f"{key}/{seen[key]}"
            digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            found[row] = (int.from_bytes(digest, "big") + 0.5) / 2**64
        return found

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        scored = super()._score_parts(prompts, completions, columns)
        uniform = self.draws(prompts, completions, training_step(columns))
        if self.kind == "gaussian":
            struck = self.p * ndtri(np.clip(uniform, 1e-300, 1 - 1e-16))
        else:
            struck = (uniform < self.p).astype(np.float64)
        if self._parsed is not None:
            spared = [not self._parsed(completion_text(one)) for one in completions]
            struck[np.asarray(spared, dtype=bool)] = 0.0
        # A part of its own, so that what was done to each row is logged beside what the row had earned.
        return {**scored, "struck": Scores(struck, np.ones(len(struck), dtype=bool))}

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        base, struck = scored[self._base], numbers(scored["struck"])
        # Rows without a score hold the lower bound meanwhile, which every kind of noise accepts.
        earned = np.where(base.valid, numbers(base), 0.0 if self.kind == "gaussian" else self._ends[0])
        draws = struck if self.kind == "gaussian" else struck > 0
        paid = noisy_rewards(earned, draws, kind=self.kind, bounds=self._ends)
        self._count(earned[base.valid], paid[base.valid])
        return Combined(paid, base.valid, broken(base))

    def _count(self, earned: Floats, paid: Floats) -> None:
        middle = sum(self._ends) / 2 if np.isfinite(self._ends).all() else 0.5
        right, called = earned > middle, paid > middle
        self._book.update(
            samples=len(earned), changed=int((earned != paid).sum()), right=int(right.sum()),
            missed=int((right & ~called).sum()), granted=int((~right & called).sum()),
        )  # fmt: skip


@dataclass(frozen=True)
class NoisePoint:
    """Outcomes of trainings under noise ``p``, one a seed."""

    p: float
    outcomes: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return sum(self.outcomes) / len(self.outcomes)


def noise_sweep(
    train: Callable[[NoisyReward, int], float],
    base: Reward,
    ps: Sequence[float] = (0.0, 0.2, 0.4, 0.5, 0.6),
    *,
    seeds: Sequence[int] = (1, 2, 3),
    **noise: Any,
) -> list[NoisePoint]:
    """A robustness curve: ``train(reward, seed) -> outcome`` with ``base`` under each level of noise.

    train:  a whole training, which returns what it came to by a judge without noise (a held-out accuracy).
    noise:  as `NoisyReward`'s. Each run gets a reward of its own, seeded by the run's seed.

    Raises GuerdonError for no levels or seeds. Source: arXiv 2505.22653, figure 2 in form.
    """
    if not ps or not seeds:
        raise GuerdonError("a sweep needs at least one level of noise and one seed")
    points = []
    for p in ps:
        outcomes = tuple(float(train(NoisyReward(base, p, seed=seed, **noise), seed)) for seed in seeds)
        points.append(NoisePoint(float(p), outcomes))
    return points


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
