"""How a detection benchmark is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from guerdon.core.sheet import Bar, Bars, Cell, Line, Lines, Part, Sheet, Table

if TYPE_CHECKING:
    from guerdon.benchmarks.lvis import Graded, LvisResult

SHOWN_CLASSES = 20
PARTS = {
    "": "all", "50": "overlap 0.50", "75": "overlap 0.75", "s": "small", "m": "medium", "l": "large", "r": "rare",
    "c": "common", "f": "frequent",
}  # fmt: skip
MEANINGS = {
    "AP": "mean over classes, under the usual cap on detections",
    "AP-Fixed": "mean over classes, each with its best detections and no cap an image",
    "AP-Pool": "one ranking of all classes' detections: scores must mean the same everywhere",
}


def sheet(result: LvisResult) -> Sheet:
    """The sheet of a result."""
    graded = result.graded
    first = graded[0]
    lvis, caps = result.annotations.lvis, result.caps
    cap = f"{caps.per_image or 'no cap'} an image" if lvis else "100 of a class in an image"
    lead = "; ".join(
        f"{one.name}: " + ", ".join(f"{name} {_said(one, name)}" for name in one.figures) for one in graded
    )
    facts = {
        "annotations": result.annotations.name,
        "convention": f"{'LVIS' if lvis else 'COCO'}, {'boxes' if result.kind == 'bbox' else 'masks'}",
        "detections that count": f"AP: {cap}; AP-Fixed and AP-Pool: {caps.per_class:,} a class",
        "intervals": f"95%, {len(first.draws.get('AP', ()))} resamples of the images",
        "seconds": f"{result.seconds:.1f}",
    }
    if result.fitted_on:
        facts["calibrators fitted on"] = result.fitted_on
    parts: list[Part] = [_headlines(result), *_differences(result)]
    parts += [_parts(result), _recall(result)]
    if any(result.annotations.frequency):
        parts += [_by_frequency(one) for one in graded]
    for one in graded:
        parts += [*_calibration(one), _classes(one)]
    parts.append(_counts(result))
    notes = [f"{result.annotations.name}: {many:,} {what}" for what, many in result.annotations.notes.items()]
    notes += [f"{one.name}: {many:,} {what}" for one in graded for what, many in one.file.notes.items()]
    for one in graded:
        short = one.counts["classes with fewer detections than AP-Fixed takes"]
        if short:
            notes.append(
                f"{one.name}: {short:,} of {one.counts['classes']:,} classes have fewer than {caps.per_class:,} "
                f"detections (at most {one.counts['most detections in an image']:,} in an image): compare AP-Fixed "
                "only with detectors that emit as many"
            )
    return Sheet("benchmark", "Average precision of detections", lead, facts, parts, notes)


def _said(one: Graded, name: str) -> str:
    value = one.figures[name][name]
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _headlines(result: LvisResult) -> Table:
    rows: list[list[Cell]] = []
    for one in result.graded:
        for name, parts in one.figures.items():
            drawn = one.intervals.get(name)
            between = f"{drawn.low:.4f} to {drawn.high:.4f}" if drawn is not None else None
            rows.append([one.name, name, _number(parts[name]), between, MEANINGS[name]])
    return Table("Headlines", ["file", "figure", "value", "95%", "what it is"], rows)


def _differences(result: LvisResult) -> list[Table]:
    rows: list[list[Cell]] = [
        [other, name, _number(drawn.value), f"{drawn.low:+.4f} to {drawn.high:+.4f}", _judged(drawn.low, drawn.high)]
        for other, found in result.differences().items()
        for name, drawn in found.items()
    ]
    columns = ["file", "figure", "difference", "95%", "told apart"]
    note = "Both files are graded on the same resampled images."
    return [Table(f"Over {result.graded[0].name}", columns, rows, note)] if rows else []


def _judged(low: float, high: float) -> str:
    return "higher" if low > 0 else "lower" if high < 0 else "no"


def _parts(result: LvisResult) -> Table:
    known = {end for one in result.graded for name, parts in one.figures.items() for end in _ends(name, parts)}
    ends = {end: told for end, told in PARTS.items() if end in known}
    rows: list[list[Cell]] = [
        [one.name, name, *(_number(_ends(name, parts).get(end, np.nan)) for end in ends)]
        for one in result.graded
        for name, parts in one.figures.items()
    ]
    note = "Overlap needed: 0.50 to 0.95 where not said. Objects are small below 32², large from 96² pixels."
    return Table("By overlap, size and frequency", ["file", "figure", *ends.values()], rows, note)


def _ends(name: str, parts: Mapping[str, float]) -> dict[str, float]:
    return {key.removeprefix(name): value for key, value in parts.items() if key.startswith(name)}


def _recall(result: LvisResult) -> Table:
    names = [name for name in result.graded[0].figures["AP"] if name.startswith("AR")]
    rows: list[list[Cell]] = [[one.name, *(_number(one.figures["AP"][n]) for n in names)] for one in result.graded]
    note = "Highest recall, mean over overlaps and classes; s, m, l: by size; @: how many detections count."
    return Table("Average recall", ["file", *names], rows, note)


def _by_frequency(one: Graded) -> Bars:
    bars = [
        Bar(f"{name} {kind}", parts[f"{name}{letter}"])
        for name, parts in one.figures.items()
        for letter, kind in (("r", "rare"), ("c", "common"), ("f", "frequent"))
        if not np.isnan(parts[f"{name}{letter}"])
    ]
    return Bars(f"{one.name}: by frequency of the class", bars)


def _calibration(one: Graded) -> list[Part]:
    scores = one.scores()
    if not scores:
        return []
    columns = list(dict.fromkeys(name for found in scores for name in found.figures))
    raw = {name: one.figures[name[:8].rstrip("rcf")].get(name, np.nan) for name in columns if name.startswith("AP-")}
    rows: list[list[Cell]] = []
    for found in scores:
        values = raw | found.figures if found.method == "raw" else found.figures
        rows.append([found.method, *(_number(values.get(name, np.nan)) for name in columns)])
    note = "Calibrated class by class; equal probabilities keep the raw order. ECE: calibration error at IoU 0.75."
    lines = [
        Line(found.method, [p for p, _, _ in found.reliability], [share for _, share, _ in found.reliability])
        for found in scores
    ]
    return [
        Table(f"{one.name}: calibration", ["scores", *columns], rows, note),
        Lines(f"{one.name}: reliability", lines, "score", "share right at IoU 0.75", diagonal=True),
    ]


def _classes(one: Graded) -> Table:
    worst = sorted(one.per_class, key=lambda row: (row["AP"], -row["objects"]))[:SHOWN_CLASSES]
    columns = ["class", "frequency", "objects", "detections", "AP", "AP-Fixed"]
    rows: list[list[Cell]] = [
        [row["name"], row["frequency"] or None, row["objects"], row["detections"], row["AP"], row["AP-Fixed"]]
        for row in worst
    ]
    note = f"The lowest {len(rows)} of {len(one.per_class)} classes with objects; all of them are in result.json."
    return Table(f"{one.name}: classes", columns, rows, note)


def _counts(result: LvisResult) -> Table:
    names = list(result.graded[0].counts)
    rows: list[list[Cell]] = [[name, *(f"{one.counts[name]:,}" for one in result.graded)] for name in names]
    return Table("Counts", ["count", *(one.name for one in result.graded)], rows)
