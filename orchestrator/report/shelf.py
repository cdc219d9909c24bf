"""The report's section on a shelf: its pairs, whether their halves add up, and who reads whose streams."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from html import escape
from operator import attrgetter, itemgetter

from orchestrator.evaluation.front import axes_of, pareto_front
from orchestrator.report.chart import DARK, Cell, Chart, Grid, Look, Mark, Series
from orchestrator.report.costs import costs_in_words, front_of
from orchestrator.report.html import html_table
from orchestrator.report.run_files import RunFiles, bd_rate_of
from orchestrator.results.interchange import Interchange
from orchestrator.results.shelf import Pair, ShelfFile
from orchestrator.spec.sections import Half

PAIRS = """
Every encoder with every decoder, none of them trained together: BD-rate in % against the anchor, rates estimated. A
frame: on the front of {axes}. A star: trained on as a whole; those are chosen by cost J, which small pairs have too.
The teacher's own halves are on the shelf as well.
"""
JOINED, STAR = "trained on as a whole", "#ffd21f"  # seen on every colour of the scale
# Colours end so many times as far above the best pair as the median is: half of the pairs have a third of them, and a
# few that are worse by hundreds of percent do not take all.
REACH = 3
ADDITIVITY = """
BD-rate of a pair, less the sum of that of its encoder with the teacher's decoder and that of its decoder with the
teacher's encoder, in points. Where that is near 0, E + D curves predict E x D pairs.
"""
EXCHANGE = """
Real bitstreams of each encoder of the front (rows), decoded by each decoder that has the same entropy model (columns):
BD-rate in % against the anchor.
"""


def shelf_section(run: RunFiles, figure: Callable[[Chart], str]) -> list[str]:
    """The section's elements; none for a sweep without encoders and decoders.

    Args:
        run: the run folder's files.
        figure: makes an element of a chart.
    """
    if run.shelf is None:
        return []
    found = [
        "<h2>Shelf: every encoder with every decoder</h2>",
        f"<p>{escape(PAIRS.format(axes=front_of(run.axes)))}</p>",
        figure(pairs_chart(run, run.shelf)),
        "<h3>Are halves additive?</h3>",
        f"<p>{ADDITIVITY}</p>",
        f"<p>{in_words(run.shelf)}</p>",
        additivity_table(run.shelf),
    ]
    if run.interchange is not None:
        found += ["<h3>One bitstream</h3>", f"<p>{EXCHANGE}</p>", exchange_table(run.interchange)]
    return found


def in_words(shelf: ShelfFile) -> str:
    """How good the prediction was."""
    errors = [error for pair in shelf.pairs if (error := pair.prediction_error) is not None]
    if not errors:
        return "No pair was both predicted and scored."
    worst = max(errors, key=abs)
    mean = statistics.fmean(map(abs, errors))
    return f"{len(errors)} pairs: the sum was off by {mean:.1f} points in the mean, by {worst:+.1f} at worst."


def additivity_table(shelf: ShelfFile) -> str:
    """Encoders over decoders, scored less predicted."""
    whole = [pair for pair in shelf.pairs if pair.of_trained_halves]
    errors = {(pair.encoder_N, pair.decoder_N): pair.prediction_error for pair in whole}
    encoders, decoders = (sorted({key[place] for key in errors}) for place in (0, 1))
    rows = []
    for encoder in encoders:
        values = [errors.get((encoder, decoder)) for decoder in decoders]
        rows.append([f"encoder n{encoder}", *("" if value is None else f"{value:+.1f}" for value in values)])
    return html_table(["", *(f"decoder n{decoder}" for decoder in decoders)], rows, left=1, what="errors of the sum")


def exchange_table(interchange: Interchange) -> str:
    """Encoders over decoders; empty where they have different entropy models."""
    names = list(interchange.weights)
    found = {(entry.encoder, entry.decoder): entry for entry in interchange.exchanges}
    rows = []
    for encoder in names:
        row = [encoder]
        for decoder in names:
            entry = found.get((encoder, decoder))
            rate = entry.bd_rate_pct if entry else None
            row.append("" if entry is None else "not valid" if rate is None else f"{rate:+.2f}")
        rows.append(row)
    return html_table(["streams of", *(f"by {name}" for name in names)], rows, left=1, what="one bitstream")


def pairs_chart(run: RunFiles, shelf: ShelfFile) -> Chart:
    """Encoders over decoders, both from small to large, with BD-rate as colour."""
    pairs = sorted(shelf.pairs, key=lambda pair: (pair.encoder_N, pair.decoder_N))
    front = {pair.halves for pair in pareto_front([pair for pair in pairs if _scored(pair)], axes_of(run.axes))}
    encoders, decoders = _labels(pairs, "encoder"), _labels(pairs, "decoder")
    columns, rows = ([*labels] for labels in (decoders, encoders))
    cells = [
        Cell(
            x=columns.index(pair.decoder),
            y=rows.index(pair.encoder),
            value=pair.bd_rate_pct,
            shown="-" if pair.bd_rate_pct is None else f"{pair.bd_rate_pct:+.1f}",
            text=_told(run, pair, pair.halves in front),
            framed=pair.halves in front,
        )
        for pair in pairs
    ]
    stars = [Mark(cell.x + 0.4, cell.y + 0.33, "") for cell, pair in zip(cells, pairs, strict=True) if pair.joined]
    star = Look(colour=STAR, symbol="star", size=9, outlined=True, outline=(DARK, 0.9))
    return Chart(
        name="shelf",
        title=f"BD-rate of {sum(map(_scored, pairs))} pairs: {len(rows)} encoders over {len(columns)} decoders",
        x_label="decoder, kMACs per pixel",
        y_label="encoder, kMACs per pixel",
        series=[Series(label=JOINED, look=star, marks=stars)] if stars else [],
        grid=_grid(cells, "on the front"),
        x_ticks=[*enumerate(decoders.values())],
        y_ticks=[*enumerate(encoders.values())],
        x_range=(-0.6, len(columns) - 0.4),
        y_range=(-0.6, len(rows) - 0.4),
    )


def _grid(cells: Sequence[Cell], frame: str) -> Grid:
    values = [cell.value for cell in cells if cell.value is not None]
    low, middle, most = (min(values), statistics.median(values), max(values)) if values else (0.0, 0.0, 0.0)
    high = min(most, low + REACH * (middle - low))
    high = high if high > low else max(most, low + 1)
    ticks = [(low, f"{low:+.1f}"), ((low + high) / 2, f"{(low + high) / 2:+.1f}"), (high, f"{high:+.1f}")]
    if most > high:
        ticks[-1] = (high, f"{high:+.1f} or more")
    label = "BD-rate against the anchor, %, estimated"
    return Grid(label=label, frame=frame, cells=cells, ends=(low, high), ticks=ticks if values else ())


def _scored(pair: Pair) -> bool:
    return pair.bd_rate_pct is not None


def _labels(pairs: Sequence[Pair], half: Half) -> dict[str | None, str]:
    """Trial of an encoder or decoder, None for the teacher's -> its name beside the figure; small ones first."""
    found = {}
    read = attrgetter(half, f"{half}_N", f"{half}_macs_per_pixel")
    for trial, N, cost in sorted(map(read, pairs), key=itemgetter(1)):
        found[trial] = f"{'teacher' if trial is None else f'n{N}'}\n{cost / 1000:.1f}"
    return found


def _told(run: RunFiles, pair: Pair, on_front: bool) -> str:
    rate = (
        f"{pair.bd_rate_pct:+.1f} %" if pair.bd_rate_pct is not None else "not valid" if pair.points else "not scored"
    )
    lines = [_named(pair), f"BD-rate {rate}", costs_in_words(pair)]
    if pair.of_trained_halves:
        predicted = "none" if pair.predicted_pct is None else f"{pair.predicted_pct:+.1f} %"
        lines[1] += f"; predicted, as the sum of the halves', {predicted}"
    if on_front:
        lines.append("on the front")
    if pair.joined is not None:
        joined = next((trial for trial in run.trials if trial.trial_id == pair.joined), None)
        after = None if joined is None else bd_rate_of(run, joined)
        lines.append(f"{JOINED}: {pair.joined}" + ("" if after is None else f", BD-rate {after:+.1f} %"))
    return "\n".join(lines)


def _named(pair: Pair) -> str:
    halves = (("encoder", pair.encoder, pair.encoder_N), ("decoder", pair.decoder, pair.decoder_N))
    return " with ".join(f"{'' if trial else 'teacher '}{half} n{N}" for half, trial, N in halves)
