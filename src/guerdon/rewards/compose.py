"""The algebra of rewards: rewards made of rewards, each of which is a reward again and shows its parts.

What happens to a missing score is the same in every operator. A *failed* score makes the composed score failed. "Does
not apply" (``None``) makes it "does not apply", unless the part is declared optional. Neither ever becomes a number,
and
weights are never renormalised over the parts that happened to answer: a strict judge that drops out must not raise a
    score.

Parts are logged through TRL's ``log_metric`` when it is among the columns. Sources: RealGen (arXiv 2512.00473) for the
bank, GDPO and MixGRPO (arXiv 2507.21802) for per-reward standardisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import name_of
from guerdon.core.outcome import Scores
from guerdon.core.reward import Reward, is_groupwise
from guerdon.objectives.advantages import Spread, group_advantages
from guerdon.rewards.bank import BankScores, RewardBank
from guerdon.rewards.composite import (
    Bounds,
    Combined,
    Composite,
    ConstantTerms,
    Term,
    bounds_of,
    broken,
    group_ids,
    named_terms,
    numbers,
    scaled,
    training_step,
)

__all__ = ["BankScores", "RewardBank", "anneal", "clip", "gate", "group_ids", "penalty", "standardised", "weighted_sum"]


class _WeightedSum(Composite):
    def __init__(self, terms: Mapping[str, Term], optional: Collection[str], name: str) -> None:
        self.weights = {key: float(weight) for key, (_, weight) in terms.items()}
        for key in optional:
            if key not in terms:
                raise unknown("optional part", key, list(terms))
        low, high = 0.0, 0.0
        for key, (reward, _) in terms.items():
            ends = scaled(bounds_of(reward), self.weights[key])
            low += min(ends[0], 0.0) if key in optional else ends[0]
            high += max(ends[1], 0.0) if key in optional else ends[1]
        self.optional = frozenset(optional)
        self._constant = ConstantTerms(f"reward '{name}'")
        parts = {key: reward for key, (reward, _) in terms.items()}
        super().__init__(name, parts, {"weights": self.weights, "optional": sorted(optional)}, bounds=(low, high))

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        required = [part.valid for key, part in scored.items() if key not in self.optional]
        valid = (
            np.logical_and.reduce(required) if required else np.logical_or.reduce([p.valid for p in scored.values()])
        )
        failed = np.logical_or.reduce([broken(part) for part in scored.values()])
        total = sum(self.weights[key] * numbers(part) for key, part in scored.items())
        terms = {key: (part.values, part.valid) for key, part in scored.items() if self.weights[key]}
        self._constant.check(terms, group_ids(prompts, columns))
        return Combined(np.asarray(total, dtype=np.float64), valid & ~failed, failed)


def weighted_sum(
    terms: Mapping[str, Term] | Sequence[Term], *, optional: Collection[str] = (), name: str = "weighted_sum"
) -> Composite:
    """The reward sum_k w_k R_k, in the units of its parts.

    A sample has a score only where every required part has one. A part named in ``optional`` may answer ``None`` ("does
    not apply") and then adds nothing, as in TRL; if it *failed*, the sample failed. Weights are used as they are.
    A term that is constant within every group cancels in a group-relative advantage; the first time that is seen, one
    warning names it.

    Args:
        terms: (reward, weight) by name, or a list of them, named by ``__name__``.
        optional: names of the parts that may not apply.
        name: of the composed reward.

    Raises:
        GuerdonError: no terms, two of one name, an unknown optional part, or a weight that is not finite.
    """
    return _WeightedSum(named_terms(terms), optional, name)


class _Standardised(Composite):
    def __init__(self, reward: Reward, std: Spread, eps: float, bound: float | None, name: str) -> None:
        self.std, self.eps, self.bound = std, eps, bound
        limit = math.inf if bound is None else bound
        settings = {"std": std, "eps": eps, "clip": bound}
        super().__init__(name, {name_of(reward): reward}, settings, bounds=(-limit, limit), groupwise=True)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        (part,) = scored.values()
        z = group_advantages(
            torch.from_numpy(numbers(part)),
            group_ids(prompts, columns),
            valid=torch.from_numpy(part.valid),
            std=self.std,
            eps=self.eps,
            clip=self.bound,
        )
        return Combined(z.double().numpy(), part.valid, broken(part))


def standardised(
    reward: Reward, *, std: Spread = "group", eps: float = 1e-4, clip: float | None = None, name: str | None = None
) -> Composite:
    """The reward (R - group mean) / (deviation + eps) over the valid samples of a group; no units.

    Groups are the column ``group_ids``, else equal prompts. A group without spread gets exactly 0. Groupwise: it needs
    whole groups. Inside a weighted sum this is GDPO's decoupled normalisation; with TRL set ``scale_rewards="none"``.

    Args:
        reward: the part.
        std: population deviation over the "group" or the whole "batch" (the mean is always the group's).
        eps: added to the deviation (1e-4 in RealGen, section 5 of its card).
        clip: limit of the absolute value.
        name: default "standardised_<part>".
    """
    return _Standardised(reward, std, eps, clip, name or f"standardised_{name_of(reward)}")


class _Gate(Composite):
    def __init__(self, condition: Reward, reward: Reward, threshold: float, closed: float | None, name: str) -> None:
        self.threshold, self.closed = threshold, closed
        low, high = bounds_of(reward)
        if closed is not None:
            if not math.isfinite(closed):
                raise GuerdonError(
                    f"gate '{name}': closed is {closed}; use a finite score, or None for 'does not apply'"
                )
            low, high = min(low, closed), max(high, closed)
        key = name_of(reward)
        self._condition, self._inner = "condition", key if key != "condition" else "reward"
        super().__init__(
            name,
            {self._condition: condition, self._inner: reward},
            {"threshold": threshold, "closed": closed},
            bounds=(low, high),
        )

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        gate = self._scorers.score(prompts, completions, columns, [self._condition])[self._condition]
        passed = gate.valid & (numbers(gate) >= self.threshold)
        if passed.all() or is_groupwise(self.parts[self._inner]):
            return {self._condition: gate, **self._scorers.score(prompts, completions, columns, [self._inner])}
        # A reward that need not see whole groups is spared the samples that cannot pass: a judge costs money, and a
        # malformed answer may be nothing it can read.
        inner = self._scorers.score_some(self._inner, prompts, completions, columns, np.flatnonzero(passed))
        return {self._condition: gate, self._inner: inner}

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        gate, inner = scored[self._condition], scored[self._inner]
        passed = gate.valid & (numbers(gate) >= self.threshold)
        shut = gate.valid & ~passed
        values = np.where(passed, numbers(inner), 0.0 if self.closed is None else self.closed)
        valid = (passed & inner.valid) | (shut & (self.closed is not None))
        # What a groupwise reward failed at behind a closed gate is no business of the composed score.
        return Combined(values, valid, broken(gate) | (broken(inner) & passed))


def gate(
    condition: Reward,
    reward: Reward,
    *,
    threshold: float = 0.5,
    closed: float | None = 0.0,
    name: str | None = None,
) -> Composite:
    """``reward`` where ``condition`` is at least ``threshold``, else ``closed``.

    A sample whose condition has no score has none either: an unknown condition is not a closed gate. Unless it is
    groupwise, ``reward`` is not called for samples behind a closed gate.

    Args:
        condition: decides.
        reward: the score of samples that pass.
        threshold: in the units of ``condition``.
        closed: the declared score of samples that do not pass, or ``None`` for "does not apply".
        name: default "gate_<reward>".
    """
    return _Gate(condition, reward, threshold, closed, name or f"gate_{name_of(reward)}")


class _Pointwise(Composite):
    """One part, mapped sample by sample by ``value(score, columns)``."""

    def __init__(
        self, reward: Reward, settings: Mapping[str, Any], value: Callable[..., np.ndarray], bounds: Bounds, name: str
    ) -> None:
        self._value = value
        super().__init__(name, {name_of(reward): reward}, settings, bounds=bounds)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        (part,) = scored.values()
        return Combined(self._value(numbers(part), columns), part.valid, broken(part))


def clip(reward: Reward, low: float | None = None, high: float | None = None, *, name: str | None = None) -> Composite:
    """``reward`` limited to [low, high], in its own units; a bound of ``None`` is no bound.

    Raises:
        GuerdonError: no bound at all, or low above high.
    """
    floor, ceiling = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if not floor <= ceiling or (low is None and high is None):
        raise GuerdonError(f"clip needs low <= high and at least one of them, got low={low}, high={high}")
    ends = bounds_of(reward)
    bounds = (min(max(ends[0], floor), ceiling), min(max(ends[1], floor), ceiling))
    return _Pointwise(
        reward,
        {"operator": "clip", "low": low, "high": high},
        lambda values, columns: np.clip(values, floor, ceiling),
        bounds,
        name or f"clip_{name_of(reward)}",
    )


def anneal(reward: Reward, schedule: Sequence[tuple[int, float]], *, name: str | None = None) -> Composite:
    """``reward`` times a factor that follows the training step, piecewise linear between (step, factor) knots.

    Constant before the first knot and after the last. The step is ``trainer_state.global_step``, which TRL passes.

    Args:
        reward: the part.
        schedule: knots with increasing steps, such as [(0, 1.0), (100, 0.0)].
        name: default "anneal_<reward>".

    Raises:
        GuerdonError: no knots, or steps that do not increase; when called, no ``trainer_state`` among the columns.
    """
    steps, factors = [float(s) for s, _ in schedule], [float(f) for _, f in schedule]
    if not steps or any(b <= a for a, b in zip(steps, steps[1:], strict=False)) or not np.isfinite(factors).all():
        raise GuerdonError(f"anneal needs (step, finite factor) knots with increasing steps, got {list(schedule)}")
    label = name or f"anneal_{name_of(reward)}"

    def value(values: np.ndarray, columns: Mapping[str, Any]) -> np.ndarray:
        step = training_step(columns)
        if step is None:
            raise GuerdonError(f"reward '{label}' follows the training step, but no trainer_state was passed to it")
        return values * float(np.interp(step, steps, factors))

    ends = [scaled(bounds_of(reward), factor) for factor in factors]
    bounds = (min(low for low, _ in ends), max(high for _, high in ends))
    settings = {"operator": "anneal", "schedule": [list(knot) for knot in schedule]}
    return _Pointwise(reward, settings, value, bounds, label)


def penalty(reward: Reward, cost: Reward, weight: float = 1.0, *, name: str | None = None) -> Composite:
    """``reward - weight * cost``; both parts are required.

    Args:
        reward: what is wanted.
        cost: what is not, larger = worse.
        weight: price of one unit of cost, >= 0 and finite.
        name: default "penalised_<reward>".

    Raises:
        GuerdonError: a negative or infinite weight, or both parts of one name.
    """
    if not (weight >= 0 and math.isfinite(weight)):
        raise GuerdonError(f"the weight of a penalty is a finite number of at least 0, got {weight}")
    return _WeightedSum(named_terms([(reward, 1.0), (cost, -weight)]), (), name or f"penalised_{name_of(reward)}")
