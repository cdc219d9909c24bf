"""The report's tables of single photographs, and crops of two of them for the eye."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from orchestrator.evaluation.bd_rate import BDRate, Point, bd_rate
from orchestrator.evaluation.metric import CurvePoint, Measured, Metric, ms_ssim_db
from orchestrator.report.html import html_table
from orchestrator.report.run_files import RunFiles
from orchestrator.results.pictures import Picture, Scene

MOST_ROWS = 600  # of the table of all rows: a page has at most 5 MB
PER_PHOTOGRAPH = """
BD-rate in % of each photograph's own curve against the anchor's curve of the same photograph, real bitstreams. Empty:
less than half of the curve's range is in the anchor's, or one is not valid. The sweep's BD-rate is that of the mean
curves, not the mean of these.
"""
AT_ONE_RATE = """
Two validation crops, the one that took the anchor the fewest bits and the one that took it the most, after each codec
at one rate, or as near as it comes. Real bitstreams; rate and quality are those of the whole crop. The pictures are
kept without loss: what you see is what was decoded.
"""


def photographs_section(run: RunFiles) -> list[str]:
    """The section's elements; none if nothing was coded photograph by photograph."""
    found = []
    if run.pictures is not None and run.pictures.scenes:
        found += ["<h2>Two photographs at equal rate</h2>", f"<p>{AT_ONE_RATE}</p>", *map(_scene, run.pictures.scenes)]
    measured = run.measured()
    if run.anchor.teacher in measured and len(measured) > 1:
        found += ["<h2>Photograph by photograph</h2>", f"<p>{PER_PHOTOGRAPH}</p>", gains_table(run)]
    if measured:
        found.append(
            f"<details><summary>Bits per pixel, {run.metric.label} in dB: each photograph at each rate point</summary>"
            f"{rows_table(run)}</details>"
        )
    return found


def gains_table(run: RunFiles) -> str:
    """Photographs over codecs, and the mean and the spread of each codec."""
    measured = run.measured()
    anchors = _curves(run.metric, measured.pop(run.anchor.teacher))
    rates: dict[str, dict[str, float | None]] = {}
    for name, found in measured.items():
        curves = _curves(run.metric, found)
        rates[name] = {photograph: _rate(anchors[photograph], curve) for photograph, curve in curves.items()}
    rows = [[photograph, *(_signed(rates[name].get(photograph)) for name in rates)] for photograph in anchors]
    valid = {name: [value for value in of_codec.values() if value is not None] for name, of_codec in rates.items()}
    rows.append(["mean of those that have one", *(_signed(statistics.fmean(v) if v else None) for v in valid.values())])
    rows.append(["from", *(_signed(min(v, default=None)) for v in valid.values())])
    rows.append(["to", *(_signed(max(v, default=None)) for v in valid.values())])
    return html_table(["photograph", *rates], rows, left=1, what="BD-rate of each photograph")


def rows_table(run: RunFiles) -> str:
    """Each photograph and codec: bits per pixel and quality at each rate point, the lowest rate first."""
    rows = []
    measured = run.measured()
    photographs = list(dict.fromkeys(row.photograph for found in measured.values() for row in found))
    for photograph in photographs:
        for name, found in measured.items():
            own = sorted((row for row in found if row.photograph == photograph), key=lambda row: row.bpp)
            told = [f"{row.bpp:.3f}, {_quality(run.metric, row)}" for row in own]
            rows.append([photograph, name, *told])
    most = max(map(len, rows))
    shown = [row + [""] * (most - len(row)) for row in rows[:MOST_ROWS]]
    rest = (
        f'<p class="quiet">{len(rows) - MOST_ROWS} more rows are in coded/*.json.</p>' if len(rows) > MOST_ROWS else ""
    )
    head = ["photograph", "codec", *(f"rate {place + 1}" for place in range(most - 2))]
    return html_table(head, shown, left=2, what="each photograph at each rate point") + rest


def _curves(metric: Metric, rows: Sequence[Measured]) -> dict[str, list[Point]]:
    """Photograph -> its curve, in the order of the photographs."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        fields = {"rate_point": row.rate_point, "bpp": row.bpp, "psnr_db": row.psnr_db, "mse": row.mse}
        point = CurvePoint(**fields, ms_ssim=row.ms_ssim)
        if metric.distortion == "mse" or row.ms_ssim is not None:
            found.setdefault(row.photograph, []).append(metric.pair(point))
    return found


def _rate(anchor: Sequence[Point], curve: Sequence[Point]) -> float | None:
    result = bd_rate(anchor, curve)
    return result.pct if isinstance(result, BDRate) else None


def _quality(metric: Metric, row: Measured) -> str:
    if metric.distortion == "mse" or row.ms_ssim is None:
        return f"{row.psnr_db:.2f}"
    return f"{ms_ssim_db(row.ms_ssim):.2f}"


def _scene(scene: Scene) -> str:
    original = Picture(name="original", bpp=24.0, psnr_db=100.0, webp=scene.original)
    figures = "".join(_figure(scene, picture) for picture in (original, *scene.pictures))
    return f'<h3>{escape(scene.photograph)}: {escape(scene.why)}</h3><div class="crops">{figures}</div>'


def _figure(scene: Scene, picture: Picture) -> str:
    name = escape(picture.name)
    told = "24 bpp" if picture.webp is scene.original else f"{picture.bpp:.3f} bpp, {picture.psnr_db:.2f} dB PSNR"
    image = (
        f'<img src="data:image/webp;base64,{escape(picture.webp)}" alt="{name}, {escape(scene.photograph)}: {told}">'
    )
    return f"<figure>{image}<figcaption>{name}<span>{told}</span></figcaption></figure>"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
