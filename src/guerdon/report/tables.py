"""The figures of a run as rows for the page and the terminal: numbers are worded here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from guerdon.report.figures import Dot
from guerdon.report.finding import Range, change, judged, measured, real_detectors
from guerdon.report.record import ROLES, Record, mapping, number, rows
from guerdon.report.wording import NONE, cell, duration, listed, percent, plain, signed, signed_percent, words

METER_UNITS = {
    "length": "tokens a completion",
    "ended": "share that ends",
    "stated": "share that states an answer",
    "repetition": "share of repeated 8-grams",
    "vote_share": "share with the commonest answer",
    "entropy": "nats a token",
    "edge_density": "share of pixels on an edge",
    "colour_entropy": "bits of colour entropy",
    "saturation": "mean saturation, 0–1",
    "dark_share": "share of dark pixels",
    "sharpness": "Laplacian variance, luminance²",
    "noise": "noise deviation, luminance",
    "distance_to_base": "distance to the base's pictures",
    "alignment": "agreement with the user's prompt",
    "diversity": "mean distance between pictures",
}


@dataclass(frozen=True)
class Mark:
    """One arm on the strip of a key figure; positions in percent of the strip."""

    style: str
    label: str
    text: str
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class KeyFigure:
    """One measure before and after: ``better`` is higher or lower; ``verdict`` good, bad or plain."""

    name: str
    before: str
    after: str
    move: str
    verdict: str
    explains: str
    ends: tuple[str, str]
    marks: list[Mark] = field(default_factory=list)
    real: tuple[float, str] | None = None


@dataclass(frozen=True)
class _Measure:
    key: str
    name: str
    explains: str
    read: Callable[[Mapping[str, Any]], Range | None]
    word: Callable[[Any], str]
    higher_is_better: bool = True
    scale: tuple[float, float] | None = None
    yardstick: str = "real photographs"
    moves: str = "relative"
    keywords: tuple[str, ...] = ()


def _bare(key: str) -> Callable[[Mapping[str, Any]], Range | None]:
    def read(arm: Mapping[str, Any]) -> Range | None:
        value = number(arm.get(key))
        return Range(value) if value is not None else measured(arm.get(key))

    return read


def _fine(value: Any) -> str:
    return plain(value, 3)


_MEASURES = (
    _Measure(
        "held-out", "Held-out judge, P(real)", "A detector with no part in training or in choosing the checkpoint.",
        lambda arm: judged(arm, "held-out"), plain, scale=(0, 1), moves="difference", keywords=("held-out", "held out"),
    ),
    _Measure(
        "fresh", "Caught by a fresh detector",
        "Balanced accuracy of a detector trained from scratch afterwards; 50% is guessing, lower is better.",
        lambda arm: measured(arm.get("fresh"), "balanced_accuracy"), percent, False, (0.5, 1), moves="points",
        keywords=("fresh",),
    ),
    _Measure(
        "arena", "Arena win rate",
        "How often a pairwise judge takes the picture for the more realistic of it and a photograph.",
        lambda arm: measured(arm.get("arena"), "win_rate"), percent, scale=(0, 1), yardstick="the judge cannot tell",
        moves="points", keywords=("arena", "win rate"),
    ),
    _Measure(
        "alignment", "Alignment", "Agreement of the picture with the prompt the user wrote, not with its rewrite.",
        _bare("alignment"), _fine, keywords=("alignment",),
    ),
    _Measure(
        "diversity", "Diversity", "Mean distance between pictures, in features no detector uses.",
        _bare("diversity"), plain, keywords=("diversity",),
    ),
    _Measure(
        "coverage", "Coverage", "Share of the real photographs that have a picture near them, in the same features.",
        _bare("coverage"), percent, scale=(0, 1), keywords=("coverage",),
    ),
)  # fmt: skip


def key_figures(record: Record) -> list[KeyFigure]:
    """Each measure that both the first and the final arm have."""
    if record.base is None or record.final is None:
        return []
    return [figure for measure in _MEASURES if (figure := _key_figure(record, measure)) is not None]


def _key_figure(record: Record, measure: _Measure) -> KeyFigure | None:
    ranges = {name: one for name, arm in record.arms.items() if (one := measure.read(arm)) is not None}
    before, after = ranges.get(record.base or ""), ranges.get(record.final or "")
    if before is None or after is None:
        return None
    real = _real(record, measure)
    spread = [v for one in ranges.values() for v in (one.value, one.low, one.high) if v is not None]
    spread += [real] if real is not None else []
    low, high = measure.scale or (min(0.0, *spread), max(spread) * 1.1 or 1.0)

    def at(value: float | None) -> float | None:
        return None if value is None else round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)

    marks = [
        Mark(
            record.style(name),
            record.label(name),
            interval(one, measure.word),
            *map(at, (one.value, one.low, one.high)),
        )
        for name, one in ranges.items()
    ]
    direction = change(before, after)
    verdict = "plain"
    if direction in ("up", "down"):
        verdict = "good" if (direction == "up") == measure.higher_is_better else "bad"
    elif verdict_of(record, measure.key, measure.keywords) == "fails":
        verdict = "bad"  # no interval to judge by, but the run's own aim was missed
    phrases = {"up": "clearly higher", "down": "clearly lower", "same": "no clear change"}
    moved = _moved(measure, before, after)
    said = f"{phrases[direction]}, {moved}" if direction else moved
    position = at(real)
    return KeyFigure(
        measure.name, measure.word(before.value), measure.word(after.value), said, verdict, measure.explains,
        (_end(measure, low), _end(measure, high)), marks,
        None if position is None else (position, f"{measure.word(real)}, {measure.yardstick}"),
    )  # fmt: skip


def _end(measure: _Measure, value: float) -> str:
    return measure.word(value) if value % 1 or measure.word is percent else f"{value:.0f}"


def _moved(measure: _Measure, before: Range | None, after: Range | None) -> str:
    """The change as the measure ``moves``: relative to the value before, in percentage points, or as a difference."""
    if before is None or after is None:
        return NONE
    if measure.moves == "difference":
        return signed(after.value - before.value)
    if measure.moves == "points":
        return f"{signed_percent(after.value - before.value).rstrip('%')} points"
    return signed_percent(after.value / before.value - 1) if before.value else NONE


def above_real(record: Record) -> str | None:
    """Training detectors that rate the final arm above real photographs, the mark of a hacked reward (card realgen)."""
    final, real = mapping(record.arms.get(record.final or "", {}), "detectors"), real_detectors(record)
    found = []
    for name, detector in final.items():
        score, photograph = measured(detector), measured(real.get(name))
        if score and photograph and mapping(detector).get("role") == "training" and change(photograph, score) == "up":
            found.append(f"{name} ({plain(score.value)} against {plain(photograph.value)})")
    return listed(found) or None


def _real(record: Record, measure: _Measure) -> float | None:
    if measure.key == "held-out":
        found = judged({"detectors": real_detectors(record)}, "held-out")
    elif measure.key == "arena":
        return 0.5  # two photographs compared with one another
    elif measure.key == "fresh":
        return None
    else:
        found = measure.read(record.reference)
    return found.value if found else None


def interval(one: Range | None, word: Callable[[Any], str] = plain) -> str:
    """``0.62 (0.57–0.67)``."""
    if one is None:
        return NONE
    if one.low is None or one.high is None:
        return word(one.value)
    return f"{word(one.value)} ({word(one.low)}–{word(one.high)})"


@dataclass(frozen=True)
class Verdict:
    """An aim: ``state`` holds, fails or open."""

    name: str
    target: str
    value: str
    state: str


def verdicts(record: Record) -> list[Verdict]:
    return [
        Verdict(str(v.get("name") or "?"), cell(v.get("target")), cell(v.get("value")), _state([v.get("holds")]))
        for v in rows(record.summary, "verdicts")
    ]


def _state(found: list[Any]) -> str:
    return "fails" if False in found else "holds" if all(state is True for state in found) else "open"


def verdict_of(record: Record, key: str, keywords: tuple[str, ...]) -> str | None:
    """State of the verdicts about one measure: those that name it as ``figure``, else those that name it alone."""
    every = {word for measure in _MEASURES for word in measure.keywords}
    found = []
    for verdict in rows(record.summary, "verdicts"):
        name = str(verdict.get("name") or "").lower()
        named = {word for word in every if word in name}
        alone = "figure" not in verdict and "stage 1" not in name and named and named <= set(keywords)
        if verdict.get("figure") == key or alone:
            found.append(verdict.get("holds"))
    return _state(found) if found else None


@dataclass(frozen=True)
class Line:
    """A row of a table: ``cells`` in the order of the table's columns."""

    name: str
    cells: list[str]
    role: str = ""
    style: str = ""
    state: str | None = None
    first: bool = False
    note: str = ""


def by_role(detectors: Mapping[str, Any]) -> list[str]:
    """Detector names, held-out first, then validation, then training."""
    order = ROLES[::-1]
    roles = {name: mapping(detectors, name).get("role") for name in detectors}
    return sorted(detectors, key=lambda name: order.index(roles[name]) if roles[name] in order else len(order))


def benchmark(record: Record) -> list[Line]:
    """Detector-Scoring: a line for each detector and arm, and one for the real photographs."""
    real = real_detectors(record)
    names = {name: detector for arm in record.arms.values() for name, detector in mapping(arm, "detectors").items()}
    out = []
    for name in by_role(names):
        arms = record.arms.items()
        sources = [(record.label(key), record.style(key), mapping(arm, "detectors", name)) for key, arm in arms]
        sources.append(("Real photographs", "real", real.get(name, {})))
        shown = [(label, style, source) for label, style, source in sources if measured(source) is not None]
        for index, (label, style, source) in enumerate(shown):
            cells = [label, interval(measured(source)), percent(source.get("pass_rate")), plain(source.get("auroc")),
                     percent(source.get("tpr_at_1fpr"))]  # fmt: skip
            role = str(mapping(names, name).get("role") or "")
            out.append(Line(name, cells, role, style, first=index == 0, note=str(len(shown))))
    return out


def forest_groups(record: Record) -> list[tuple[str, str, list[Dot]]]:
    """The same scores as dots with intervals."""
    real = real_detectors(record)
    names = {name: detector for arm in record.arms.values() for name, detector in mapping(arm, "detectors").items()}
    groups = []
    for name in by_role(names):
        sources = [(record.style(key), measured(mapping(arm, "detectors", name))) for key, arm in record.arms.items()]
        sources.append(("real", measured(real.get(name))))
        dots = [Dot(one.value, one.low, one.high, style) for style, one in sources if one is not None]
        if dots and all(0 <= dot.value <= 1 for dot in dots):
            groups.append((name, str(mapping(names, name).get("role") or ""), dots))
    return groups


def arena(record: Record) -> list[Line]:
    """Arena-Scoring of each arm that has it."""
    out = []
    for key, arm in record.arms.items():
        result = mapping(arm, "arena")
        if result:
            failures = number(result.get("parse_failures"))
            shown = NONE if failures is None else percent(failures) if 0 < failures < 1 else f"{failures:.0f}"
            cells = [interval(measured(result, "win_rate"), percent), percent(result.get("consistency")),
                     signed_percent(result.get("slot_bias")), shown]  # fmt: skip
            out.append(Line(record.label(key), cells, style=record.style(key)))
    return out


def costs(record: Record) -> list[Line]:
    """Fresh detector, alignment, diversity and coverage of every arm, the change from first to final, the verdict."""
    out = []
    for measure in _MEASURES:
        ranges = [measure.read(arm) for arm in record.arms.values()]
        if measure.key not in ("alignment", "diversity", "coverage", "fresh") or not any(ranges):
            continue
        before = measure.read(record.arms.get(record.base or "", {}))
        after = measure.read(record.arms.get(record.final or "", {}))
        moved = _moved(measure, before, after)
        real = _real(record, measure)
        cells = [*(interval(one, measure.word) for one in ranges), NONE if real is None else measure.word(real), moved]
        state = verdict_of(record, measure.key, measure.keywords)
        out.append(Line(measure.name, cells, state=state, note=measure.explains))
    return out


def drift(record: Record) -> list[Line]:
    """Drift meters of every arm beside the real photographs, and whether the final arm moved towards them."""
    arms = [mapping(arm, "drift") for arm in record.arms.values()]
    real = mapping(record.reference, "drift")
    out = []
    for meter in dict.fromkeys(name for source in (*arms, real) for name in source):
        ends = (record.arms.get(key or "", {}) for key in (record.base, record.final))
        before, after = (number(mapping(arm, "drift").get(meter)) for arm in ends)
        cells = [plain(source.get(meter), 3) for source in (*arms, real)]
        reading = approach(before, after, number(real.get(meter)))
        out.append(Line(words(meter), [*cells, reading], state="fails" if reading in _ALARMS else None,
                        note=METER_UNITS.get(meter, "")))  # fmt: skip
    return out


_ALARMS = ("away from the photographs", "past the photographs")


def approach(before: float | None, after: float | None, real: float | None) -> str:
    """Where a meter went, measured against the distance from the base to the real photographs.

    A move of less than a tenth of the larger distance is none; past the photographs means further beyond them than
    half of the distance the base was short of.
    """
    if before is None or after is None or real is None:
        return NONE
    gap, rest = before - real, after - real
    if abs(after - before) <= 0.1 * max(abs(gap), abs(rest), 0.05 * abs(real)):
        return "unmoved"
    if gap * rest < 0 and abs(rest) > 0.5 * abs(gap):
        return "past the photographs"
    return "towards the photographs" if abs(rest) < abs(gap) else "away from the photographs"


def timings(record: Record) -> list[Line]:
    """Stages with their seconds and their share of the whole (``style`` is the width of the bar in percent)."""
    stages = [(str(s.get("name") or "?"), number(s.get("seconds"))) for s in rows(record.summary, "stages")]
    known = [(name, seconds) for name, seconds in stages if seconds is not None]
    total = max(number(record.summary.get("seconds")) or 0.0, sum(seconds for _, seconds in known)) or 1.0
    return [Line(words(name), [duration(s), percent(s / total)], style=f"{100 * s / total:.2f}") for name, s in known]


@dataclass(frozen=True)
class Given:
    """A table that a recipe wrote into its summary: ``numeric`` says which columns are to be aligned as numbers."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def given(record: Record) -> list[Given]:
    """The tables in ``summary["tables"]``: each a mapping of title, note, columns and rows of text."""
    found = []
    for table in rows(record.summary, "tables"):
        columns = _texts(table.get("columns"))
        told = table.get("rows")
        lines = [_texts(row) for row in (told if isinstance(told, list) else ())]
        lines = [line for line in lines if len(line) == len(columns)]
        # A row may leave a cell empty; a column is one of numbers when everything else in it begins like one.
        cells = [[line[place] for line in lines if line[place]] for place in range(len(columns))]
        numeric = [bool(column) and all(text[0] in "+-0123456789" for text in column) for column in cells]
        found.append(Given(str(table.get("title") or ""), str(table.get("note") or ""), columns, lines, numeric))
    return found


def _texts(items: Any) -> list[str]:
    return [str(item) for item in items] if isinstance(items, list | tuple) else []
