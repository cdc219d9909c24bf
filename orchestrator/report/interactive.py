"""A chart as what Plotly draws in the page; see assets/report.js for colours at night and the keyboard."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from orchestrator.report.chart import GRID, INK, QUIET, Chart, Look, Note, Series

ASSETS = Path(__file__).with_name("assets")
# plotly.js-basic-dist-min 4.1.1 of npm (MIT, see plotly-LICENSE), the version that the Python package speaks to. The
# package's own file has 4.8 MB, about what a page may have in all, and scatter plots are all that is drawn.
LIBRARY, LIBRARY_SHA256 = "plotly-basic.min.js", "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
SHAPES = {"right first": "hv", "right last": "vh", None: "linear"}
SYMBOLS = {"circle": "circle", "square": "square", "up": "triangle-up", "down": "triangle-down"}
FONT = {"family": "system-ui, sans-serif", "size": 12, "color": INK}


@cache
def asset(name: str) -> str:
    """The text of a file in assets/."""
    return (ASSETS / name).read_text(encoding="utf-8")


def figure_json(chart: Chart) -> str:
    """Plotly's figure, as JSON that may stand inside a <script> element."""
    x_axis = _axis(chart.x_label) | ({"type": "log"} if chart.log_x else {})
    if chart.x_ticks is not None:
        names = [_lines(name) for _, name in chart.x_ticks]
        x_axis |= {"tickmode": "array", "tickvals": [place for place, _ in chart.x_ticks], "ticktext": names}
    if chart.x_range is not None:
        x_axis["range"] = chart.x_range
    y_axis = _axis(chart.y_label) | {"showticklabels": chart.y_ticks}
    if chart.y_range is not None:
        y_axis["range"] = chart.y_range
    layout = go.Layout(
        template=go.layout.Template(),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font=FONT,
        height=460,
        margin={"l": 60, "r": 20, "t": 16, "b": 50},
        hovermode="closest",
        hoverlabel={"align": "left", "bgcolor": "#ffffff", "bordercolor": QUIET, "font": FONT},
        legend={"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0, "itemsizing": "trace"},
        xaxis=x_axis,
        yaxis=y_axis,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": INK},
        annotations=[_note(note, chart) for note in chart.notes],
    )
    text: str = go.Figure([_trace(series) for series in chart.series], layout).to_json()
    return text.replace("<", "\\u003c")


def _axis(label: str) -> dict[str, object]:
    lines = {"gridcolor": GRID, "linecolor": QUIET, "zeroline": False, "ticks": "outside", "tickcolor": QUIET}
    return {"title": {"text": _plain(label), "standoff": 12}, "automargin": True, **lines}


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
    edge = {"color": INK if look.outlined else look.colour, "width": 1.6 if look.outlined or not look.filled else 0}
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
