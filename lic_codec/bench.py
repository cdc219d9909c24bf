"""`lic bench`: models and classical codecs on the same photographs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from lic_codec import outputs
from lic_codec.classical import CLASSICAL, classical
from lic_codec.commands import FORCE, ends_in_one_line, refuse_to_overwrite
from lic_codec.curves import Curve
from lic_codec.errors import CodecError
from lic_codec.evaluation import evaluation, figures, needed_for
from lic_codec.learned import learned
from lic_codec.measuring import distinct, measure
from lic_codec.photographs import digests, survey
from lic_codec.sets import SETS

FILE = click.Path(path_type=Path)
CORES = os.cpu_count() or 1


@click.command()
@click.argument("folder", type=FILE)
@click.option("--model", "models", multiple=True, metavar="MODEL", help="As of encode; several may be given.")
@click.option(
    "--classical", "others", multiple=True, type=click.Choice([*CLASSICAL, "all"]), help="Codecs to run here."
)
@click.option("--against", multiple=True, type=FILE, metavar="CURVE.json", help="A curve of the same photographs.")
@click.option("--published-on", type=click.Choice([*SETS]), help="The set of curves that name none.")
@click.option("--out", type=FILE, metavar="FILE.json", help="Where all figures are written.")
@click.option("--csv", "table", type=FILE, metavar="FILE.csv", help="Where a table of all rows is written.")
@click.option("--plot", type=FILE, metavar="FILE.svg", help="Where the curves are drawn; also .png and .pdf.")
@click.option(
    "--processes", type=click.IntRange(1), default=CORES, show_default="one a core", help="Photographs at a time."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of each process.")
@FORCE
@ends_in_one_line
def bench(
    folder: Path,
    models: Sequence[str],
    others: Sequence[str],
    against: Sequence[Path],
    published_on: str | None,
    out: Path | None,
    table: Path | None,
    plot: Path | None,
    processes: int,
    threads: int,
    force: bool,
) -> None:
    """Measure codecs on a folder of photographs: rate, PSNR, MS-SSIM, time, memory, and BD-rates between them."""
    written = outputs.Outputs(out=out, table=table, plot=plot)
    written.check()
    for place in (out, table, plot):
        if place is not None:
            refuse_to_overwrite(place, force)
    names = list(CLASSICAL) if "all" in others else list(dict.fromkeys(others))
    candidates = distinct([*map(learned, models), *map(classical, names)])
    if not candidates:
        raise CodecError("no codec: --model or --classical is needed")
    photographs = survey(folder)
    curves = [Curve.read(path, published_on=published_on) for path in against]
    for curve in curves:
        curve.check_photographs(digests(photographs))
    needed_for(len(candidates), curves)
    measured = [
        figures(measure(candidate, photographs, processes=processes, threads=threads, progress=click.echo))
        for candidate in candidates
    ]
    result = evaluation(measured, curves)
    written.write(result)
    for line in outputs.lines(result):
        click.echo(line)
