"""The section on a shelf: its drawing, whether halves add up, and who reads whose streams."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.report import plots
from orchestrator.report.chart import Cell, Chart
from orchestrator.report.interactive import figure_json
from orchestrator.report.page import write_report
from orchestrator.report.run_files import RunFiles, read_run
from orchestrator.report.shelf import REACH, additivity_table, exchange_table, in_words, pairs_chart, shelf_section
from orchestrator.results.files import write_file
from orchestrator.results.interchange import INTERCHANGE, Exchange, Interchange
from orchestrator.results.shelf import SHELF, Pair, ShelfFile
from orchestrator.spec.sections import Axis
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
    assert shelf_section(read_run(run), plots.draw) == []
    write_file(run, SHELF, SHELVED)
    write_report(run_folder)
    page = (run_folder / "report.html").read_text()
    assert "<h2>Shelf: every encoder with every decoder</h2>" in page and "<h3>One bitstream</h3>" not in page
    write_file(run, INTERCHANGE, Interchange(weights={"a": "0"}, exchanges=()))
    write_report(run_folder)
    assert "<h3>One bitstream</h3>" in (run_folder / "report.html").read_text()
    _, said, drawing, *_ = shelf_section(read_run(run), plots.draw)
    assert "on the front of BD-rate and MACs per pixel of coding and decoding." in said
    shown = re.findall(r"<!-- (.*?) -->", drawing)
    assert {"+58.0", "+24.5", "-", "+30.0", "on the front", "trained on as a whole", "teacher"} <= set(shown)


@pytest.fixture
def run(run_folder: Path) -> RunFiles:
    return read_run(Store(run_folder))


def cells_of(chart: Chart) -> dict[tuple[str, str], Cell]:
    """By the names of encoder and decoder."""
    assert chart.grid is not None and chart.x_ticks is not None and chart.y_ticks is not None
    return {(chart.y_ticks[cell.y][1], chart.x_ticks[cell.x][1]): cell for cell in chart.grid.cells}


def test_pairs_stand_where_their_halves_are_and_say_what_is_known(run: RunFiles) -> None:
    joined = run.trials[0].changed(trial_id="13-pair-e16-d16")
    chart = pairs_chart(replace(run, trials=(joined,)), SHELVED)
    found = cells_of(chart)
    sizes = [("n8\n0.8", "n8\n2.4"), ("n16\n1.6", "n16\n4.8"), ("teacher\n6.4", "teacher\n19.2")]
    assert {*found} == {(e, d) for e, _ in sizes for _, d in sizes} - {("teacher\n6.4", "teacher\n19.2")}
    ticks = zip(chart.y_ticks or (), chart.x_ticks or (), strict=True)
    assert [(encoder, decoder) for (_, encoder), (_, decoder) in ticks] == sizes
    best = found["n16\n1.6", "n16\n4.8"]
    assert (best.value, best.shown) == (24.5, "+24.5")
    assert best.text.split("\n") == [
        "encoder n16 with decoder n16",
        "BD-rate +24.5 %; predicted, as the sum of the halves', +24.0 %",
        "6.40 kMACs per pixel (encoder 1.60, decoder 4.80), 1 parameters",
        "on the front",
        "trained on as a whole: 13-pair-e16-d16, BD-rate +146.5 %",
    ]
    (star,) = chart.series[0].marks
    assert (round(star.x), round(star.y)) == (best.x, best.y)
    unscored = found["n16\n1.6", "n8\n2.4"]
    assert (unscored.value, unscored.shown, unscored.framed) == (None, "-", False)
    assert "BD-rate not scored; predicted, as the sum of the halves', +42.0 %" in unscored.text
    half = found["teacher\n6.4", "n8\n2.4"].text.split("\n")
    assert half[:2] == ["teacher encoder n64 with decoder n8", "BD-rate +30.0 %"]


@pytest.mark.parametrize(
    ("axes", "framed"),
    [
        (("macs_per_pixel",), {"8-8", "8-16", "16-16", "64-16"}),
        (("decoder_macs_per_pixel",), {"64-8", "64-16"}),
        (("encoder_macs_per_pixel",), {"8-64", "16-64"}),
    ],
)
def test_the_front_is_that_of_the_specification(run: RunFiles, axes: tuple[Axis, ...], framed: set[str]) -> None:
    """It was of MACs whatever a sweep's axes were."""
    chart = pairs_chart(replace(run, axes=axes), SHELVED)
    assert chart.grid is not None
    names = ["8", "16", "64"]
    assert {f"{names[cell.y]}-{names[cell.x]}" for cell in chart.grid.cells if cell.framed} == framed


def test_pairs_that_are_far_worse_do_not_take_the_colours_of_the_others(run: RunFiles) -> None:
    far = SHELVED.model_copy(
        update={"pairs": (*PAIRS[:5], PAIRS[5].model_copy(update={"bd_rate_pct": 900.0}), PAIRS[7])}
    )
    grid = pairs_chart(run, far).grid
    assert grid is not None and grid.ends == (12.0, 12.0 + REACH * (30.0 - 12.0))
    assert [name for _, name in grid.ticks] == ["+12.0", "+39.0", "+66.0 or more"]
    near = pairs_chart(run, SHELVED).grid
    assert near is not None and near.ends == (12.0, 58.0) and near.ticks[-1] == (58.0, "+58.0")


@pytest.mark.parametrize("rate", [None, 3.0])
def test_a_shelf_of_one_pair_is_drawn(run: RunFiles, rate: float | None) -> None:
    chart = pairs_chart(run, SHELVED.model_copy(update={"pairs": (pair(8, 8, rate),)}))
    assert plots.draw(chart).startswith("<svg") and figure_json(chart)
    assert chart.grid is not None and len(chart.grid.ticks) == (0 if rate is None else 3)
