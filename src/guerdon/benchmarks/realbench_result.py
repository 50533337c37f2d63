"""What RealBench found, as dataclasses, Markdown and JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from guerdon.metrics.arena import ArenaScore, Ratings
from guerdon.metrics.diversity import ManifoldScores
from guerdon.metrics.intervals import Interval

__all__ = ["ArenaRow", "DetectorRow", "RealBenchResult", "Variety"]


@dataclass(frozen=True)
class DetectorRow:
    """One detector on one player's images; everything after ``pass_rate`` is None without reference photographs.

    mean, reference_mean: mean P(real) in [0, 1]. pass_rate, reference_pass_rate: share above 0.5.
    auroc: P(a photograph scores above an image) + half P(tie); 0.5 = this detector cannot tell them apart.
    tpr_at_fpr: share of images it catches while wrongly accusing 1% of photographs; 0.01 = blind.
    gap: mean P(real) of photographs - images; ``hacked`` where its whole interval is below 0 (the card flags any
    negative mean, which a perfect generator shows half the time).
    in_training: the detector was part of the reward, so its scores are no evidence of realism.
    images, failed: images scored, and images for which the detector gave no score.
    """

    detector: str
    player: str
    in_training: bool
    images: int
    failed: int
    mean: Interval
    pass_rate: float
    reference_mean: Interval | None = None
    reference_pass_rate: float | None = None
    gap: Interval | None = None
    auroc: Interval | None = None
    tpr_at_fpr: float | None = None

    @property
    def hacked(self) -> bool:
        """The photographs score below the images: the detector rewards something other than looking real."""
        return self.gap is not None and self.gap.high < 0


@dataclass(frozen=True)
class ArenaRow:
    """One player against one opponent; ``score`` is None when no pair got a verdict in both orders.

    verdicts: asked for, two a pair. unparseable_rate: share whose reply held no clear verdict. failure_rate: share
    without a verdict for any reason, these included.
    """

    player: str
    opponent: str
    score: ArenaScore | None
    verdicts: int
    unparseable_rate: float
    failure_rate: float


@dataclass(frozen=True)
class Variety:
    """How varied the images of a player are, on detector-free features (`guerdon.metrics.diversity.features`).

    within_prompt: mean distance of two images of one prompt (nan unless prompts repeat); overall: of any two images.
    against_reference, mmd2: k-nearest-neighbour scores and MMD^2 against the photographs, None without enough of them.
    """

    within_prompt: float
    overall: float
    against_reference: ManifoldScores | None = None
    mmd2: float | None = None


@dataclass
class RealBenchResult:
    """Detector-Scoring, Arena-Scoring, ratings, drift meters and variety of one or more players."""

    settings: dict[str, Any]
    detectors: list[DetectorRow] = field(default_factory=list)
    arena: list[ArenaRow] = field(default_factory=list)
    ratings: Ratings | None = None
    drift: dict[str, dict[str, float]] = field(default_factory=dict)
    variety: dict[str, Variety] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; nan and infinities become null."""
        plain = asdict(self)
        for row, source in zip(plain["detectors"], self.detectors, strict=True):
            row["hacked"] = source.hacked
        return _finite(plain)

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_markdown(self) -> str:
        """Tables for a reader, warnings first."""
        parts = ["# RealBench", _settings_line(self.settings)]
        if self.warnings:
            parts.append("\n".join(f"- **warning:** {warning}" for warning in self.warnings))
        if self.detectors:
            parts += ["## Detector-Scoring", _detector_table(self.detectors)]
        if self.arena:
            parts += ["## Arena-Scoring", f"Judge: {self.settings.get('judge')}", _arena_table(self.arena)]
        if self.ratings is not None:
            parts += ["## Ratings", _ratings_table(self.ratings)]
        if self.drift:
            meters = list(next(iter(self.drift.values())))
            rows = [[name, *(f"{values[m]:.4g}" for m in meters)] for name, values in self.drift.items()]
            parts += ["## Drift meters (means)", _table(["images", *meters], rows)]
        if self.variety:
            parts += ["## Variety", _variety_table(self.variety)]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write realbench.json and realbench.md into ``folder``, each replaced whole."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name, text in (("realbench.json", self.to_json() + "\n"), ("realbench.md", self.to_markdown())):
            partial = target / f".{name}.partial"
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, target / name)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _settings_line(settings: dict[str, Any]) -> str:
    side, codec = settings.get("size"), settings.get("codec")
    path = f"{side}x{side} pixels" if side else "own sizes"
    counts = ", ".join(f"{name} ({count})" for name, count in settings.get("images", {}).items())
    return (
        f"Images: {counts}. Both sides shown at {path}, codec {codec or 'as given'}; {settings['level']:.0%} intervals."
    )


def _detector_table(rows: Sequence[DetectorRow]) -> str:
    head = ["detector", "role", "images of", "mean P(real)", "pass > .5", "photos P(real)", "photos pass > .5"]
    head += ["gap photos - images", "AUROC", "TPR @ 1% FPR", "n", "failed"]
    cells = [
        [
            row.detector,
            "in training" if row.in_training else "held out",
            row.player,
            str(row.mean),
            _number(row.pass_rate),
            str(row.reference_mean or "-"),
            _number(row.reference_pass_rate),
            f"{row.gap or '-'}{' HACKED' if row.hacked else ''}",
            str(row.auroc or "-"),
            _number(row.tpr_at_fpr),
            str(row.images),
            str(row.failed),
        ]
        for row in rows
    ]
    return _table(head, cells)


def _arena_table(rows: Sequence[ArenaRow]) -> str:
    head = ["player", "opponent", "win rate", "slot consistency", "slot bias", "shown first", "shown second", "ties"]
    head += ["pairs", "incomplete", "unparseable", "failed"]
    cells = []
    for row in rows:
        score = row.score
        found = (
            ["-"] * 8
            if score is None
            else [
                str(score.win_rate),
                _number(score.consistency),
                str(score.slot_bias),
                _number(score.shown_first),
                _number(score.shown_second),
                _number(score.tie_rate),
                str(score.pairs),
                str(score.incomplete),
            ]
        )
        cells.append([row.player, row.opponent, *found, f"{row.unparseable_rate:.1%}", f"{row.failure_rate:.1%}"])
    return _table(head, cells)


def _ratings_table(ratings: Ratings) -> str:
    ranked = sorted(ratings.ratings.items(), key=lambda item: -item[1].value)
    rows = [[name, str(value), _number(ratings.probability(name, ratings.reference))] for name, value in ranked]
    table = _table(["player", "rating (logits)", f"P(beats {ratings.reference})"], rows)
    return f"{table}\n\nSlot effect: {ratings.slot} logits in favour of slot 1; {ratings.verdicts} verdicts."


def _variety_table(variety: dict[str, Variety]) -> str:
    rows = []
    for name, found in variety.items():
        near = found.against_reference
        scores = ["-"] * 4
        if near is not None:
            scores = [_number(value) for value in (near.precision, near.recall, near.density, near.coverage)]
        mmd2 = "-" if found.mmd2 is None else f"{found.mmd2:.5f}"
        rows.append([name, _number(found.within_prompt), _number(found.overall), *scores, mmd2])
    return _table(["images", "within prompt", "overall", "precision", "recall", "density", "coverage", "MMD^2"], rows)
