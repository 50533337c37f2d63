"""The shared vocabulary of claim checks: arms measured over seeds, effects with intervals, checks, and a verdict.

A verdict comes from the data alone. Every claim is a list of checks: the effect itself, the negative control, and
whatever the paper says would falsify it. The worst check decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from scipy.stats import t as student

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.progress import Progress

Verdict = Literal["holds", "fails", "inconclusive"]
Outcome = Literal["passed", "failed", "unclear"]
ProgressBar = Callable[[int, str], Progress[Any]]
"""``progress(total, description)``: `guerdon.core.progress.progress` or something like it."""

MIN_SEEDS = 3


@dataclass
class Arm:
    """One arm of an experiment: ``measures`` maps a measure's name to one value a seed, in the order of the seeds."""

    name: str
    measures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Append the measures of the next seed."""
        for name, value in values.items():
            self.measures.setdefault(name, []).append(float(value))

    def values(self, measure: str) -> np.ndarray:
        """One value a seed, float64 [seeds]. Raises GuerdonError naming the nearest measure."""
        if measure not in self.measures:
            raise unknown(f"measure of arm '{self.name}':", measure, self.measures)
        return np.asarray(self.measures[measure], dtype=np.float64)

    def mean(self, measure: str) -> float:
        """Mean over the seeds, in the measure's units."""
        return float(self.values(measure).mean())


@dataclass(frozen=True)
class Effect:
    """A mean over seeds with its two-sided 95% t-interval; ends are infinite with fewer than ``MIN_SEEDS`` seeds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def effect_of(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Effect:
    """Mean of one value a seed with its t-interval: mean +- t(level, n - 1) s / sqrt(n).

    Source: Student 1908. Raises GuerdonError for no values or one that is not finite.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not rows.size or not np.isfinite(rows).all():
        raise GuerdonError(f"an effect needs one finite value a seed, got {rows.tolist()}")
    mean = float(rows.mean())
    if rows.size < MIN_SEEDS:
        return Effect(mean, -math.inf, math.inf)
    half = float(student.ppf((1 + level) / 2, rows.size - 1) * rows.std(ddof=1) / math.sqrt(rows.size))
    return Effect(mean, mean - half, mean + half)


def difference(first: Arm, second: Arm, measure: str) -> Effect:
    """Effect of ``first`` over ``second``, paired by seed. Raises GuerdonError if they differ in seeds."""
    a, b = first.values(measure), second.values(measure)
    if a.shape != b.shape:
        raise GuerdonError(f"arms '{first.name}' and '{second.name}' have {len(a)} and {len(b)} seeds of '{measure}'")
    return effect_of(a - b)


@dataclass(frozen=True)
class Check:
    """One condition of a claim, what came of it, and the numbers that say so."""

    name: str
    outcome: Outcome
    detail: str


def above(name: str, effect: Effect, threshold: float = 0.0) -> Check:
    """Passed if the whole interval lies above ``threshold``, failed if none of it does, else unclear."""
    outcome: Outcome = "passed" if effect.low > threshold else "failed" if effect.high <= threshold else "unclear"
    return Check(name, outcome, f"{effect}, must exceed {threshold:g}")


def below(name: str, effect: Effect, threshold: float = 0.0) -> Check:
    """Passed if the whole interval lies below ``threshold``, failed if none of it does, else unclear."""
    outcome: Outcome = "passed" if effect.high < threshold else "failed" if effect.low >= threshold else "unclear"
    return Check(name, outcome, f"{effect}, must stay below {threshold:g}")


def control_fails(name: str, effect: Effect, shown: Effect, gap: Effect) -> Check:
    """The negative control must not show the effect: less than half of it, and the claim's arm clearly above it.

    effect: the claim's arm less the baseline. shown: the control less the baseline. gap: the claim's arm less control.
    """
    detail = f"control {shown}, claim less control {gap}"
    if shown.value >= 0.5 * max(effect.value, 0.0):
        return Check(name, "failed", f"{detail}: the control shows at least half of the effect")
    return Check(name, "passed" if gap.low > 0 else "unclear", detail)


def judged(checks: Sequence[Check]) -> Verdict:
    """The worst check decides: one failed, the claim fails; else one unclear, it is inconclusive; else it holds."""
    outcomes = {check.outcome for check in checks}
    if not checks or "unclear" in outcomes and "failed" not in outcomes:
        return "inconclusive"
    return "fails" if "failed" in outcomes else "holds"


@dataclass
class Section:
    """A table of a result: one row a thing measured."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def arms_section(title: str, arms: Sequence[Arm], measures: Sequence[str]) -> Section:
    """The arms' means over seeds with their standard deviation."""

    def cell(arm: Arm, measure: str) -> str:
        if measure not in arm.measures:
            return "-"
        values = arm.values(measure)
        spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        return f"{values.mean():.3f}{spread}"

    rows = [[arm.name, *(cell(arm, measure) for measure in measures)] for arm in arms]
    return Section(title, ["arm", *measures], rows)


@dataclass
class ClaimResult:
    """What a claim check found.

    effect: mean over seeds of (claim's arm - baseline arm) in ``measure``; ``interval`` its 95% t-interval; ``control``
    the same difference for the negative control. The verdict follows from ``checks``; with fewer than three seeds it
    cannot be "holds".
    """

    slug: str
    claim: str
    measure: str
    effect: Effect
    control: float
    checks: list[Check]
    arms: list[Arm]
    seeds: list[int]
    seconds: float
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        found = judged(self.checks)
        return "inconclusive" if found == "holds" and len(self.seeds) < MIN_SEEDS else found

    @property
    def interval(self) -> tuple[float, float]:
        return self.effect.low, self.effect.high

    def to_json(self) -> dict[str, Any]:
        """slug, verdict, effect, interval, control, seeds, seconds, and the details; infinite ends become None."""
        return {
            "slug": self.slug,
            "verdict": self.verdict,
            "effect": _finite(self.effect.value),
            "interval": [_finite(self.effect.low), _finite(self.effect.high)],
            "control": _finite(self.control),
            "seeds": list(self.seeds),
            "seconds": round(self.seconds, 1),
            "details": {
                "claim": self.claim,
                "measure": self.measure,
                "checks": [{"name": c.name, "outcome": c.outcome, "detail": c.detail} for c in self.checks],
                "arms": {
                    arm.name: {name: [_finite(value) for value in values] for name, values in arm.measures.items()}
                    for arm in self.arms
                },
                "tables": [{"title": s.title, "columns": s.columns, "rows": s.rows} for s in self.sections],
                "notes": self.notes,
            },
        }

    def table(self) -> RenderableType:
        """Everything for a person: the claim, the tables, the checks, the notes."""
        parts: list[RenderableType] = [Text(f"{self.slug}: {self.claim}", style="bold")]
        parts += [_table(section) for section in self.sections]
        rows = [[check.outcome, check.name, check.detail] for check in self.checks]
        parts.append(_table(Section("checks (the worst decides)", ["outcome", "check", "mean [95% over seeds]"], rows)))
        parts += [Text(f"note: {note}") for note in self.notes]
        line = f"{self.measure}: effect {self.effect}, control {self.control:+.3f}, {len(self.seeds)} seeds"
        parts.append(Text(f"{line}, {self.seconds:.0f} s: {self.verdict}", style="bold"))
        return Group(*parts)


def _table(section: Section) -> Table:
    made = Table(title=Text(section.title), title_justify="left")
    for place, name in enumerate(section.columns):
        numeric = place > 0 and all(row[place][:1] in "+-0123456789" for row in section.rows if row[place])
        made.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in section.rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
