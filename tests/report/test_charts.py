"""What the charts show, before they are drawn."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.report import curves, learning, plane
from orchestrator.report.chart import BLUE, INK, ORANGE, QUIET, Chart, Note, Series
from orchestrator.report.run_files import RunFiles, bd_rate_of, read_run
from orchestrator.results.references import Reference, References
from orchestrator.spec.sections import Axis
from orchestrator.store.store import Store
from tests.report.conftest import ANCHOR, points

MACS: Axis = "macs_per_pixel"


@pytest.fixture
def run(run_folder: Path) -> RunFiles:
    return read_run(Store(run_folder))


def by_label(chart: Chart) -> dict[str, Series]:
    return {series.label: series for series in chart.series}


def test_rate_points_are_named(run: RunFiles) -> None:
    series = by_label(curves.rate_distortion(run))
    anchor = series["teacher-mean-scale (anchor, estimated)"]
    assert [(mark.x, mark.y) for mark in anchor.marks] == ANCHOR and anchor.look.line == "dash"
    told = "teacher-mean-scale (anchor, estimated)\nrate point 1, lambda 0.01\n0.145 bpp, 26.80 dB"
    assert anchor.marks[1].text == told
    front = series["04-hyperprior-n8-teacher-hyperprior"]
    assert [(mark.x, mark.y) for mark in front.marks] == run.metric.curve(run.front[0].points)
    assert curves.rate_name(run, 0.25) == "gain 0.250"


def test_the_best_control_is_drawn_unless_the_front_has_it(run: RunFiles) -> None:
    best = curves.best_control(run)
    rates = {trial.trial_id: bd_rate_of(run, trial) for trial in run.trials if trial.teacher is None}
    assert best is not None and rates[best.trial_id] == min(rate for rate in rates.values() if rate is not None)
    assert f"{best.trial_id} (best control, estimated)" in by_label(curves.rate_distortion(run))
    first = run.front[0].model_copy(update={"trial_id": best.trial_id})
    assert curves.best_control(replace(run, front=(first,))) is None


def test_other_teachers_and_codecs_are_told_apart_and_do_not_widen_the_window(run: RunFiles) -> None:
    far = tuple(replace(point, bpp=40 * point.bpp, rate_point=10 * i) for i, point in enumerate(points(0.0)))
    ours = Reference(name="other", kind="teacher", made_by="0", points=points(5.0), validation=())
    theirs = Reference(name="JPEG", kind="codec", made_by="a library", points=far, validation=())
    chart = curves.rate_distortion(replace(run, references=References(crops=(), curves=(ours, theirs))))
    series = by_label(chart)
    assert (series["other"].look.line, series["JPEG"].look.line) == ("dash", "dot")
    assert series["JPEG"].marks[2].text.split("\n")[1] == "quality 20"
    assert chart.x_range == curves.rate_distortion(run).x_range


def test_every_trial_is_in_the_plane_once_coded_and_estimated_apart(run: RunFiles) -> None:
    chart = plane.pareto(run, MACS)
    series = by_label(chart)
    counts = {label: len(one.marks) for label, one in series.items()}
    assert counts == {
        "the front": 3,
        "on the front, distilled": 3,
        "estimated, distilled": 3,
        "estimated, stopped early, distilled": 2,
        "estimated, control": 3,
        "estimated, stopped early, control": 1,
    }
    assert series["on the front, distilled"].look.filled and series["on the front, distilled"].look.outlined
    assert not series["estimated, distilled"].look.filled
    assert (series["estimated, control"].look.symbol, series["estimated, control"].look.colour) == ("square", ORANGE)
    first = series["on the front, distilled"].marks[0]
    assert (first.x, first.y) == (3.1, 142.75)
    assert first.text.split("\n")[::4] == [
        "04-hyperprior-n8-teacher-hyperprior",
        "BD-rate coded +142.75 %, estimated +141.50 %",
    ]
    assert [note.text for note in chart.notes] == [student.trial_id for student in run.front]
    corners = series["the front"]
    assert corners.look.step == "right first" and not corners.listed and corners.look.colour == INK


def test_the_plane_is_drawn_over_every_cost_that_all_trials_have(run: RunFiles) -> None:
    over = {chart.x_label: chart for chart in plane.views(replace(run, axes=("decoder_macs_per_pixel",)))}
    assert [*over] == [
        "kMACs per pixel, decoder",
        "kMACs per pixel, coding and decoding",
        "kMACs per pixel, encoder",
        "parameters, thousands",
    ]
    places = [by_label(chart)["on the front, distilled"].marks[0].x for chart in over.values()]
    assert places == [1.55, 3.1, 1.55, 2.56]
    assert len({tuple(len(one.marks) for one in chart.series if one.listed) for chart in over.values()}) == 1
    stairs = [len(by_label(chart)["the front"].marks) for chart in over.values()]
    assert stairs == [3, 0, 0, 0]  # a front of one cost is a line over this one alone
    for label, chart in over.items():
        assert chart.view == label and label in chart.title


def test_milliseconds_are_an_axis_where_all_trials_have_them(run: RunFiles) -> None:
    axes: tuple[Axis, ...] = ("decode_ms_per_megapixel", "params")
    label = "ms per megapixel, decoding by one thread"
    timed = replace(run, axes=axes, trials=tuple(trial.changed(decode_ms_per_megapixel=12.5) for trial in run.trials))
    first, second, *others = plane.views(timed)
    assert (first.x_label, second.x_label, len(others)) == (label, "parameters, thousands", 3)
    assert {mark.x for series in first.series if series.listed for mark in series.marks} == {12.5}
    assert not by_label(first)["the front"].marks and not by_label(second)["the front"].marks  # a front of two costs
    some = replace(timed, trials=(run.trials[0], *timed.trials[1:]))
    assert label not in {chart.x_label for chart in plane.views(some)}


def test_what_lies_far_above_is_drawn_at_the_edge_with_its_own_figures(run: RunFiles) -> None:
    trial = next(trial for trial in run.trials if trial.status == "stopped")
    last = trial.rungs[-1].model_copy(update={"bd_rate_pct": 9000.0})
    others = [one for one in run.trials if one is not trial]
    chart = plane.pareto(replace(run, trials=(*others, trial.changed(rungs=(last,)))), MACS)
    (mark,) = by_label(chart)["off the scale"].marks
    assert chart.y_range is not None and chart.y_range[0] < mark.y < chart.y_range[1] < 9000
    assert "+9000.00 %" in mark.text and by_label(chart)["off the scale"].look.colour == QUIET


def test_a_trial_whose_coded_curve_is_not_valid_is_drawn_at_its_estimate(run: RunFiles) -> None:
    bad = run.front[0].model_copy(update={"bd_rate_pct": None, "bd_rate_reason": "overlap: 0.6"})
    changed = replace(run, front=run.front[1:], coded={**run.coded, bad.trial_id: bad})
    (mark,) = by_label(plane.pareto(changed, MACS))["estimated: coded curve not valid, distilled"].marks
    assert mark.y == 141.5 and mark.text.endswith("BD-rate estimated +141.50 %; coded none: overlap: 0.6")
    assert (bad.trial_id, "drawn at its estimate; its coded curve: overlap: 0.6") in plane.without_a_place(changed)


def test_names_of_marks_that_are_near_stand_below_one_another() -> None:
    notes = [Note(10, 5, "a"), Note(10, 4, "b"), Note(10, 90, "c"), Note(11, 3, "d"), Note(90, 4, "e")]
    lines = {note.text: note.line for note in plane._apart(notes, 100.0)}
    assert lines == {"a": 0, "b": 1, "c": 0, "d": 2, "e": 0}


def test_a_sweep_without_a_bd_rate_has_an_empty_plane(run: RunFiles) -> None:
    chart = plane.pareto(replace(run, trials=(), front=(), coded={}), MACS)
    assert (chart.series, chart.notes, chart.y_range) == ([], (), None)
    assert plane.views(replace(run, trials=(), front=(), coded={})) == [chart]


def test_learning_has_a_curve_a_trial_and_one_entry_a_kind(run: RunFiles) -> None:
    chart = learning.learning(run)
    measured = [trial for trial in run.trials if trial.rungs]
    assert len(chart.series) == len(measured) == 12
    kinds = [series.label for series in chart.series if series.listed]
    assert sorted(kinds) == ["control", "control, stopped early", "distilled", "distilled, stopped early"]
    first = chart.series[0].marks
    assert [(mark.x, mark.y) for mark in first] == [
        (rung.images_seen, 100 * rung.log_lagrangian_ratio) for rung in measured[0].rungs
    ]
    assert chart.x_ticks == [(512, "512"), (1536, "1,536"), (4608, "4,608")] and chart.log_x
    assert first[0].text.split("\n")[2] == "no valid BD-rate"


def test_survival_counts_trials_by_rung(run: RunFiles) -> None:
    series = by_label(learning.survival(run))
    assert [(mark.x, mark.y) for mark in series["distilled"].marks] == [(0, 8), (512, 8), (1536, 6), (4608, 6)]
    assert [(mark.x, mark.y) for mark in series["control"].marks] == [(0, 4), (512, 4), (1536, 3), (4608, 3)]
    assert "stopped here: 03-hyperprior-n32-control" in series["control"].marks[1].text


def test_what_a_search_drew_is_drawn_from_axis_to_axis(run: RunFiles) -> None:
    assert learning.drawn(run) is None
    choices = [{"loss": "feds", "latent": 0.01, "N": 8}, {"loss": "none", "latent": 1.0, "N": 24}]
    choices += [{"loss": "none", "latent": 0.1, "N": 16}, {"loss": "prim", "N": 16}]
    trials = tuple(trial.changed(choices=drawn) for trial, drawn in zip(run.trials[:4], choices, strict=True))
    chart = learning.drawn(replace(run, trials=trials))
    assert chart is not None and chart.x_ticks is not None
    names = [name for _, name in chart.x_ticks][:3]
    assert names == ["loss\nfeds to prim", "latent\n0.01 to 1", "N\n8 to 24"]
    heights = {series.marks[0].text.split("\n")[0]: [mark.y for mark in series.marks][:3] for series in chart.series}
    middle = heights[trials[2].trial_id]
    assert middle == pytest.approx([0.5, 0.5, 0.5])  # 0.1 in logarithms, as the range is wide
    assert [len(series.marks) for series in chart.series if series.marks[0].text.startswith("03-")] == [3]  # no latent
    assert [series.label for series in chart.series].count("the best quarter") == 1
    assert chart.series[-1].look.colour == BLUE
