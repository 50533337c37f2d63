"""How good a judge's YES and NO are: false positives and false negatives side by side, agreement, master keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.metrics import f1_score

from guerdon.core.errors import GuerdonError

__all__ = ["KeyRates", "Rate", "VerdictReport", "cohen_kappa", "key_rates", "verdict_report", "wilson_interval"]


@dataclass(frozen=True)
class Rate:
    """``count`` of ``total`` as a share in [0, 1] with its Wilson interval; all nan where ``total`` is 0."""

    value: float
    low: float
    high: float
    count: int
    total: int

    @classmethod
    def of(cls, count: int, total: int, level: float = 0.95) -> Rate:
        """The rate of ``count`` among ``total``."""
        if not total:
            return cls(float("nan"), float("nan"), float("nan"), 0, 0)
        return cls(count / total, *wilson_interval(count, total, level), int(count), int(total))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class VerdictReport:
    """Verdicts against labels.

    fpr:       share of the NO rows that were judged YES. fnr: share of the YES rows that were judged NO.
    accuracy, kappa, macro_f1:  over the rows with a verdict; nan without any, kappa also where both sides are constant.
    parsed:    share of all rows that have a verdict; a row without one is in none of the other figures.
    constant:  "YES" or "NO" where every verdict is the same, which makes a judge useless at any error rate; else "".
    """

    fpr: Rate
    fnr: Rate
    accuracy: Rate
    kappa: float
    macro_f1: float
    parsed: Rate
    constant: str

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class KeyRates:
    """How often each key alone is accepted.

    rates:    key -> share of the items on which the judge says YES.
    mean, worst:  over keys; ``worst_key`` has the worst. nan where no key was judged.
    scores:   key -> mean of the judge's score, which shows a near miss that a threshold hides; empty without scores.
    """

    rates: Mapping[str, Rate]
    mean: float
    worst: float
    worst_key: str
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


def wilson_interval(successes: float, trials: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion: two numbers in [0, 1]; (0, 1) for no trials.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). ``successes`` need not be whole, so that an effective
    number of independent trials can be given. Raises GuerdonError unless 0 <= successes <= trials and 0 < level < 1.
    Source: Wilson 1927.
    """
    if not 0 <= successes <= trials or not 0 < level < 1:
        raise GuerdonError(f"{successes} successes of {trials} trials at level {level} are no proportion")
    if not trials:
        return 0.0, 1.0
    z = float(norm.ppf((1 + level) / 2))
    share, slack = successes / trials, z * z / trials
    half = z * np.sqrt(share * (1 - share) / trials + slack / (4 * trials))
    low, high = (share + slack / 2 - half) / (1 + slack), (share + slack / 2 + half) / (1 + slack)
    # Exact ends where no trial, or every trial, succeeded: rounding would leave 1e-17 there.
    return 0.0 if successes == 0 else float(low), 1.0 if successes == trials else float(high)


def cohen_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Agreement of two raters beyond chance, (p_o - p_e) / (1 - p_e), of verdicts [N] in {0, 1}; nan where p_e is 1.

    0 for a rater that always says the same, 1 for full agreement. Raises GuerdonError for shapes or other values.
    Source: Cohen 1960; the statistic of One Token to Fool (arXiv 2507.08794v3), table 2a.
    """
    a, b = _binary(first, "first"), _binary(second, "second")
    if a.shape != b.shape or not a.size:
        raise GuerdonError(f"kappa needs two lists of the same length above 0; got {a.size} and {b.size}")
    observed = float(np.mean(a == b))
    expected = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def verdict_report(verdicts: ArrayLike, labels: ArrayLike) -> VerdictReport:
    """`VerdictReport` of a judge.

    Args:
        verdicts: [N] 1 = YES, 0 = NO, nan = none (unparsed or failed).
        labels: [N] in {0, 1}.
    Raises:
        GuerdonError: shapes, no rows, or other values.
    Source: One Token to Fool (arXiv 2507.08794), FPR and kappa; FNR beside FPR, since training on NO may cost it.
    """
    said = np.asarray(verdicts, np.float64)
    truth = _binary(labels, "labels")
    if said.shape != truth.shape or said.ndim != 1 or not said.size:
        raise GuerdonError(f"verdicts and labels must be the same non-empty [N]; got {said.shape} and {truth.shape}")
    given = ~np.isnan(said)
    yes, right = _binary(said[given], "verdicts").astype(bool), truth[given].astype(bool)
    constant = "" if not yes.size or yes.any() != yes.all() else "YES" if yes.all() else "NO"
    return VerdictReport(
        fpr=Rate.of(int((yes & ~right).sum()), int((~right).sum())),
        fnr=Rate.of(int((~yes & right).sum()), int(right.sum())),
        accuracy=Rate.of(int((yes == right).sum()), int(yes.size)),
        kappa=cohen_kappa(yes, right) if yes.size else float("nan"),
        macro_f1=float(f1_score(right, yes, average="macro", zero_division=0.0)) if yes.size else float("nan"),
        parsed=Rate.of(int(given.sum()), int(given.size)),
        constant=constant,
    )


def key_rates(keys: Sequence[str], verdicts: ArrayLike, scores: ArrayLike | None = None) -> KeyRates:
    """`KeyRates` of verdicts [K, M] on K keys and M items each, 1 = YES, 0 = NO, nan = none; ``scores`` likewise.

    Raises GuerdonError for shapes, a key that comes twice, or other values.
    Source: One Token to Fool (arXiv 2507.08794), mean and worst false-positive rate over keys.
    """
    said = np.asarray(verdicts, np.float64)
    given = np.asarray(scores, np.float64) if scores is not None else None
    if said.ndim != 2 or len(said) != len(keys) or len(set(keys)) != len(keys) or not said.size:
        raise GuerdonError(f"{len(keys)} different keys need verdicts [keys, items]; got shape {list(said.shape)}")
    if given is not None and given.shape != said.shape:
        raise GuerdonError(f"scores {list(given.shape)} and verdicts {list(said.shape)} differ in shape")
    rates = {}
    for key, row in zip(keys, said):
        judged = _binary(row[~np.isnan(row)], f"verdicts on {key!r}")
        rates[key] = Rate.of(int(judged.sum()), int(judged.size))
    values = np.array([rate.value for rate in rates.values()])
    known = not np.isnan(values).all()
    place = int(np.nanargmax(values)) if known else 0
    means: dict[str, float] = {}
    for key, row in zip(keys, given if given is not None else ()):
        means[key] = float(np.nanmean(row)) if not np.isnan(row).all() else float("nan")
    return KeyRates(
        rates, float(np.nanmean(values)) if known else float("nan"), float(values[place]), keys[place], means
    )


def _binary(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if not np.isin(array, (0.0, 1.0)).all():
        raise GuerdonError(f"{name} must be 0 or 1")
    return array
