"""Draws a photograph as several codecs give it at equal bits: docs/results-grid.png.

python -m benchmarks.whole.grid
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import use
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.common.command import exit_code
from benchmarks.common.facts import ROOT
from benchmarks.whole.shipped import SHELF
from benchmarks.whole.teachers import FOLDER, A
from lic_codec import pictures, targets
from lic_codec.classical import CLASSICAL, needs_jpeg_xl
from lic_codec.codec import Rgb
from lic_codec.metrics import psnr_db
from lic_codec.opening import opened
from orchestrator.report.chart import INK
from orchestrator.spec.messages import Parser

PHOTOGRAPH = ROOT / "data" / "quickstart" / "validation" / "red_eyed_tree_frog.webp"
BPP = 0.6
COLUMNS = 4


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A photograph as a codec gives it.

    Attributes:
        title: to be read.
        rgb: uint8 [H, W, 3].
        stream_bytes: None: the original.
    """

    title: str
    rgb: Rgb
    stream_bytes: int | None = None


def main() -> int:
    Parser(description=__doc__.partition("\n")[0]).parse_args()
    use("Agg")
    original = pictures.read(PHOTOGRAPH).rgb
    needs_jpeg_xl()
    most = int(BPP * original.shape[0] * original.shape[1] / 8)
    panels = [Panel(title="original", rgb=original)]
    panels += [_classical(name, original, most) for name in ("jpeg", "webp", "jxl")]
    panels.append(_learned("teacher", str(FOLDER / f"{A}.safetensors"), original))
    panels += [_learned(file.stem, str(file), original) for file in sorted(SHELF.glob("*.zip"))]
    draw(panels).savefig(ROOT / "docs" / "results-grid.png", metadata={"Software": None})
    return 0


def draw(panels: Sequence[Panel]) -> Figure:
    """The panels in rows; the first one is what PSNR is against."""
    original, rows = panels[0].rgb, -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.95 * rows), dpi=100)
    figure.set_layout_engine("constrained", h_pad=0.1)  # in inches: titles of the first row are cut off otherwise
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.imshow(panel.rgb, interpolation="lanczos")
        axes.set_axis_off()
        said = panel.title
        if panel.stream_bytes is not None:
            bpp = 8 * panel.stream_bytes / (original.shape[0] * original.shape[1])
            said += f"\n{panel.stream_bytes:,} bytes, {bpp:.2f} bpp, {psnr_db(original, panel.rgb):.2f} dB"
        axes.set_title(said, fontsize=9, color=INK)
    return figure


def _classical(name: str, rgb: Rgb, most: int) -> Panel:
    """At the highest quality whose file has at most so many bytes; the lowest quality, if none has."""
    codec = CLASSICAL[name]
    stream = b""
    for quality in range(1, 96):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, codec.kind, quality=quality, **codec.options)
        if not stream or len(buffer.getvalue()) <= most:
            stream = buffer.getvalue()
    with Image.open(io.BytesIO(stream), formats=(codec.kind,)) as image:
        return Panel(title=codec.title, rgb=np.asarray(image.convert("RGB")), stream_bytes=len(stream))


def _learned(title: str, model: str, rgb: Rgb) -> Panel:
    codec = opened(model, 1)
    stream = targets.encode(codec, rgb, targets.Target(bpp=BPP))
    return Panel(title=title, rgb=codec.decode(stream), stream_bytes=len(stream))


if __name__ == "__main__":
    sys.exit(exit_code(main))
