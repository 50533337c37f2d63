"""The figures of a `Sheet` as inline SVG: bars with intervals, curves with bands, heat maps."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from guerdon.core.sheet import Bars, Heat, Lines
from guerdon.report.figures import DASHES, RC, STAND_INS, canvas, padded, svg

_WIDTH = 720
_LINE_COLOURS = ("arm2", "training", "held-out", "validation", "arm1", "ink")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_NAME_WIDTH = 34


def bars(part: Bars, *, name: str) -> Markup:
    """A dot with its interval for each bar, from the scale's ``low`` to ``high``; the mark is a dashed line."""
    height = 54 + 24 * len(part.bars)
    with matplotlib.rc_context(RC):
        figure, axes = canvas(_WIDTH, height, left=240, right=60, top=6, bottom=44)
        axes.set_xlim(part.low, part.high)
        axes.set_ylim(len(part.bars) - 0.5, -0.5)
        axes.xaxis.grid(True)
        axes.set_yticks(range(len(part.bars)), [_short(bar.name) for bar in part.bars])
        axes.spines["left"].set_visible(False)
        if part.mark is not None:
            axes.axvline(part.mark, color=STAND_INS["real"], linewidth=1.4, linestyle=DASHES[1], zorder=2)
        for row, bar in enumerate(part.bars):
            if not np.isfinite(bar.value):
                continue
            if bar.low is not None and bar.high is not None:
                ends = np.clip([bar.low, bar.high], part.low, part.high)
                axes.plot(ends, [row, row], color=STAND_INS["arm2"], linewidth=2, solid_capstyle="butt", zorder=3)
            axes.plot([bar.value], [row], "o", color=STAND_INS["arm2"], markersize=8, clip_on=False, zorder=4)
            axes.text(
                1.02, row, f"{bar.value:.3g}", transform=axes.get_yaxis_transform(), va="center", fontsize=11.5,
                color=STAND_INS["muted"],
            )  # fmt: skip
        return svg(figure, name, part.title)


def lines(part: Lines, *, name: str) -> Markup:
    """Curves, each with its own colour, dash and marker, named in a legend where there is more than one."""
    many = len(part.lines) > 1
    legend = 18 * ((len(part.lines) + 1) // 2) if many else 0
    with matplotlib.rc_context(RC):
        figure, axes = canvas(_WIDTH, 330 + legend, left=56, right=18, top=16 + legend, bottom=46)
        for index, line in enumerate(part.lines):
            colour = STAND_INS[_LINE_COLOURS[index % len(_LINE_COLOURS)]]
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(
                line.x, line.y, color=colour, linestyle=DASHES[index % len(DASHES)], linewidth=2, label=line.name,
                marker=_MARKERS[index % len(_MARKERS)] if len(line.x) <= 40 else "", markersize=5,
            )  # fmt: skip
        if part.diagonal:
            axes.set(xlim=(0, 1), ylim=(0, 1))
            axes.plot([0, 1], [0, 1], color=STAND_INS["rule"], linewidth=1.4, zorder=1)
        else:
            _limits(axes, part)
        if part.log_x:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(True)
        axes.set_xlabel(part.x_label)
        axes.set_ylabel(part.y_label)
        if many:
            axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=11.5, handlelength=3.2
            )
        return svg(figure, name, part.title)


def heat(part: Heat, *, name: str) -> Markup:
    """A matrix of shaded cells, each with its number; darker is larger."""
    values = np.asarray(part.values, dtype=np.float64).reshape(len(part.rows), len(part.columns))
    cell = 62
    left = 200
    width = max(_WIDTH, left + 20 + cell * len(part.columns))
    right = width - left - cell * len(part.columns)
    with matplotlib.rc_context(RC):
        figure, axes = canvas(width, 100 + 34 * len(part.rows), left=left, right=right, top=90, bottom=10)
        span = (part.high - part.low) or 1.0
        for (row, column), value in np.ndenumerate(values):
            if not np.isfinite(value):
                continue
            strength = float(np.clip((value - part.low) / span, 0, 1))
            axes.add_patch(
                matplotlib.patches.Rectangle(
                    (column - 0.48, row - 0.48),
                    0.96,
                    0.96,
                    color=STAND_INS["arm2"],
                    alpha=0.08 + 0.72 * strength,
                    linewidth=0,
                )  # fmt: skip
            )
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=11.5,
                color=STAND_INS["paper" if strength > 0.55 else "ink"],
            )  # fmt: skip
        axes.set(xlim=(-0.5, len(part.columns) - 0.5), ylim=(len(part.rows) - 0.5, -0.5))
        axes.set_yticks(range(len(part.rows)), [_short(one, 28) for one in part.rows])
        axes.set_xticks(range(len(part.columns)), [_short(one, 18) for one in part.columns], rotation=30, ha="left")
        axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        return svg(figure, name, part.title)


def _short(text: str, width: int = _NAME_WIDTH) -> str:
    return (
        textwrap.shorten(text, width, placeholder="…") if " " in text else text[: width - 1] + "…" * (len(text) > width)
    )


def _limits(axes: Axes, part: Lines) -> None:
    seen: list[Any] = [line.y for line in part.lines]
    seen += [band for line in part.lines for band in (line.low, line.high) if band is not None]
    flat = np.concatenate([np.asarray(one, dtype=np.float64).ravel() for one in seen]) if seen else np.zeros(0)
    finite = flat[np.isfinite(flat)]
    if finite.size:
        low, high = padded([float(finite.min()), float(finite.max())])
        axes.set_ylim(low, high)
