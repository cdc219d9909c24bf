"""The report's figures as SVG elements, for paper and where no script runs (matplotlib without pyplot: no state)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from orchestrator.report.chart import (
    CELL_HEIGHT,
    CELL_WIDTH,
    GRID,
    INK,
    ORANGE,
    QUIET,
    SCALE,
    Chart,
    Grid,
    Look,
    Note,
    Series,
    Step,
    Stroke,
    Symbol,
)

SYMBOLS: Mapping[Symbol | None, Literal["o", "s", "^", "v", "*", "none"]] = {
    "circle": "o",
    "square": "s",
    "up": "^",
    "down": "v",
    "star": "*",
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
    if chart.grid is not None and any(cell.framed for cell in chart.grid.cells):
        frame = Look(colour=ORANGE, symbol="square", filled=False, size=9)
        listed = [Series(label=chart.grid.frame, look=frame, marks=()), *listed]
    figure, axes = _axes(*_size(chart, listed))
    if chart.grid is not None:
        _draw_grid(figure, axes, chart.grid)
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
    if chart.y_ticks is not None:
        axes.set_yticks([place for place, _ in chart.y_ticks], [name for _, name in chart.y_ticks])
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


def _draw_grid(figure: Figure, axes: Axes, grid: Grid) -> None:
    axes.grid(visible=False)
    norm, colours = Normalize(*grid.ends, clip=True), LinearSegmentedColormap.from_list("scale", SCALE)
    for cell in grid.cells:
        colour = "none" if cell.value is None else colours(norm(cell.value))
        place = (cell.x - CELL_WIDTH / 2, cell.y - CELL_HEIGHT / 2)
        axes.add_patch(Rectangle(place, CELL_WIDTH, CELL_HEIGHT, facecolor=colour, edgecolor="none"))
        if cell.framed:
            axes.add_patch(Rectangle(place, CELL_WIDTH, CELL_HEIGHT, fill=False, edgecolor=ORANGE, linewidth=2.4))
        axes.text(cell.x, cell.y, cell.shown, ha="center", va="center", fontsize=9, color=grid.letters(cell))
    if not grid.ticks:
        return
    scale = figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, location="top", shrink=0.6, aspect=40, anchor=(0.0, 0.0)
    )
    scale.set_ticks([value for value, _ in grid.ticks], labels=[name for _, name in grid.ticks], fontsize=9)
    scale.set_label(grid.label, color=INK, labelpad=7)
    scale.outline.set_visible(False)


def _size(chart: Chart, listed: Sequence[Series]) -> tuple[float, float]:
    """Inches."""
    key = 0.19 * min(len(listed), MOST_IN_KEY)
    if chart.grid is None:
        return 8.8, 4.6 + key
    columns, rows = (
        len({place(cell) for cell in chart.grid.cells}) for place in (lambda cell: cell.x, lambda cell: cell.y)
    )
    return 2.4 + 1.05 * columns, 2.4 + 0.55 * rows + key


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
        markeredgecolor=look.outline[0] if look.outlined else look.colour,
        markeredgewidth=look.outline[1] if look.outlined else 0.0 if look.filled else 1.2,
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
