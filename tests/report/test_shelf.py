"""The section on a shelf: its drawing, whether halves add up, and who reads whose streams."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.report.page import write_report
from orchestrator.report.plots import Square, shelf
from orchestrator.report.run_files import read_run
from orchestrator.report.shelf import additivity_table, exchange_table, in_words, shelf_section
from orchestrator.results.files import write_file
from orchestrator.results.interchange import INTERCHANGE, Exchange, Interchange
from orchestrator.results.shelf import SHELF, Pair, ShelfFile
from orchestrator.store.store import Store
from tests.report.conftest import points

BD = {8: 30.0, 16: 12.0}


def pair(encoder: int | None, decoder: int | None, rate: float | None, **fields: object) -> Pair:
    """Of an encoder and a decoder of these widths; None: the teacher's, of width 64."""
    own = [BD[N] for N in (encoder, decoder) if N is not None]
    encoder_macs, decoder_macs = 100.0 * (encoder or 64), 300.0 * (decoder or 64)
    return Pair(
        encoder=None if encoder is None else f"encoder-n{encoder}",
        decoder=None if decoder is None else f"decoder-n{decoder}",
        encoder_N=encoder or 64,
        decoder_N=decoder or 64,
        params=1,
        macs_per_pixel=encoder_macs + decoder_macs,
        encoder_macs_per_pixel=encoder_macs,
        decoder_macs_per_pixel=decoder_macs,
        predicted_pct=sum(own),
        bd_rate_pct=rate,
        log_lagrangian_ratio=0.1,
    ).model_copy(update=fields)


PAIRS = (
    *(pair(N, None, BD[N]) for N in BD),
    *(pair(None, N, BD[N]) for N in BD),
    pair(8, 8, 58.0),
    pair(8, 16, 41.0),
    pair(16, 8, None),  # not scored
    pair(16, 16, 24.5, joined="13-pair-e16-d16"),
)
SHELVED = ShelfFile(teacher="t", anchor_digest="0" * 64, weights={}, pairs=PAIRS)


def cells(table: str) -> list[list[str]]:
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", table)]


def test_how_good_the_prediction_was() -> None:
    assert in_words(SHELVED) == "3 pairs: the sum was off by 1.2 points in the mean, by -2.0 at worst."
    unscored = SHELVED.model_copy(update={"pairs": PAIRS[:4]})
    assert in_words(unscored) == "No pair was both predicted and scored."
    assert cells(additivity_table(SHELVED)) == [
        ["", "decoder n8", "decoder n16"],
        ["encoder n8", "-2.0", "-1.0"],
        ["encoder n16", "", "+0.5"],
    ]


def test_streams_of_one_entropy_model_are_in_the_table() -> None:
    def exchanged(encoder: str, decoder: str, rate: float | None) -> Exchange:
        return Exchange(encoder=encoder, decoder=decoder, entropy_id="e", points=points(1.0), bd_rate_pct=rate)

    interchange = Interchange(
        weights={"a": "0", "b": "1", "other": "2"},
        exchanges=(
            exchanged("a", "a", 1.0),
            exchanged("a", "b", 2.5),
            exchanged("b", "a", None),
            exchanged("b", "b", 3.0),
            exchanged("other", "other", 4.0),
        ),
    )
    assert cells(exchange_table(interchange)) == [
        ["streams of", "by a", "by b", "by other"],
        ["a", "+1.00", "+2.50", ""],
        ["b", "not valid", "+3.00", ""],
        ["other", "", "", "+4.00"],
    ]


def test_a_sweep_over_halves_has_the_section_and_another_has_none(run_folder: Path) -> None:
    run = Store(run_folder)
    assert shelf_section(read_run(run)) == []
    write_file(run, SHELF, SHELVED)
    write_report(run_folder)
    page = (run_folder / "report.html").read_text()
    assert "<h2>Shelf: every encoder with every decoder</h2>" in page and "<h3>One bitstream</h3>" not in page
    write_file(run, INTERCHANGE, Interchange(weights={"a": "0"}, exchanges=()))
    write_report(run_folder)
    assert "<h3>One bitstream</h3>" in (run_folder / "report.html").read_text()
    drawing = shelf_section(read_run(run))[2]
    shown = re.findall(r"<!-- (.*?) -->", drawing)
    assert {"+58.0", "+24.5 *", "-", "+30.0"} <= set(shown)
    assert any("n64 teacher" in text for text in shown)


@pytest.mark.parametrize("rate", [None, 3.0])
def test_a_shelf_of_one_pair_is_drawn(rate: float | None) -> None:
    square = Square(encoder="n8", decoder="n8", bd_rate_pct=rate, front=rate is not None, joined=False)
    assert shelf([square]).startswith("<svg")
