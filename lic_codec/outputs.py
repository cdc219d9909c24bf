"""An evaluation as files: JSON, a table of all rows in CSV form, and a plot of the curves."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lic_codec.curves import Distortion
from lic_codec.errors import CodecError, missing
from lic_codec.evaluation import Evaluation
from lic_codec.measuring import Row
from lic_codec.pictures import write

PLOTS = (".svg", ".png", ".pdf")
QUALITIES: dict[Distortion, str] = {"mse": "PSNR, dB", "ms-ssim": "MS-SSIM, dB"}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where an evaluation is written; None: not at all."""

    out: Path | None = None
    table: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Before anything is measured.

        A rename puts a result in its place, so anything but a result there, such as weights or a device, would be lost.

        Raises:
            CodecError: a file cannot be written, as far as looking at the disk tells, or the plot's package is missing.
        """
        for option, path, endings in (
            ("--out", self.out, (".json",)),
            ("--csv", self.table, (".csv",)),
            ("--plot", self.plot, PLOTS),
        ):
            if path is not None:
                _check(option, path, endings)
        if self.plot is not None:
            _needs_matplotlib()

    def write(self, evaluation: Evaluation) -> None:
        """Writes them; a reader sees whole files or none. Raises CodecError: a file cannot be written."""
        if self.out is not None:
            document = json.dumps(evaluation.to_json(), indent=1, allow_nan=False)
            _write("--out", self.out, f"{document}\n".encode())
        if self.table is not None:
            _write("--csv", self.table, table(evaluation).encode())
        if self.plot is not None:
            _write("--plot", self.plot, plot(evaluation, self.plot.suffix[1:]))


def table(evaluation: Evaluation) -> str:
    """CSV: a row for each codec, photograph and rate."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["codec", *(field.name for field in fields(Row))], lineterminator="\n")
    writer.writeheader()
    for figures in evaluation.codecs:
        writer.writerows({"codec": figures.name, **asdict(row)} for row in figures.measurement.rows)
    return buffer.getvalue()


def plot(evaluation: Evaluation, kind: str) -> bytes:
    """The mean curves over PSNR, and over MS-SSIM where it was measured; svg, png or pdf.

    Raises:
        CodecError: matplotlib is not installed.
    """
    _needs_matplotlib()
    from matplotlib.figure import Figure

    distortions = evaluation.codecs[0].distortions
    figure = Figure(figsize=(6.4 * len(distortions), 4.8), layout="constrained")
    for place, distortion in enumerate(distortions):
        axes = figure.add_subplot(1, len(distortions), place + 1)
        for figures in evaluation.codecs:
            rates, qualities = zip(*sorted(figures.curve(distortion).points), strict=True)
            axes.plot(rates, qualities, marker="o", markersize=3, label=figures.name)
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel(QUALITIES[distortion])
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def lines(evaluation: Evaluation) -> list[str]:
    """What a terminal is told: the curves, times and memory, BD-rates against files, and a table of BD-rates."""
    several = len(evaluation.codecs) > 1
    said = []
    for figures in evaluation.codecs:
        before = f"{figures.name}: " if several else ""
        for point in figures.points:
            similarity = "" if point.ms_ssim is None else f", MS-SSIM {point.ms_ssim:.5f}"
            said.append(
                f"{before}rate point {point.rate_point}: {point.bpp:.4f} bpp, {point.psnr_db:.3f} dB{similarity}"
            )
        if figures.encode_ms and figures.decode_ms:
            times = f"encode {figures.encode_ms.median:.0f}, decode {figures.decode_ms.median:.0f} ms a megapixel"
            measured = figures.measurement
            peak = measured.peak_memory_mb
            memory = "" if peak is None else f"; peak memory {peak:.0f} MB"
            threads = f"{measured.threads} thread{'s' * (measured.threads > 1)}"
            said.append(f"{before}{times} (medians, {threads} each){memory}")
    said += [compared.line for compared in evaluation.comparisons if compared.file]
    return said + (_matrix(evaluation) if several else [])


def _matrix(evaluation: Evaluation) -> list[str]:
    """BD-rates in percent by PSNR, of the row's codec against the column's."""
    names = [figures.name for figures in evaluation.codecs]
    found = {
        (compared.codec, compared.against): "-" if compared.pct is None else f"{compared.pct:+.1f}"
        for compared in evaluation.comparisons
        if compared.file is None and compared.distortion == "mse"
    }
    width = max(7, *map(len, names))
    rows = [["", *names], *([name, *(found.get((name, other), "") for other in names)] for name in names)]
    title = "BD-rate in % by PSNR, of the row's codec against the column's; below 0 it needs fewer bits"
    return [title, *("  ".join(cell.rjust(width) for cell in row) for row in rows)]


def _needs_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing("matplotlib", "a plot") from None


def _check(option: str, path: Path, endings: Sequence[str]) -> None:
    folder = path.absolute().parent
    if path.suffix not in endings:
        raise CodecError(f"{option} {path}: its name has to end in {', '.join(endings)}")
    if not folder.is_dir():
        raise CodecError(f"{option} {path}: no such folder")
    if path.is_dir():
        raise CodecError(f"{option} {path}: a folder; it has to be a file")
    if path.exists() and not path.is_file():
        raise CodecError(f"{option} {path}: a pipe or a device; it has to be a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CodecError(f"{option} {path}: {folder} cannot be written")


def _write(option: str, path: Path, content: bytes) -> None:
    try:
        write(path, content)
    except OSError as error:  # such as a disk that has become full
        raise CodecError(f"{option} {path}: {error.strerror}") from None
