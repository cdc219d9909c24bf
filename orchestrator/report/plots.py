"""The report's figures as SVG elements, for paper and where no script runs (matplotlib without pyplot: no state)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import matplotlib
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from orchestrator.report.chart import GRID, INK, ORANGE, QUIET, Chart, Note, Series, Step, Stroke, Symbol

SYMBOLS: Mapping[Symbol | None, Literal["o", "s", "^", "v", "none"]] = {
    "circle": "o",
    "square": "s",
    "up": "^",
    "down": "v",
    None: "none",
}
STEPS: Mapping[Step | None, Literal["steps-post", "steps-pre", "default"]] = {
    "right first": "steps-post",
    "right last": "steps-pre",
    None: "default",
}
STROKES: Mapping[Stroke | None, Literal["-", ":", "none"] | tuple[float, Sequence[float]]] = {
    "solid": "-",
    "dash": (0, (5, 3)),
    "dot": ":",
    None: "none",
}
MOST_IN_KEY = 14  # longer names and more of them leave no room for the figure


def draw(chart: Chart) -> str:
    """A chart as an <svg> element with its title."""
    listed = [series for series in chart.series if series.listed]
    figure, axes = _axes(8.8, 4.6 + 0.19 * min(len(listed), MOST_IN_KEY))
    for place, series in enumerate(chart.series):
        line = _line(series, ([mark.x for mark in series.marks], [mark.y for mark in series.marks]))
        line.set_zorder(2 + place / 1000)
        axes.add_line(line)
    axes.autoscale_view()
    if chart.x_range is not None:
        axes.set_xlim(*chart.x_range)
    else:
        axes.margins(x=0.08)
    if chart.log_x:
        axes.set_xscale("log")
        axes.minorticks_off()
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    if chart.x_ticks is not None:
        axes.set_xticks([place for place, _ in chart.x_ticks], [name for _, name in chart.x_ticks])
    if not chart.y_ticks:
        axes.set_yticks([])
    low, high = axes.get_xlim()
    for note in chart.notes:
        _name(axes, note, (low + high) / 2)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    if listed:
        columns = 1 if max(len(series.label) for series in listed) > 40 else 2
        figure.legend(
            handles=[_line(series) for series in listed[:MOST_IN_KEY]],
            frameon=False,
            fontsize=9,
            loc="outside lower left",
            ncols=columns,
        )
    return _svg(figure, chart.name, chart.title)


@dataclass(frozen=True, kw_only=True)
class Square:
    """A pair in the drawing of a shelf."""

    encoder: str
    decoder: str
    bd_rate_pct: float | None  # None: not scored, or not valid
    front: bool
    joined: bool


def shelf(squares: Sequence[Square]) -> str:
    """Encoders over decoders, both from small to large in the order of `squares`, with BD-rate as colour."""
    decoders = list(dict.fromkeys(square.decoder for square in squares))
    encoders = list(dict.fromkeys(square.encoder for square in squares))
    figure, axes = _axes(2.4 + 1.05 * len(decoders), 1.6 + 0.55 * len(encoders))
    axes.grid(visible=False)
    rates = sorted(square.bd_rate_pct for square in squares if square.bd_rate_pct is not None)
    # by rank: a few bad pairs would take all of the colours
    for square in squares:
        x, y = decoders.index(square.decoder), encoders.index(square.encoder)
        rate = square.bd_rate_pct
        share = 0.0 if rate is None else rates.index(rate) / max(1, len(rates) - 1)
        colour = "none" if rate is None else colormaps["viridis_r"](0.08 + 0.8 * (1 - share))
        axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="none"))
        if square.front:
            axes.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor=ORANGE, linewidth=2.4))
        text = "-" if rate is None else f"{rate:+.1f}" + (" *" if square.joined else "")
        dark = rate is not None and share < 0.45
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
    axes.set_xlim(-0.6, len(decoders) - 0.4)
    axes.set_ylim(-0.6, len(encoders) - 0.4)
    axes.set_xticks(range(len(decoders)), decoders)
    axes.set_yticks(range(len(encoders)), encoders)
    axes.set_xlabel("decoder, kMACs per pixel")
    axes.set_ylabel("encoder, kMACs per pixel")
    scored = [square for square in squares if square.bd_rate_pct is not None]
    title = f"BD-rate of {len(scored)} pairs: {len(encoders)} encoders over {len(decoders)} decoders"
    return _svg(figure, "shelf", title)


def _line(series: Series, places: tuple[list[float], list[float]] = ([], [])) -> Line2D:
    """A series as it is drawn; without places, its entry in the key."""
    look, label = series.look, series.label
    return Line2D(
        *places,
        label=label if len(label) <= 90 else label[:87] + "...",
        drawstyle=STEPS[look.step],
        color=look.colour,
        linestyle=STROKES[look.line],
        linewidth=look.width,
        alpha=look.opacity,
        marker=SYMBOLS[look.symbol],
        markersize=look.size,
        markerfacecolor=look.colour if look.filled else "none",
        markeredgecolor=INK if look.outlined else look.colour,
        markeredgewidth=1.6 if look.outlined else 0.0 if look.filled else 1.2,
    )


def _name(axes: Axes, note: Note, middle: float) -> None:
    """Towards the middle and below the staircase, which goes right from a mark; over the line of the next step."""
    side, away = ("left", 8) if note.x < middle else ("right", -8)
    ground = {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    axes.annotate(
        note.text,
        (note.x, note.y),
        (away, -6 - 11 * note.line),
        textcoords="offset points",
        fontsize=8,
        color=INK,
        va="top",
        ha=side,
        bbox=ground,
        zorder=5,
    )


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, name: str, title: str) -> str:
    """The <svg> element; the same figure gives the same bytes, and no id of another figure on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\1{name}-", text[text.index("<svg") :])
    named = f'<svg role="img" aria-labelledby="{name}-title"'
    return re.sub("<svg([^>]*)>", rf'{named}\1><title id="{name}-title">{_plain(title)}</title>', text, count=1)


def _plain(text: str) -> str:
    """Escaped for XML, and for what `re.sub` puts in."""
    return escape(text).replace("\\", r"\\")
