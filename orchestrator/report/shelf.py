"""The report's section on a shelf: its pairs, whether their halves add up, and who reads whose streams."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from orchestrator.evaluation.front import pareto_front
from orchestrator.report import plots
from orchestrator.report.html import html_table
from orchestrator.report.run_files import RunFiles
from orchestrator.results.interchange import Interchange
from orchestrator.results.shelf import Pair, ShelfFile
from orchestrator.spec.sections import Half

PAIRS = """
Every encoder with every decoder, none of them trained together: BD-rate in % against the anchor, rates estimated. A
frame: on the front of BD-rate and MACs. A star: trained on as a whole. The teacher's own halves are on the shelf, too.
"""
ADDITIVITY = """
BD-rate of a pair, less the sum of that of its encoder with the teacher's decoder and that of its decoder with the
teacher's encoder, in points. Where that is near 0, E + D curves predict E x D pairs.
"""
EXCHANGE = """
Real bitstreams of each encoder of the front (rows), decoded by each decoder that has the same entropy model (columns):
BD-rate in % against the anchor.
"""


def shelf_section(run: RunFiles) -> list[str]:
    """The section's elements; none for a sweep without encoders and decoders."""
    if run.shelf is None:
        return []
    found = [
        "<h2>Shelf: every encoder with every decoder</h2>",
        f"<p>{PAIRS}</p>",
        plots.shelf(_squares(run.shelf)),
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


def _squares(shelf: ShelfFile) -> list[plots.Square]:
    front = {pair.halves for pair in pareto_front([pair for pair in shelf.pairs if pair.bd_rate_pct is not None])}
    encoders, decoders = _labels(shelf.pairs, "encoder"), _labels(shelf.pairs, "decoder")
    ordered = sorted(shelf.pairs, key=lambda pair: (pair.encoder_N, pair.decoder_N))
    return [
        plots.Square(
            encoder=encoders[pair.encoder_N],
            decoder=decoders[pair.decoder_N],
            bd_rate_pct=pair.bd_rate_pct,
            front=pair.halves in front,
            joined=pair.joined is not None,
        )
        for pair in ordered
    ]


def _labels(pairs: Sequence[Pair], half: Half) -> dict[int, str]:
    """N of an encoder or decoder -> what it is called in the drawing."""
    found = {}
    for pair in pairs:
        N, cost = getattr(pair, f"{half}_N"), getattr(pair, f"{half}_macs_per_pixel")
        own = " teacher's" if getattr(pair, half) is None else ""
        found[N] = f"n{N}{own}\n{cost / 1000:.1f}"
    return found
