"""The report's figures as SVG elements (matplotlib without pyplot: no state, no display)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import matplotlib
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, QUIET, GRID = "#1f2430", "#5c6475", "#e3e7ee"
BLUE, ORANGE = "#2563b8", "#d9730d"
Curve = Sequence[tuple[float, float]]  # (bpp, quality in dB)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A trial in the Pareto scatter."""

    name: str
    kmacs_per_pixel: float
    bd_rate_pct: float
    control: bool
    stopped: bool
    front: bool


class _Marker(TypedDict, total=False):
    """How a trial is drawn: arguments of matplotlib's `scatter`."""

    s: float  # square points
    facecolors: str
    edgecolors: str
    linewidths: float  # points
    alpha: float
    marker: str
    zorder: int


KEY: Mapping[str, _Marker] = {
    "on the front": {"s": 90, "facecolors": BLUE, "edgecolors": INK, "linewidths": 1.6},
    "finished": {"s": 42, "facecolors": BLUE, "edgecolors": "none", "alpha": 0.75},
    "stopped early": {"s": 34, "facecolors": "none", "edgecolors": BLUE, "linewidths": 1.1},
    "control (square)": {"s": 42, "facecolors": ORANGE, "edgecolors": "none", "marker": "s"},
    "control, stopped": {"s": 34, "facecolors": "none", "edgecolors": ORANGE, "linewidths": 1.1, "marker": "s"},
    "off the scale": {"s": 34, "facecolors": "none", "edgecolors": QUIET, "linewidths": 1.1, "marker": "^"},
}


def rate_distortion(
    anchor: Curve,
    front: Sequence[tuple[str, Curve]],
    control: tuple[str, Curve] | None,
    anchor_name: str,
    quality: str = "PSNR, dB",
) -> str:
    """RD curves: the front's from light to dark as they cost more, the anchor dashed, a control dotted."""
    figure, axes = _axes(8.8, 4.6)
    axes.plot(*zip(*anchor, strict=True), color=INK, linestyle=(0, (5, 3)), linewidth=1.6, label=anchor_name)
    for place, (name, points) in enumerate(front):
        colour = colormaps["viridis_r"](0.2 + 0.75 * place / max(1, len(front) - 1))
        axes.plot(
            *zip(*sorted(points), strict=True), color=colour, marker="o", markersize=4.5, linewidth=1.8, label=name
        )
    if control:
        name, points = control
        axes.plot(*zip(*sorted(points), strict=True), color=ORANGE, marker="s", markersize=4, linestyle=":", label=name)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(quality)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return _svg(figure, "rate-distortion")


def pareto(dots: Sequence[Dot]) -> str:
    """BD-rate over complexity. Trials far above those that matter are drawn as arrows at the upper edge."""
    figure, axes = _axes(8.8, 4.8)
    shown = [dot.bd_rate_pct for dot in dots if dot.front or not dot.stopped] or [dot.bd_rate_pct for dot in dots]
    if shown:
        span = max(max(shown) - min(shown), 2.0)
        low, top = min(min(shown), *(dot.bd_rate_pct for dot in dots)) - 0.12 * span, max(shown) + 0.35 * span
        axes.set_ylim(low, top)
        middle = (min(dot.kmacs_per_pixel for dot in dots) + max(dot.kmacs_per_pixel for dot in dots)) / 2
        for dot in dots:
            _draw(axes, dot, top, span, middle)
        front = sorted((dot.kmacs_per_pixel, dot.bd_rate_pct) for dot in dots if dot.front)
        if front:
            axes.step(*zip(*front, strict=True), where="post", color=BLUE, linewidth=1.2, alpha=0.5, zorder=1)
    axes.margins(x=0.12)
    for label, marker in KEY.items():
        axes.scatter([], [], label=label, **marker)
    axes.set_xlabel("kMACs per pixel, coding and decoding")
    axes.set_ylabel("BD-rate against the anchor, %")
    axes.legend(
        frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, labelspacing=0.8
    )
    return _svg(figure, "pareto")


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
    return _svg(figure, "shelf")


def _draw(axes: Axes, dot: Dot, top: float, span: float, middle: float) -> None:
    colour = ORANGE if dot.control else BLUE
    style: _Marker = {
        "s": 90 if dot.front else 34 if dot.stopped else 42,
        "facecolors": "none" if dot.stopped and not dot.front else colour,
        "edgecolors": INK if dot.front else colour if dot.stopped else "none",
        "linewidths": 1.6 if dot.front else 1.1,
        "marker": "s" if dot.control else "o",
        "zorder": 3 if dot.front else 2,
    }
    height = dot.bd_rate_pct
    if height > top - 0.03 * span:
        style["marker"] = "^"
        height = top - 0.05 * span
    axes.scatter([dot.kmacs_per_pixel], [height], **style)
    if dot.front:
        side, away = ("left", 8) if dot.kmacs_per_pixel < middle else ("right", -8)
        place, text = (dot.kmacs_per_pixel, height), dot.name
        axes.annotate(text, place, (away, -5), textcoords="offset points", fontsize=8, color=INK, va="top", ha=side)


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


def _svg(figure: Figure, name: str) -> str:
    """The <svg> element; the same figure gives the same bytes, and no id of another figure on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r'( id="| xlink:href="#|url\(#)', rf"\1{name}-", text[text.index("<svg") :])
