"""Gold against proxy: what is gained, and when it is lost again, while a proxy reward is climbed.

By best-of-n over one policy's answers, and by the policies themselves (checkpoints, temperatures) where the data hold
answers of several, against the divergence from the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.comparisons.answer_sets import AnswerSet
from guerdon.comparisons.overoptimisation_sheet import overoptimisation_sheet
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import text_of
from guerdon.core.sheet import Sheet
from guerdon.metrics.intervals import Interval, bootstrap_mean
from guerdon.metrics.order_agreement import Agreement, agreement
from guerdon.metrics.overoptimisation import (
    Downturn,
    Fit,
    best_of_n_kl,
    best_of_n_values,
    downturn,
    fit_gain,
)

__all__ = ["Lost", "Overoptimisation", "PolicyPoint", "Scored", "overoptimisation", "sizes"]

Values = NDArray[np.float64]
COVERED = 0.9


@dataclass(frozen=True)
class Scored:
    """An `AnswerSet` with both rewards' scores of its answers [n], nan where there is none."""

    answers: AnswerSet
    proxy: Values
    gold: Values

    def both(self) -> NDArray[np.int64]:
        """Places of the answers that both score."""
        return np.flatnonzero(~(np.isnan(self.proxy) | np.isnan(self.gold)))


@dataclass(frozen=True)
class PolicyPoint:
    """One policy: its mean scores in deviations of the base's answers, and its divergence in nats where it is known."""

    name: str
    proxy: Interval
    gold: Interval
    kl: Interval | None
    answers: int


@dataclass(frozen=True)
class Lost:
    """A prompt where the proxy's choice costs most gold: what it chose, and what gold would have chosen."""

    prompt: str
    chosen: str
    best: str
    chosen_scores: tuple[float, float]
    best_scores: tuple[float, float]


@dataclass(frozen=True)
class Overoptimisation:
    """Both rewards' curves; every value in standard deviations of the base's answers, 0 their mean.

    ns, kl:    numbers of answers that best-of-n chooses from, and its divergence in nats.
    proxy, gold, ceiling:  by n: proxy and gold of the proxy's choice, and gold of gold's own choice.
    turn:      whether gold falls again by the largest n. fit: of gold's gain, where there are points enough.
    agreement: of both rewards on the base's answers, within prompts.
    policies:  the other policies of the data. policy_fit: of their gold gains over divergence.
    left_out:  prompts with fewer answers that both score than the largest n. problems: answers without a score.
    """

    names: tuple[str, str]
    identities: tuple[str, str]
    ns: list[int]
    kl: list[float]
    proxy: list[Interval]
    gold: list[Interval]
    ceiling: list[Interval]
    turn: Downturn
    fit: Fit | None
    agreement: Agreement
    prompts: int
    left_out: int
    answers: int
    problems: dict[str, dict[str, int]] = field(default_factory=dict)
    policies: list[PolicyPoint] = field(default_factory=list)
    policy_fit: Fit | None = None
    examples: list[Lost] = field(default_factory=list)

    def sheet(self) -> Sheet:
        """Tables, curves, examples, and what they do not say."""
        return overoptimisation_sheet(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        curve = [
            {"n": n, "kl": kl, "proxy": _plain(proxy), "gold": _plain(gold), "ceiling": _plain(ceiling)}
            for n, kl, proxy, gold, ceiling in zip(self.ns, self.kl, self.proxy, self.gold, self.ceiling, strict=True)
        ]
        points = [
            {"policy": one.name, "kl": None if one.kl is None else _plain(one.kl), "proxy": _plain(one.proxy),
             "gold": _plain(one.gold), "answers": one.answers} for one in self.policies
        ]  # fmt: skip
        return {
            "benchmark": "overoptimisation", "proxy": self.names[0], "gold": self.names[1],
            "identities": list(self.identities), "prompts": self.prompts, "left_out": self.left_out,
            "answers": self.answers, "problems": self.problems, "best_of_n": curve,
            "peak_n": self.ns[self.turn.peak], "drop": _plain(self.turn.drop),
            "over_optimised": self.turn.over_optimised, "fit": None if self.fit is None else vars(self.fit),
            "order_agreement": _plain(self.agreement.order), "policies": points,
            "policy_fit": None if self.policy_fit is None else vars(self.policy_fit),
        }  # fmt: skip


def sizes(largest: int) -> list[int]:
    """1, 2, 3, 4, then doubled, and ``largest``."""
    steps = [n for n in (1, 2, 3, 4) if n <= largest]
    while steps[-1] * 2 <= largest:
        steps.append(steps[-1] * 2)
    return steps if steps[-1] == largest else [*steps, largest]


def overoptimisation(
    scored: Sequence[Scored],
    *,
    names: tuple[str, str] = ("proxy", "gold"),
    identities: tuple[str, str] = ("", ""),
    largest: int | None = None,
    problems: dict[str, dict[str, int]] | None = None,
    seed: int = 0,
) -> Overoptimisation:
    """The curves of scored answers; the policy of the first is the base.

    largest: n to go to; default as many answers as nine tenths of the prompts have. Prompts with fewer that both
    rewards score are left out everywhere, so that every point is about the same prompts.

    Intervals (95%) resample prompts. Raises GuerdonError for fewer than two usable prompts or fewer than two answers a
    prompt, and for rewards that give all answers of the base the same score.
    """
    if not scored:
        raise GuerdonError("there are no answers to compare the rewards on")
    base = scored[0].answers.policy
    own = [one for one in scored if one.answers.policy == base]
    counts = np.sort([len(one.both()) for one in own])
    most = largest if largest is not None else int(counts[int((1 - COVERED) * len(counts))])
    kept = [one for one in own if len(one.both()) >= max(most, 2)]
    if most < 2 or len(kept) < 2:
        raise GuerdonError(
            f"best-of-n needs at least 2 prompts with {max(most, 2)} answers of {base!r} that both rewards score; "
            f"there are {len(kept)} of {len(own)}"
        )
    scale = _Scale.of(kept, names)
    ns = sizes(most)
    tables = np.array([_curves(one, ns, scale) for one in kept])  # [prompts, 3, ns]
    proxy, gold, ceiling = (
        [bootstrap_mean(tables[:, which, place], seed=seed) for place in range(len(ns))] for which in range(3)
    )
    kl = [best_of_n_kl(n) for n in ns]
    asked = {one.answers.key for one in kept}
    others = list(dict.fromkeys(one.answers.policy for one in scored if one.answers.policy != base))
    points = [
        _point(name, [one for one in scored if one.answers.policy == name and one.answers.key in asked], scale, seed)
        for name in others
    ]
    moved = [one for one in points if one.kl is not None]
    rows = [(one.proxy[place], one.gold[place], number) for number, one in enumerate(kept) for place in one.both()]
    return Overoptimisation(
        names, identities, ns, kl, proxy, gold, ceiling, downturn(tables[:, 1], seed=seed),
        _fitted(kl, [one.value for one in gold], "best-of-n"), agreement(*zip(*rows), seed=seed), len(kept),
        len(own) - len(kept), sum(len(one.proxy) for one in scored), dict(problems or {}), points,
        _fitted([max(one.kl.value, 0.0) for one in moved if one.kl], [one.gold.value for one in moved], "rl"),
        _examples(kept, scale),
    )  # fmt: skip


@dataclass(frozen=True)
class _Scale:
    """Means and deviations of the base's scores."""

    mean: Values
    deviation: Values

    @classmethod
    def of(cls, kept: Sequence[Scored], names: tuple[str, str]) -> _Scale:
        rows = np.concatenate([np.stack([one.proxy[one.both()], one.gold[one.both()]], axis=1) for one in kept])
        deviation = rows.std(axis=0)
        for name, value in zip(names, deviation, strict=True):
            if not value > 0:
                raise GuerdonError(f"{name} gives all answers the same score, so there is nothing to climb")
        # The mean over prompts of the prompts' means, which is what a single answer a prompt earns.
        means = np.array([[one.proxy[one.both()].mean(), one.gold[one.both()].mean()] for one in kept])
        return cls(means.mean(axis=0), deviation)

    def __call__(self, proxy: Values, gold: Values) -> tuple[Values, Values]:
        return (proxy - self.mean[0]) / self.deviation[0], (gold - self.mean[1]) / self.deviation[1]


def _curves(one: Scored, ns: Sequence[int], scale: _Scale) -> Values:
    rows = one.both()
    proxy, gold = scale(one.proxy[rows], one.gold[rows])
    return np.stack([
        best_of_n_values(proxy, proxy, ns), best_of_n_values(proxy, gold, ns), best_of_n_values(gold, gold, ns)
    ])  # fmt: skip


def _point(name: str, sets: Sequence[Scored], scale: _Scale, seed: int) -> PolicyPoint:
    means: list[tuple[float, float]] = []
    nats: list[float] = []
    for one in sets:
        rows = one.both()
        if rows.size:
            proxy, gold = scale(one.proxy[rows], one.gold[rows])
            means.append((float(proxy.mean()), float(gold.mean())))
        if one.answers.kl is not None:
            nats.append(float(np.mean(one.answers.kl)))
    if not means:
        raise GuerdonError(f"policy {name!r} has no answer that both rewards score to a prompt of the base")
    proxies, golds = (bootstrap_mean(side, seed=seed) for side in zip(*means))
    kl = bootstrap_mean(nats, seed=seed) if len(nats) == len(sets) else None
    return PolicyPoint(name, proxies, golds, kl, sum(len(one.proxy) for one in sets))


def _fitted(kl: Sequence[float], gain: Sequence[float], form: Any) -> Fit | None:
    return fit_gain(kl, gain, form=form) if sum(value > 0 for value in kl) >= 3 else None


def _examples(kept: Sequence[Scored], scale: _Scale, count: int = 3) -> list[Lost]:
    found: list[tuple[float, Lost]] = []
    for one in kept:
        rows = one.both()
        proxy, gold = scale(one.proxy[rows], one.gold[rows])
        picked, best = int(proxy.argmax()), int(gold.argmax())
        if gold[best] > gold[picked]:
            texts = [one.answers.answers[rows[place]] for place in (picked, best)]
            scores = [(float(proxy[place]), float(gold[place])) for place in (picked, best)]
            lost = Lost(text_of(one.answers.prompt), *texts, *scores)
            found.append((float(gold[best] - gold[picked]), lost))
    return [lost for _, lost in sorted(found, key=lambda pair: -pair[0])[:count]]


def _plain(value: Interval) -> list[float]:
    return [value.value, value.low, value.high]
