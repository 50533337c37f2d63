"""What became of each attempt at fooling a subject, and how often an attack worked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from guerdon.core.errors import GuerdonError
from guerdon.metrics.verdicts import wilson_interval
from guerdon.rewards.outcomes import DOES_NOT_APPLY, problem_kind

Outcome = Literal["fooled", "survived", "unmeasured", "already"]
Error = Literal["false positive", "false negative", "instability"]
"""What being fooled means: a bad answer passed, a good one was refused, or the same answer was judged in two ways."""


@dataclass(frozen=True)
class Trial:
    """One attempt.

    outcome:  "fooled", "survived", "unmeasured" (the subject gave no score: ``problem`` says why; counted as neither),
              or "already" (the subject errs on the unaltered answer, so that the alteration is not to blame).
    item:     number of the item. variant: which of the attack's answers it was; ``answer`` the text of it.
    score:    of the answer; bar: what it had to exceed to pass. NaN where there is none.
    """

    item: int
    variant: str
    outcome: Outcome
    score: float = float("nan")
    bar: float = float("nan")
    problem: str = ""
    answer: str = ""

    @property
    def excess(self) -> float:
        """How far the score went beyond the bar, either way; 0 where there is no number."""
        gap = abs(self.score - self.bar)
        return float(gap) if np.isfinite(gap) else 0.0


@dataclass(frozen=True)
class Rate:
    """How often something worked: ``fooled`` of ``fooled + survived`` trials, NaN where there is none of them.

    low, high:   95% Wilson interval. Trials on one prompt are not independent, so it counts ``prompts``, not trials.
    unmeasured:  trials without a score, by kind of problem. already: trials that could show nothing (see `Trial`).
    """

    name: str
    value: float
    low: float
    high: float
    fooled: int
    survived: int
    prompts: int
    unmeasured: Mapping[str, int] = field(default_factory=dict)
    already: int = 0

    @classmethod
    def of(cls, name: str, trials: Iterable[Trial]) -> Rate:
        """The rate of some trials."""
        trials = list(trials)
        counts = Counter(trial.outcome for trial in trials)
        measured = counts["fooled"] + counts["survived"]
        prompts = len({trial.item for trial in trials if trial.outcome in ("fooled", "survived")})
        value = counts["fooled"] / measured if measured else float("nan")
        low, high = wilson_interval(value * prompts, prompts) if measured else (float("nan"), float("nan"))
        problems = Counter(problem_kind(trial.problem) for trial in trials if trial.outcome == "unmeasured")
        return cls(
            name,
            value,
            float(low),
            float(high),
            counts["fooled"],
            counts["survived"],
            prompts,
            dict(problems),
            counts["already"],
        )


@dataclass(frozen=True)
class Findings:
    """What an attack brings home.

    measures:  further numbers by name. left_out: cases not tried, by reason. curve: (calls, value) of a search.
    """

    trials: Sequence[Trial]
    measures: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    curve: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class AttackResult:
    """One attack on one subject.

    reason:    why it does not apply here; "" where it was tried.
    rate:      over all trials; variants: of each variant, the worst first.
    examples:  the trials in which the subject was fooled most, at most one of a variant while there are others.
    prompts:   of the examples' items, as text.
    """

    name: str
    family: str
    error: Error
    about: str
    rate: Rate
    reason: str = ""
    variants: Sequence[Rate] = ()
    examples: Sequence[Trial] = ()
    prompts: Mapping[int, str] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    curve: Sequence[tuple[float, float]] = ()
    rows: int = 0
    seconds: float = 0.0

    @property
    def worst(self) -> Rate:
        """The variant that worked best."""
        return self.variants[0] if self.variants else self.rate

    @property
    def failures(self) -> int:
        """Trials in which the subject failed; "does not apply" is an answer, not a failure."""
        return sum(count for kind, count in self.rate.unmeasured.items() if kind != DOES_NOT_APPLY)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> AttackResult:
        """What `to_dict` gave, also after JSON, where NaN has become null. Raises GuerdonError for anything else."""
        try:
            return cls(
                **{
                    **told,
                    "rate": _rate(told["rate"]),
                    "variants": tuple(_rate(one) for one in told["variants"]),
                    "examples": tuple(Trial(**_floats(one, ("score", "bar"))) for one in told["examples"]),
                    "prompts": {int(item): text for item, text in told["prompts"].items()},
                    "measures": {name: float("nan") if v is None else v for name, v in told["measures"].items()},
                    "curve": tuple((float(x), float(y)) for x, y in told["curve"]),
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GuerdonError(f"this is no attack's result: {error}") from None


def summarise(trials: Sequence[Trial], *, examples: int = 5) -> tuple[Rate, list[Rate], list[Trial]]:
    """The rate of all trials, that of each variant (the worst first), and the trials to show."""
    by_variant: dict[str, list[Trial]] = {}
    for trial in trials:
        by_variant.setdefault(trial.variant, []).append(trial)
    variants = [Rate.of(name, some) for name, some in by_variant.items()]
    # The share that an interval vouches for decides between equal rates: 1 of 1 proves less than 40 of 40.
    variants.sort(key=lambda rate: (-1.0, -1.0) if np.isnan(rate.value) else (rate.value, rate.low), reverse=True)
    return Rate.of("all", trials), variants, _most_telling(trials, examples)


def _most_telling(trials: Sequence[Trial], count: int) -> list[Trial]:
    fooled = sorted((one for one in trials if one.outcome == "fooled"), key=lambda one: -one.excess)
    shown: set[str] = set()
    first: list[Trial] = []
    rest: list[Trial] = []
    for trial in fooled:
        (rest if trial.variant in shown else first).append(trial)
        shown.add(trial.variant)
    return [*first, *rest][:count]


def _rate(told: Mapping[str, Any]) -> Rate:
    return Rate(**_floats(told, ("value", "low", "high")))


def _floats(told: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {**told, **{name: float("nan") if told[name] is None else told[name] for name in names}}
