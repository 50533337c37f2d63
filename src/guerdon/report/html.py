"""The report of a run: one HTML file that needs nothing else, so that it can be mailed, archived and opened offline."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from guerdon.report import figures, tables
from guerdon.report.finding import find, judge_series, reward_series, stopped_in, watch_sentence
from guerdon.report.pictures import REFERENCE, Grid, read_grid
from guerdon.report.record import Record, Series, mapping, number, read_record, rows
from guerdon.report.wording import NONE, duration, listed, percent, plain, words

_STAGES = {"rewriter": "Stage 1: the prompt rewriter", "generator": "Stage 2: the generator"}
_ARMS = {
    "base": "the prompt as the user wrote it, the model before training",
    "stage1": "the trained rewriter writes the prompt, the model is still untouched",
    "stages12": "the trained rewriter and the tuned model together",
}
_WATCHED = ("alignment", "diversity", "distance_to_base")
_QUIET = ("seconds", "images", "epoch")
_OPEN_ROWS = 8
_OPEN_REWRITES = 10


@dataclass(frozen=True)
class Panel:
    """A small figure with its title."""

    title: str
    figure: Markup


@dataclass(frozen=True)
class Key:
    """An entry of a figure's legend: ``dash`` is an SVG stroke-dasharray."""

    label: str
    style: str
    dash: str
    mark: str


@dataclass(frozen=True)
class Watch:
    """The hacking watch of one stage, for a wide and for a narrow page."""

    title: str
    wide: Markup
    narrow: Markup
    legend: list[Key]
    told: list[str]
    notes: list[str] = field(default_factory=list)


def render(run: str | Path) -> str:
    """The page for the run folder ``run``, finished or not; the same folder always gives the same text.

    What the folder does not hold is named on the page instead of shown. Raises GuerdonError when ``run`` is no run
    folder.
    """
    return environment().get_template("report.html.j2").render(_page(read_record(run)))


def write_report(run: str | Path) -> Path:
    """Write `render` to ``report.html`` in the run folder, whole or not at all; returns its path."""
    path = Path(run) / "report.html"
    text = render(run)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


@cache
def environment() -> Environment:
    """The templates of the pages; everything is escaped unless it is Markup."""
    # Autoescape is switched on for every template: a choice by file name would miss ".html.j2".
    loader = PackageLoader("guerdon.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"words": words, "percent": percent, "plain": plain, "listed": listed}
    return environment


def _page(record: Record) -> dict[str, Any]:
    summary = record.summary
    grid = read_grid(record)
    groups = tables.forest_groups(record)
    system = str(summary.get("system") or "")
    seed = summary.get("seed")
    facts = [system, None if seed is None else f"seed {seed}", record.name]
    facts.append(f"took {duration(summary.get('seconds'))}" if number(summary.get("seconds")) is not None else None)
    page: dict[str, Any] = {
        "title": str(summary.get("title") or system or record.name),
        "facts": [fact for fact in facts if fact],
        "finding": find(record),
        "own_words": summary.get("finding") if isinstance(summary.get("finding"), str) else None,
        "missing": record.missing,
        "absent": [],
        "figures": tables.key_figures(record),
        "verdicts": tables.verdicts(record),
        "arms": [(record.label(name), record.style(name), _ARMS.get(name, "")) for name in record.arms],
        "judges": _judges(record),
        "grid": grid,
        "textual": record.textual,
        "hero": _hero(record, grid),
        "above_real": tables.above_real(record),
        "open_rows": _OPEN_ROWS,
        "watches": [watch for stage in record.stages if (watch := _watch(record, stage)) is not None],
        "meters": _meters(record),
        "kept": number(mapping(summary, "stopped").get("chosen_step")) is not None,
        "drift": tables.drift(record),
        "health": _health(record),
        "benchmark": tables.benchmark(record),
        "forest": figures.forest(groups, label=_FOREST_AXIS, name="bench") if groups else None,
        "forest_narrow": figures.forest(groups, label=_FOREST_AXIS, name="benchn", narrow=True) if groups else None,
        "arena": tables.arena(record),
        "costs": tables.costs(record),
        "rewrites": _rewrites(summary),
        "open_rewrites": _OPEN_REWRITES,
        "rewriter": _rewriter(summary),
        "given": tables.given(record),
        "reliability": _reliability(summary),
        "timings": tables.timings(record),
        "total": duration(summary.get("seconds")),
        "config": record.config,
        "command": _command(record, system),
        "NONE": NONE,
    }
    # A run that brings its own tables has no pictures to miss.
    expected = ("config",) if page["given"] else tuple(_ABSENT)
    page["absent"] = [_ABSENT[key] for key in expected if not (grid.rows if key == "grid" else page[key])]
    return page


# What the page says of a part that the run folder does not hold.
_ABSENT = {
    "verdicts": "aims (verdicts)",
    "grid": "pictures (samples/)",
    "watches": "training curves with the hacking watch",
    "meters": "drift meters during training",
    "drift": "drift meters of the final pictures",
    "benchmark": "RealBench: detector scores",
    "arena": "RealBench: arena",
    "costs": "alignment, diversity, coverage and fresh detector",
    "rewrites": "rewrites",
    "timings": "timings of the stages",
    "config": "configuration",
}


_FOREST_AXIS = "mean P(real): 0 = surely generated, 1 = surely a photograph"


def _hero(record: Record, grid: Grid, count: int = 6) -> list[tuple[str, list[str]]]:
    """The first pictures of the base, the final arm and the photographs, side by side at the top of the page."""
    places = {name: place for place, (name, _) in enumerate(grid.columns)}
    wanted = [(record.base, "Before"), (record.final, "After"), (REFERENCE, "Real photographs")]
    if record.final not in places:
        return []
    strips = [(label, places[name]) for name, label in wanted if name in places]
    return [(label, [cell for row in grid.rows[:count] if (cell := row.cells[at])]) for label, at in strips]


def _judges(record: Record) -> list[tuple[str, str, str]]:
    """(role, what it does, names) for the roles that this run has."""
    roles: dict[str, list[str]] = {}
    for arm in record.arms.values():
        for name, detector in mapping(arm, "detectors").items():
            roles.setdefault(str(mapping(detector).get("role")), []).append(str(name))
    what = {
        "training": "is the reward that the policy climbs",
        "validation": "is no part of the reward; stops the training and chooses the checkpoint",
        "held-out": "decides nothing and only judges",
    }
    return [(role, text, listed(list(dict.fromkeys(roles[role])))) for role, text in what.items() if role in roles]


def _label(series: Series) -> str:
    parts = series.key.split("/")
    return words(parts[1] if len(parts) > 1 else parts[0])


def _watch(record: Record, stage: str) -> Watch | None:
    found = [("training", one) for one in reward_series(record, stage)]
    found += [(role, one) for role in ("validation", "held-out") for one in judge_series(record, stage, role)]
    if not found:
        return None
    curves = [figures.Curve(one, _label(one), role) for role, one in found]
    stopped = stopped_in(record, stage)
    events: Any = {"chosen": number(stopped.get("chosen_step")), "stopped": number(stopped.get("step"))}
    name = f"watch{list(record.stages).index(stage)}"
    scale: Any = {"scale": "score"} if record.textual else {}
    absent = [role for role in ("validation", "held-out") if not any(curve.role == role for curve in curves)]
    notes = [f"No {' and no '.join(absent)} judge was read in this stage."] if absent else []
    reason = str(stopped.get("reason") or "").strip().rstrip(".")
    told = watch_sentence(record, stage)
    if reason and events["stopped"] is not None:
        told.append(f"Stopped at step {events['stopped']:.0f}: {reason}.")
    return Watch(
        _STAGES.get(stage, words(stage).capitalize()),
        figures.watch(curves, name=name, **events, **scale),
        figures.watch(curves, name=name + "n", narrow=True, **events, **scale),
        [
            Key(f"{curve.label} · {figures.ROLE_WORDS[curve.role]}", curve.role, *figures.legend_line(curves, curve))
            for curve in curves
        ],
        told,
        notes,
    )


def _meters(record: Record) -> list[Panel]:
    """Drift meters of the last stage that has them, with the base and the real photographs as levels."""
    stage = next((s for s in reversed(record.stages) if any(k.startswith("drift/") for k in record.stages[s])), None)
    if stage is None:
        return []
    series = record.stages[stage]
    chosen = number(stopped_in(record, stage).get("chosen_step"))
    keys = sorted((key for key in series if key.startswith("drift/")), key=list(series).index)
    panels: list[Panel] = []
    for key in [*keys, *(key for key in _WATCHED if key in series)]:
        meter = key.removeprefix("drift/")
        levels = []
        for source, style in ((record.arms.get(record.base or "", {}), "arm0"), (record.reference, "real")):
            value = number(mapping(source, "drift").get(meter)) if key in keys else _own(source, meter)
            if value is not None:
                levels.append(figures.Level(value, style))
        title = words(meter)
        classes = meter.startswith("says ")
        unit = tables.METER_UNITS.get(meter, "share of completions" if classes else meter)
        figure = figures.meter(
            series[key], levels, unit=unit, name=f"drift{len(panels)}", title=title,
            chosen=chosen, least=0.15 if meter in ("alignment", "diversity") else 0.0,
            share=classes or meter in _SHARES,
        )  # fmt: skip
        panels.append(Panel(title[0].upper() + title[1:], figure))
    return panels


_SHARES = ("ended", "stated", "repetition", "vote_share")


def _own(source: dict[str, Any], key: str) -> float | None:
    value = source.get(key)
    return number(value) if number(value) is not None else number(mapping(value).get("mean"))


def _health(record: Record) -> list[Panel]:
    """Every other logged quantity (KL, ratio, learning rate, rewards of another scale), stage by stage."""
    panels: list[Panel] = []
    for stage, series in record.stages.items():
        watched = {one.key for one in reward_series(record, stage)}
        for key, one in series.items():
            drawn = key in watched or key.startswith(("drift/", "judge/")) or key in _QUIET
            if drawn or key in _WATCHED and any(k.startswith("drift/") for k in series) or len(one.steps) < 2:
                continue
            figure = figures.meter(one, (), unit=f"{stage} stage", name=f"health{len(panels)}", title=key)
            panels.append(Panel(words(key.replace("/", ": ")), figure))
    return panels


def _reliability(summary: dict[str, Any]) -> Markup | None:
    """The reliability diagram of ``summary["calibration"]["bins"]``: {"predicted", "observed", "count"} each."""
    bins = rows(mapping(summary, "calibration"), "bins")
    points = [(number(one.get("predicted")), number(one.get("observed")), number(one.get("count"))) for one in bins]
    whole = [(p, o, n) for p, o, n in points if p is not None and o is not None and n]
    return figures.reliability(whole, name="reliability") if whole else None


def _rewrites(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": str(row.get("prompt") or ""),
            "rewrite": str(row.get("rewrite") or ""),
            "valid": row.get("valid") is not False and bool(row.get("rewrite")),
        }
        for row in rows(summary, "rewrites")
    ]


def _rewriter(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    told = {
        "distinct_2": ("different word pairs", "of all pairs in the rewrites; low means one phrase for all"),
        "commonest_tail_share": ("the commonest ending", "share of the rewrites; high means a collapsed rewriter"),
        "malformed_share": ("malformed", "outputs without an answer"),
    }  # fmt: skip
    measured = mapping(summary, "rewriter")
    known = [(key, *told[key]) for key in told if number(measured.get(key)) is not None]
    return [(name, percent(measured[key]), text) for key, name, text in known]


def _command(record: Record, system: str) -> str | None:
    """The command that does the run again: the recipe's own where it wrote one, else by the resolved configuration."""
    own = record.summary.get("command")
    if isinstance(own, str) and own.strip():
        return own.strip()
    if not system or not record.config:
        return None
    return f"guerdon run {system} --config {record.name}/config.yaml --out {record.name}-again"
