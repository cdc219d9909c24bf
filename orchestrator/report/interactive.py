"""A chart as what Plotly draws in the page; see assets/report.js for colours at night and the keyboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from orchestrator.report.chart import (
    CELL_HEIGHT,
    CELL_WIDTH,
    GRID,
    INK,
    ORANGE,
    QUIET,
    SCALE,
    Cell,
    Chart,
    Grid,
    Look,
    Note,
    Series,
)

ASSETS = Path(__file__).with_name("assets")
# plotly.js-basic-dist-min 4.1.1 of npm (MIT, see plotly-LICENSE), the version that the Python package speaks to. The
# package's own file has 4.8 MB, about what a page may have in all, and scatter plots and bars are all that is drawn: it
# has no heatmaps, so a grid is of bars, each a cell.
LIBRARY, LIBRARY_SHA256 = "plotly-basic.min.js", "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
SHAPES = {"right first": "hv", "right last": "vh", None: "linear"}
SYMBOLS = {"circle": "circle", "square": "square", "up": "triangle-up", "down": "triangle-down", "star": "star"}
CLEAR = "rgba(0,0,0,0)"
FONT = {"family": "system-ui, sans-serif", "size": 12, "color": INK}


@cache
def asset(name: str) -> str:
    """The text of a file in assets/."""
    return (ASSETS / name).read_text(encoding="utf-8")


def figure_json(chart: Chart, *others: Chart) -> str:
    """Plotly's figure, as JSON that may stand inside a <script> element.

    Args:
        chart: the figure.
        others: views of it, whose series have the same marks at other x. With them there is a field `views`, the
            figure's own first: the title, each series' x, and the layout.
    """
    text: str = go.Figure(_traces(chart), _layout(chart)).to_json()
    if others:
        views = [
            {
                "title": view.title,
                "x": [[mark.x for mark in series.marks] for series in view.series],
                "layout": _layout(view).to_plotly_json(),
            }
            for view in (chart, *others)
        ]
        text = f'{text[:-1]},"views":{json.dumps(views)}}}'
    return text.replace("<", "\\u003c")


def _traces(chart: Chart) -> list[go.Bar | go.Scatter]:
    return [*(_grid(chart.grid) if chart.grid else []), *map(_trace, chart.series)]


def _layout(chart: Chart) -> go.Layout:
    x_axis = _axis(chart.x_label, chart.x_ticks, chart.x_range) | ({"type": "log"} if chart.log_x else {})
    y_axis = _axis(chart.y_label, chart.y_ticks, chart.y_range)
    if chart.grid is not None:
        x_axis["showgrid"] = y_axis["showgrid"] = False
    return go.Layout(
        template=go.layout.Template(),
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font=FONT,
        height=460,
        margin={"l": 60, "r": 20, "t": 16, "b": 50},
        hovermode="closest",
        hoverlabel={"align": "left", "bgcolor": "#ffffff", "bordercolor": QUIET, "font": FONT},
        legend={"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0, "itemsizing": "trace"},
        xaxis=x_axis,
        yaxis=y_axis,
        modebar={"bgcolor": CLEAR, "color": QUIET, "activecolor": INK},
        barmode="overlay",
        uniformtext={"minsize": 7, "mode": "hide"},
        annotations=[_note(note, chart) for note in chart.notes],
    )


Ticks = Sequence[tuple[float, str]]


def _axis(label: str, ticks: Ticks | None, limits: tuple[float, float] | None) -> dict[str, object]:
    axis: dict[str, object] = {
        "title": {"text": _plain(label), "standoff": 12},
        "automargin": True,
        "gridcolor": GRID,
        "linecolor": QUIET,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": QUIET,
        "exponentformat": "none",  # no k and no M beside a unit
        "separatethousands": True,
    }
    if ticks is not None:
        names = [_lines(name) for _, name in ticks]
        axis |= {"tickmode": "array", "tickvals": [place for place, _ in ticks], "ticktext": names}
    if limits is not None:
        axis["range"] = limits
    return axis


def _grid(grid: Grid) -> list[go.Bar]:
    """Cells with a value, cells without one, and frames."""
    valued = [cell for cell in grid.cells if cell.value is not None]
    others = [cell for cell in grid.cells if cell.value is None]
    framed = [cell for cell in grid.cells if cell.framed]
    found = []
    for cells in filter(None, (valued, others)):
        bars = _bars(cells)
        found.append(
            bars.update(
                text=[_plain(cell.shown) for cell in cells],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                insidetextfont={"color": [grid.letters(cell) for cell in cells], "size": 12},
                hovertext=[_lines(cell.text, bold=True) for cell in cells],
                hovertemplate="%{hovertext}<extra></extra>",
                showlegend=False,
                marker={"color": CLEAR} if cells is others else _scale(grid, cells),
            )
        )
    if framed:
        line = {"color": ORANGE, "width": 3}
        found.append(
            _bars(framed).update(name=_plain(grid.frame), hoverinfo="skip", marker={"color": CLEAR, "line": line})
        )
    return found


def _bars(cells: Sequence[Cell]) -> go.Bar:
    return go.Bar(
        x=[cell.x for cell in cells],
        base=[cell.y - CELL_HEIGHT / 2 for cell in cells],
        y=[CELL_HEIGHT] * len(cells),
        width=CELL_WIDTH,
    )


def _scale(grid: Grid, cells: Sequence[Cell]) -> dict[str, object]:
    """Colours of cells, and the scale of them above the figure, where a narrow page has room for it."""
    low, high = grid.ends
    ticks = {"tickvals": [place for place, _ in grid.ticks], "ticktext": [_plain(name) for _, name in grid.ticks]}
    return {
        "color": [cell.value for cell in cells],
        "colorscale": [(place / (len(SCALE) - 1), colour) for place, colour in enumerate(SCALE)],
        "cmin": low,
        "cmax": high,
        "showscale": True,
        "colorbar": {
            "title": {"text": _plain(grid.label), "side": "top", "font": {"size": 12}},
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "len": 0.75,
            "thickness": 12,
            "outlinewidth": 0,
            **ticks,
        },
    }


def _trace(series: Series) -> go.Scatter:
    look = series.look
    modes = [*(["lines"] if look.line else []), *(["markers"] if look.symbol else [])]
    pointed_at = any(mark.text for mark in series.marks)
    return go.Scatter(
        x=[mark.x for mark in series.marks],
        y=[mark.y for mark in series.marks],
        text=[_lines(mark.text, bold=True) for mark in series.marks],
        hovertemplate="%{text}<extra></extra>" if pointed_at else None,
        hoverinfo=None if pointed_at else "skip",
        mode="+".join(modes),
        name=_plain(series.label),
        legendgroup=series.label,
        showlegend=series.listed,
        opacity=look.opacity,
        marker=_marker(look) if look.symbol else None,
        line={
            "color": look.colour,
            "width": look.width,
            "dash": {"dash": "dash", "dot": "dot"}.get(look.line, "solid"),
            "shape": SHAPES[look.step],
        }
        if look.line
        else None,
    )


def _marker(look: Look) -> dict[str, object]:
    symbol = SYMBOLS[look.symbol or "circle"] + ("" if look.filled else "-open")
    colour, width = look.outline if look.outlined else (look.colour, 0.0 if look.filled else 1.6)
    edge = {"color": colour, "width": width}
    return {"symbol": symbol, "size": look.size * 1.25, "color": look.colour, "line": edge}


def _note(note: Note, chart: Chart) -> dict[str, object]:
    """Left of the middle a name begins at its mark, right of it it ends there: below the line and on its own ground."""
    places = [mark.x for series in chart.series for mark in series.marks]
    side = "left" if note.x < (min(places) + max(places)) / 2 else "right"
    away = {"left": 6, "right": -6}[side]
    return {
        "x": note.x,
        "y": note.y,
        "text": _plain(note.text),
        "showarrow": False,
        "xanchor": side,
        "yanchor": "top",
        "xshift": away,
        "yshift": -7 - 14 * note.line,
        "font": {"size": 11, "color": INK},
        "bgcolor": "rgba(255,255,255,0.7)",
    }


def _lines(text: str, *, bold: bool = False) -> str:
    """A text of several lines as Plotly writes it; nothing in it is taken for a tag."""
    first, *others = map(_plain, text.split("\n"))
    return "<br>".join([f"<b>{first}</b>" if bold and first else first, *others])


def _plain(text: str) -> str:
    """Escaped for Plotly, which takes <, > and & for those of HTML, and quotes for themselves."""
    return escape(text, quote=False)
