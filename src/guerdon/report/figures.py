"""Figures as inline SVG. Matplotlib draws them; their colours are the page's CSS variables, so they follow dark mode.

Units: a figure is drawn at 72 dpi, so one unit of its view box is one CSS pixel at natural size.
Colours: Okabe and Ito 2008, "Color universal design"; every colour is doubled by a marker, a dash or a label.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from guerdon.report.record import Series

# Colours that stand for a CSS variable until the figure is in the page; no figure uses them for themselves.
STAND_INS = {
    "ink": "#010203", "muted": "#010204", "rule": "#010205", "paper": "#010206", "training": "#010207",
    "validation": "#010208", "held-out": "#010209", "arm0": "#01020a", "arm1": "#01020b", "arm2": "#01020c",
    "real": "#01020d",
}  # fmt: skip
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)))
_ROLE_MARKERS = {"training": "", "validation": "s", "held-out": "o"}
ROLE_WORDS = {"training": "training reward", "validation": "validation judge", "held-out": "held-out judge"}
RC: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "font.family": "DejaVu Sans", "font.size": 12,
    "axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": True, "axes.linewidth": 1.0,
    "axes.edgecolor": STAND_INS["rule"], "axes.labelcolor": STAND_INS["muted"], "text.color": STAND_INS["ink"],
    "xtick.color": STAND_INS["rule"], "ytick.color": STAND_INS["rule"], "xtick.labelcolor": STAND_INS["muted"],
    "ytick.labelcolor": STAND_INS["muted"], "xtick.major.size": 4, "ytick.major.size": 0, "axes.facecolor": "none",
    "figure.facecolor": "none", "lines.solid_capstyle": "round", "grid.color": STAND_INS["rule"],
    "grid.linewidth": 0.8,
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A series in the watch with its ``label`` and ``role``: training, validation or held-out."""

    series: Series
    label: str
    role: str


@dataclass(frozen=True)
class Level:
    """A horizontal reference line: ``style`` is arm0 for the base, real for the photographs."""

    value: float
    style: str


@dataclass(frozen=True)
class Dot:
    """A measured value in `forest`; ``style`` is arm0, arm1, arm2 or real."""

    value: float
    low: float | None
    high: float | None
    style: str


def watch(
    curves: Sequence[Curve], *, chosen: float | None = None, stopped: float | None = None, narrow: bool = False,
    name: str = "watch", scale: str = "looks real to the judge, P(real)",
) -> Markup:  # fmt: skip
    """The hacking watch: training rewards and judges on the same axes against the step.

    Faint lines are single steps, strong lines their running mean; steps after ``chosen`` are shaded as thrown away.
    scale: what an axis from 0 to 1 is of.
    """
    width, height = (370, 330) if narrow else (1000, 360)
    values = [value for curve in curves for value in curve.series.values]
    unit = min(values) >= 0 and max(values) <= 1
    with matplotlib.rc_context(RC):
        # Room for the longest name at the end of a curve, in bold letters of twelve points.
        room = max(210.0, 24 + 7.6 * max(len(_told(curve)) for curve in curves))
        right = 12 if narrow else min(room, width / 2)
        figure, axes = canvas(width, height, left=46, right=right, top=46 if narrow else 34, bottom=48)
        first = min(curve.series.steps[0] for curve in curves)
        last = max(curve.series.steps[-1] for curve in curves)
        axes.set_xlim(first - 0.01 * (last - first or 1), last + 0.01 * (last - first or 1))
        axes.set_ylim(*(0.0, 1.0) if unit else padded(values))
        axes.yaxis.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(6 if narrow else 10, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _title(figure, scale if unit else "reward, in its own unit", width, height)
        axes.set_xlabel("training step")
        _event_lines(axes, chosen, stopped, first, last, narrow)
        ends = [(_draw(axes, curve, _dash(curves, curve)), curve) for curve in curves]
        if not narrow:
            _end_labels(axes, ends, last, height)
        return svg(figure, name, f"Training rewards and judges by training step, {first} to {last}")


def meter(
    series: Series | None, levels: Sequence[Level], *, unit: str, name: str, title: str, chosen: float | None = None,
    least: float = 0.0, share: bool = False,
) -> Markup:  # fmt: skip
    """One drift meter by step, with the base and the real photographs as level lines.

    ``least``: the axis reaches this share above and below the first level, so that a small move looks small; ``share``:
    from 0 to 1.
    """
    with matplotlib.rc_context(RC):
        figure, axes = canvas(320, 190, left=52, right=10, top=22, bottom=38)
        values = [*(series.values if series else ()), *(level.value for level in levels)]
        if least and values:
            origin = levels[0].value if levels else values[0]
            values += [origin * (1 - least), origin * (1 + least)]
        axes.set_ylim(*((-0.04, 1.04) if share else padded(values)))
        for level in levels:
            dash = DASHES[1] if level.style == "real" else DASHES[2]
            axes.axhline(level.value, color=STAND_INS[level.style], linewidth=1.6, linestyle=dash, zorder=2)
        if series is not None:
            span = series.steps[-1] - series.steps[0] or 1
            axes.set_xlim(series.steps[0] - 0.02 * span, series.steps[-1] + 0.02 * span)
            marker = "o" if len(series.steps) <= 24 else ""
            axes.plot(series.steps, series.values, color=STAND_INS["arm2"], linewidth=2, marker=marker, markersize=3.5)
            if chosen is not None:
                axes.axvline(chosen, color=STAND_INS["ink"], linewidth=1, zorder=1)
        axes.yaxis.grid(True)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.tick_params(labelsize=11)
        _title(figure, unit, 320, 190, size=11)
        axes.set_xlabel("step", fontsize=11, labelpad=2)
        return svg(figure, name, f"{title} by training step")


def forest(
    groups: Sequence[tuple[str, str, Sequence[Dot]]], *, label: str, name: str, narrow: bool = False,
) -> Markup:  # fmt: skip
    """Dots with intervals, a band for each (title, role, dots) of ``groups``, on one axis from 0 to 1."""
    width = 370 if narrow else 1000
    lines = sum(len(dots) for _, _, dots in groups)
    height = 56 + 13 * lines + (40 if narrow else 20) * len(groups)
    left, right = 14 if narrow else 230, 14
    outside = 0.0 if narrow else -left / (width - left - right)  # the left edge of the figure in axes coordinates
    with matplotlib.rc_context(RC):
        figure, axes = canvas(width, height, left=left, right=right, top=4, bottom=46)
        axes.set_ylim(height - 50, 0)
        axes.set_xlim(0, 1)
        axes.xaxis.grid(True)
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        beside: Any = {"transform": axes.get_yaxis_transform(), "va": "center"}
        rule: Any = {"transform": axes.get_yaxis_transform(), "color": STAND_INS["rule"], "clip_on": False}
        y = 0.0
        for index, (title, role, dots) in enumerate(groups):
            if index:
                axes.plot([outside, 1], [y, y], linewidth=0.8, **rule)
            word = ROLE_WORDS.get(role, role)
            if narrow:
                axes.text(0, y + 15, f"{title} · {word}" if word else title, fontsize=12, **beside)
                y += 24
            else:
                middle = y + 10 + 13 * len(dots) / 2
                colour = STAND_INS.get(role, STAND_INS["muted"])
                axes.text(outside, middle - (8 if role else 0), title, fontsize=13, **beside)
                axes.text(outside, middle + 9, word, fontsize=11.5, color=colour, **beside)
                y += 10
            for dot in dots:
                _interval_dot(axes, dot, y + 6.5)
                y += 13
            y += 16 if narrow else 10
        return svg(figure, name, label)


def reliability(bins: Sequence[tuple[float, float, float]], *, name: str) -> Markup:
    """Observed against predicted frequency, both in [0, 1]: a dot for each (predicted, observed, count)."""
    with matplotlib.rc_context(RC):
        figure, axes = canvas(340, 320, left=52, right=14, top=12, bottom=46)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.grid(True)
        axes.plot([0, 1], [0, 1], color=STAND_INS["rule"], linewidth=1.4, linestyle=DASHES[1], zorder=2)
        most = max(count for _, _, count in bins)
        axes.scatter(
            [p for p, _, _ in bins], [o for _, o, _ in bins], s=[18 + 150 * count / most for _, _, count in bins],
            color=STAND_INS["arm2"], clip_on=False, zorder=3,
        )  # fmt: skip
        axes.set_xlabel("probability that the model gives")
        axes.set_ylabel("how often it is right")
        return svg(figure, name, "Observed against predicted frequency of preferring the chosen answer")


_ARM_MARKERS = {"arm0": "o", "arm1": "^", "arm2": "o", "real": "D"}


def _interval_dot(axes: Axes, dot: Dot, y: float) -> None:
    colour = STAND_INS[dot.style]
    if dot.low is not None and dot.high is not None:
        axes.plot([dot.low, dot.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt", zorder=3)
    face = STAND_INS["paper"] if dot.style == "arm0" else colour
    axes.plot(
        [dot.value], [y], marker=_ARM_MARKERS[dot.style], markersize=8, markerfacecolor=face, markeredgecolor=colour,
        markeredgewidth=1.8, clip_on=False, zorder=4,
    )  # fmt: skip


def canvas(width: float, height: float, *, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure of ``width`` x ``height`` pixels with one axes inside the given margins."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    axes.tick_params(pad=5)
    return figure, axes


def _title(figure: Figure, text: str, width: float, height: float, size: float = 12) -> None:
    """The name and unit of the y axis, written horizontally above it: nobody reads rotated text."""
    figure.text(0, 1 - size * 1.1 / height, text, fontsize=size, color=STAND_INS["muted"], va="center")


def padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    # A quantity that cannot be negative does not get an axis that suggests it could.
    return (max(low - margin, 0.0) if low >= 0 else low - margin), high + margin


def _dash(curves: Sequence[Curve], curve: Curve) -> Any:
    same = [other.label for other in curves if other.role == curve.role]
    return DASHES[same.index(curve.label) % len(DASHES)]


def legend_line(curves: Sequence[Curve], curve: Curve) -> tuple[str, str]:
    """(SVG stroke-dasharray in pixels, marker) with which `watch` draws ``curve``; a full line has an empty array."""
    dash = _dash(curves, curve)
    array = "" if dash == "-" else " ".join(f"{2 * part:g}" for part in dash[1])
    return array, {"s": "square", "o": "circle"}.get(_ROLE_MARKERS[curve.role], "")


def _draw(axes: Axes, curve: Curve, dash: Any) -> float:
    """Draw one curve; returns the height at which it ends."""
    steps, values = np.asarray(curve.series.steps), np.asarray(curve.series.values)
    colour = STAND_INS[curve.role]
    heavy = 2.8 if curve.role == "held-out" else 1.9
    if len(values) > 24:
        axes.plot(steps, values, color=colour, linewidth=0.9, alpha=0.3)
        values = running_mean(values, max(3, len(values) // 15))
        marker = ""
    else:
        marker = _ROLE_MARKERS[curve.role]
    axes.plot(steps, values, color=colour, linewidth=heavy, linestyle=dash, marker=marker, markersize=6, zorder=4,
              markeredgecolor=STAND_INS["paper"], markeredgewidth=1)  # fmt: skip
    return float(values[-1])


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over ``window`` values (made odd), over fewer at the ends: [n] -> [n]."""
    half = window // 2
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _event_lines(
    axes: Axes, chosen: float | None, stopped: float | None, first: float, last: float, narrow: bool
) -> None:
    text: Any = {"transform": axes.get_xaxis_transform(), "fontsize": 11 if narrow else 12, "va": "bottom", "zorder": 5}
    middle = (first + last) / 2
    if chosen is not None:
        if last > chosen:
            axes.axvspan(chosen, last, color=STAND_INS["muted"], alpha=0.10, linewidth=0, zorder=0)
        axes.axvline(chosen, color=STAND_INS["ink"], linewidth=1.6, zorder=3)
        side = "left" if chosen <= middle else "right"
        axes.text(chosen, 1.01, f"kept: step {chosen:.0f}", ha=side, fontweight="bold", **text)
    if stopped is not None and stopped != chosen:
        axes.axvline(stopped, color=STAND_INS["muted"], linewidth=1.4, linestyle=DASHES[1], zorder=3)
        if not (narrow and chosen is not None and abs(stopped - chosen) < 0.45 * (last - first)):
            axes.text(stopped, 1.01, f"stopped: step {stopped:.0f}", ha="right", color=STAND_INS["muted"], **text)


def _end_labels(axes: Axes, ends: list[tuple[float, Curve]], last: float, height: float) -> None:
    """Name each curve at its right end, spread so that no two names touch."""
    low, high = axes.get_ylim()
    gap = 17 * (high - low) / (height - 82)
    order = sorted(ends, key=lambda end: end[0])
    places = spread([end for end, _ in order], gap, low, high)
    for place, (_, curve) in zip(places, order):
        bold = "bold" if curve.role == "held-out" else "normal"
        axes.annotate(_told(curve), (last, place), xytext=(10, 0), va="center",
                      textcoords="offset points", color=STAND_INS[curve.role], fontweight=bold, annotation_clip=False,
                      fontsize=12)  # fmt: skip


def _told(curve: Curve) -> str:
    return f"{curve.label} · {ROLE_WORDS[curve.role]}"


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending ``values`` moved as little as possible (least squares) until neighbours are ``gap`` apart.

    The result lies in [low, high] where it fits. Pool-adjacent-violators on values less their share of the gaps.
    """
    blocks: list[tuple[float, int]] = []
    for index, value in enumerate(values):
        mean, size = value - index * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    top = high - (len(values) - 1) * gap
    levels = [max(min(mean, top), low) for mean, size in blocks for _ in range(size)]
    return [level + index * gap for index, level in enumerate(levels)]


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as inline SVG: no prolog, metadata or namespaces, ids under ``name``, colours as CSS variables."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    opening, rest = text.split(">", 1)
    text = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", opening) + ">" + rest
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", text)
    for variable, colour in STAND_INS.items():
        text = text.replace(colour, f"var(--{variable})")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))
