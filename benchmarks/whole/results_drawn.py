"""The drawings of RESULTS.md and the README: docs/results-front.svg and docs/results-curves.svg."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common.facts import ROOT
from benchmarks.whole import gains
from benchmarks.whole import results_tables as tables
from benchmarks.whole.study import Row, images_of
from orchestrator.report.chart import BLUE, GRID, INK, ORANGE, QUIET

PUBLISHED = ROOT / "benchmarks" / "published"
# PRIM's students of N=64, 32 and 16 of 128, against their teacher in percent: interpolated from its fixed-lambda points
PRIM_PCT = {64: 6.5, 32: 29.0, 16: 77.0}
CONTROLS = {gains.RANDOM: ("x", QUIET), gains.SLICE: ("^", QUIET), gains.REFITTED: ("s", BLUE)}
CURVES = {"vtm": ":", "hyperprior": "--", "webp": "-.", "jpeg": (0, (1, 3))}  # published, and how lines look


def front(rows: Sequence[Row], longer: Sequence[Row], teacher_macs: float) -> None:
    """BD-rate against the teacher over the share of its MACs: each student's best method, and the controls beside it.

    Args:
        rows: students of PRIM's cut, all trained on equally many images, coded on the test set.
        longer: the same students, each size of its longest study.
        teacher_macs: per pixel.
    """
    figure, axes = _figure()
    shares = {row["complexity_class"]: 100 * row["macs_per_pixel"] / teacher_macs for row in rows}
    for arm, (marker, colour) in CONTROLS.items():
        look = {"label": tables.titled(arm), "marker": marker, "color": colour, "linestyle": "none"}
        _series(axes, shares, {name: gains.bd_rate(rows, name, arm) for name in shares}, look)
    trained = images_of(rows[0])
    best = {name: gains.bd_rate(rows, name, tables.best(rows, name)) for name in shares}
    label = f"distilled, best method, {trained:,} images"
    _series(axes, shares, best, {"label": label, "marker": "o", "color": ORANGE, "linewidth": 1.6})
    images = {row["complexity_class"]: images_of(row) for row in longer}
    more = [name for name in images if images[name] > trained]
    best = {name: gains.bd_rate(longer, name, tables.best(longer, name)) for name in more}
    label = f"distilled, best method, {max(images.values()):,} images"
    _series(axes, shares, best, {"label": label, "marker": "*", "markersize": 13, "color": ORANGE, "linestyle": "none"})
    published = json.loads((PUBLISHED / "prim.json").read_text(encoding="utf-8"))
    cost = {row[1]: row[4] for row in published["rows"]}
    bits = {N: 1 + pct / 100 for N, pct in {128: 0.0, **PRIM_PCT}.items()}
    # against its own teacher, and against its network of our teacher's width
    for anchor, marker in ((128, "D"), (64, "v")):
        own = [N for N in (64, 32, 16) if anchor > N]
        axes.plot(
            [100 * cost[N] / cost[anchor] for N in own],
            [100 * (bits[N] / bits[anchor] - 1) for N in own],
            label=f"PRIM's N={', '.join(map(str, own))} as published, against its N={anchor}",
            marker=marker,
            markerfacecolor="none",
            color=INK,
            linestyle=":",
            linewidth=1,
        )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    ticks = [5, 10, 20, 30, 50]
    axes.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("multiply-accumulates, share of the teacher's")
    axes.set_ylabel("BD-rate against the teacher on Kodak, %")
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    _save(figure, "results-front")


def curves(codecs: Sequence[Mapping[str, Any]]) -> None:
    """Rate-distortion curves on the test set, beside published ones.

    Args:
        codecs: each with `name` and `points`.
    """
    figure, axes = _figure()
    for name, line in CURVES.items():
        published = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
        rates, psnr = published["results"]["bpp"], published["results"]["psnr-rgb"]
        axes.plot(rates, psnr, linestyle=line, color=QUIET, label=f"{published['name']}, published")
    for codec in codecs:
        points = sorted((point["bpp"], point["psnr_db"]) for point in codec["points"])
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=codec["name"])
    axes.set_xlim(0.1, 1.1)
    axes.set_ylim(25, 38)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel("PSNR in RGB, dB")
    axes.legend(frameon=False, fontsize=9)
    _save(figure, "results-curves")


def _series(
    axes: Axes, shares: Mapping[str, float], spreads: Mapping[str, gains.OverSeeds], look: Mapping[str, Any]
) -> None:
    """Means with their range over seeds, by cost; a student without a BD-rate is left out."""
    known = [
        (shares[name], spread.mean, spread.mean - spread.least, spread.most - spread.mean)
        for name, spread in sorted(spreads.items(), key=lambda item: shares[item[0]])
        if spread.mean is not None and spread.least is not None and spread.most is not None
    ]
    if known:
        x, y, below, above = zip(*known, strict=True)
        axes.errorbar(x, y, yerr=[below, above], capsize=3, **look)


def _figure() -> tuple[Figure, Axes]:
    matplotlib.use("Agg")
    figure = Figure(figsize=(8.8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color=GRID)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, name: str) -> None:
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(ROOT / "docs" / f"{name}.svg", metadata={"Date": None})
