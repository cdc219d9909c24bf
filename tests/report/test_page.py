"""The report's page: its words, tables and figures."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.report.distillation import equal_images
from orchestrator.report.page import STYLE, _best_control, write_report
from orchestrator.report.plots import KEY
from orchestrator.report.run_files import bd_rate_of, read_run
from orchestrator.results.account import Forecasts
from orchestrator.results.files import write_file
from orchestrator.results.front import Candidates, CodedCurve, CodingKey, Front
from orchestrator.results.versions import Versions
from orchestrator.store.store import Store
from testing.records import write
from tests.report.conftest import ANCHOR, TEACHERS, Page, make_trial, points, table
from tests.report.test_plots import Drawing
from tests.results.builders import byte_counts, forecast_of, gang_seconds

GOLDEN = Path(__file__).with_name("page.html")


def test_needs_nothing_else(page, run_folder):
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")]
    links = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert links and all(link.startswith("#") for link in links)
    assert len((run_folder / "report.html").read_bytes()) < 1_000_000


def lines_of(folder: Path) -> list[str]:
    """The report's page without style and figures, a line for each row, tile and sentence."""
    text = re.sub(r"<(svg|style).*?</\1>", r"<\1>", (folder / "report.html").read_text(), flags=re.DOTALL)
    return [line for line in re.sub(r"(?=<tr|<li|<div|<p|<details)", "\n", text).split("\n") if line]


def test_the_page_is_the_one_written_down(page, run_folder):
    """Its words, and the figures that follow from the fixture: a change is seen, and page.html changed with it."""
    assert lines_of(run_folder) == GOLDEN.read_text().splitlines()


def test_the_figures_show_the_trials_of_the_run(page, run_folder):
    curves, scatter = map(Drawing, re.findall(r"<svg.*?</svg>", (run_folder / "report.html").read_text(), re.DOTALL))
    front = {f"0{number}-hyperprior-n{N}-teacher-hyperprior" for number, N in ((4, 8), (5, 16), (6, 24))}
    control = "02-hyperprior-n24-control (best control, estimated)"
    assert {*front, control, "teacher-mean-scale (anchor, estimated)", "bits per pixel", "PSNR, dB"} < {*curves.texts}
    assert len(curves.lines) == 1 + 3 + 1
    assert {name for name in scatter.texts if name[0] == "0" and len(name) > 2} == front
    counts = [sum(mark.look == kind.look for mark in scatter.marks) for kind in scatter.key]
    assert dict(zip(KEY, counts, strict=True)) == {
        "on the front": 3,
        "finished": 3,
        "stopped early": 2,
        "control (square)": 3,
        "control, stopped": 1,
        "off the scale": 0,
    }


def test_what_a_run_lacks_is_said(run_folder):
    """No rung, no front, no account, no revision; an anchor that was coded."""
    for file in (*(run_folder / "trials").iterdir(), run_folder / "account.json"):
        file.unlink()
    store = Store(run_folder)
    write(store, make_trial(3, 8, None).changed(rungs=(), images_seen=0, status="running"))
    write_file(store, "front.json", Front(students=()))
    write_file(store, "coded/candidates.json", Candidates(students=()))
    write_file(
        store,
        "coded/anchor.json",
        CodedCurve(
            key=CodingKey(weights="0" * 64, rate_points=(), crops=()), entropy_id="", points=points(0.0), validation=()
        ),
    )
    write_file(store, "versions.json", Versions(python="3", platform="Linux", git_revision=None, libraries={}))
    write_report(run_folder)
    lines = lines_of(run_folder)
    assert '<p class="quiet">revision unknown</p>' in lines
    tiles = re.findall(r"<b>(.*?)</b><span>(.*?)</span>", "".join(lines))
    assert tiles == [
        ("1", "trials"),
        ("0", "stopped early"),
        ("0", "on the front"),
        ("none", "valid BD-rate at the last rung"),
    ]
    assert '<p class="quiet">No rung was reached both by a control and by a trial with distillation.</p>' in lines
    caption = "Lower and further left is better. 0 trials were coded with real bitstreams, the others are estimated."
    assert f"<p>{caption} Not shown, for want of a valid BD-rate: 1.</p>" in lines
    assert "<h2>Where the time went</h2>" not in lines
    curves = Drawing(re.findall(r"<svg.*?</svg>", (run_folder / "report.html").read_text(), re.DOTALL)[0])
    ((corners, _),) = curves.lines
    assert "teacher-mean-scale (anchor)" in curves.texts and len(corners) == len(points(0.0)) < len(ANCHOR)


def test_ids_of_the_figures_do_not_meet(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {attributes["xlink:href"][1:] for _, attributes in page.tags if "xlink:href" in attributes}
    assert used and used <= set(ids)


def test_every_trial_is_listed_and_the_front_with_its_figures(page):
    trials = table(page, "trial", "loss")
    assert len(trials) == 13
    assert {row["status"] for row in trials} == {"finished", "stopped", "lost"}
    assert [row["note"] for row in trials if row["status"] == "lost"] == ["rank 1 died"]
    assert ("tr", {"class": "failed"}) in page.tags
    front = table(page, "trial", "version")
    assert [row["kMACs/pixel"] for row in front] == ["3.10", "7.80", "14.20"]
    for row in front:
        assert float(row["BD-rate %"]) == pytest.approx(float(row["estimated %"]) + 1.25, abs=0.011)


def test_distillation_is_compared_at_equal_images(page):
    rows = table(page, "student", "control: slice")
    first = {row["images seen"]: row for row in rows if row["student"] == "hyperprior-n8-m96"}
    assert first["512"]["measure"] == "100 ln J ratio"  # one curve of the rung is not valid: never mixed
    # control: 900 / 8 + 14 + 20; trials 4 and 8 with a teacher: + 6 + 3 * 1 and + 6 + 3 * 2
    assert first["4,608"]["measure"] == "BD-rate %"
    assert first["4,608"]["control: slice"] == "+146.50"
    assert (first["4,608"]["best of them"], first["4,608"]["best - slice"]) == ("+141.50", "-5.00")
    assert first["4,608"]["median - same start"] == "-3.50"
    assert first["4,608"]["best trial"].startswith("04-")
    # All n32 trials were stopped at the first rung.
    assert [row["images seen"] for row in rows if row["student"] == "hyperprior-n32-m96"] == ["512"]


def test_what_is_better_than_the_control_is_coloured_so(run_folder):
    worse = make_trial(1, 8, TEACHERS[1])
    last = worse.rungs[-1].model_copy(update={"images_seen": 9216, "bd_rate_pct": 200.0})
    control = make_trial(0, 8, None)
    best = control.rungs[-1].model_copy(update={"images_seen": 9216, "bd_rate_pct": 150.0})
    write(Store(run_folder), worse.changed(trial_id="20-worse", rungs=(last,), images_seen=9216))
    write(Store(run_folder), control.changed(trial_id="21-control", rungs=(best,), images_seen=9216))
    cells = re.findall(r'<td class="(better|worse)">([+-])', equal_images(read_run(Store(run_folder))))
    assert set(cells) == {("better", "-"), ("worse", "+")}
    style = dict(re.findall(r"\.(better|worse) \{ color: #(\w{6})", STYLE))
    red, green = (int(style["better"][place : place + 2], 16) for place in (0, 2))
    assert green > red
    red, green = (int(style["worse"][place : place + 2], 16) for place in (0, 2))
    assert red > green


def test_the_best_control_is_drawn(run_folder):
    run = read_run(Store(run_folder))
    rates = {trial.trial_id: bd_rate_of(run, trial) for trial in run.trials if trial.teacher is None}
    valid = {name: rate for name, rate in rates.items() if rate is not None}
    best, worst = min(valid, key=valid.__getitem__), max(valid, key=valid.__getitem__)
    assert valid[best] < valid[worst]
    drawn = _best_control(run)
    assert drawn is not None and drawn[0] == f"{best} (best control, estimated)"
    (trial,) = (trial for trial in run.trials if trial.trial_id == best)
    assert drawn[1] == run.metric.curve(trial.rungs[-1].points)


def test_text_is_escaped_and_account_shown(run_folder):
    write_report(str(run_folder))
    text = (run_folder / "report.html").read_text()
    assert "quick &lt;test&gt;" in text and "<script>" not in text
    assert "median 0.62 s" in text and "at most 0.90 s" in text
    assert "<b>3</b><span>stopped early" in text


def test_what_was_planned_stands_beside_what_it_took(run_folder):
    expected = forecast_of(
        images=20_000.0,
        wall_s=390.0,
        phases_s={"anchor": 20.0, "features": 30.0, "trials": 310.0, "coding": 30.0},
        gangs=gang_seconds(training_s=240.0, data_wait_s=4.0, idle_s=66.0),
        bytes=byte_counts(features_stored=100e6),
    )
    forecasts = Forecasts(least=forecast_of(images=9_000.0), expected=expected, most=forecast_of(images=40_000.0))
    write_file(Store(run_folder), "forecast.json", forecasts)
    write_report(run_folder)
    text = (run_folder / "report.html").read_text()
    tables = {table[0][0]: table for table in Page(text).tables}
    assert tables["phase"][0] == ["phase", "planned, seconds", "taken, seconds", "% of all"]
    assert ["trials", "310.0", "320.0", "80"] in tables["phase"]
    assert tables["work"][1:3] == [["training", "240.0", "250.0", "78"], ["data wait", "4.0", "5.0", "2"]]
    assert tables["bytes"][1] == ["features stored", "100.0", "110.0"]
    assert "Planned: 390 s, and 20,000 images, between 9,000 and 40,000." in text

    account = json.loads((run_folder / "account.json").read_text())
    (run_folder / "account.json").write_text(json.dumps(account | {"continued": True}))
    write_report(run_folder)
    assert "lanned" not in (run_folder / "report.html").read_text()


def test_the_same_files_give_the_same_report(run_folder):
    write_report(run_folder)
    first = (run_folder / "report.html").read_bytes()
    write_report(run_folder)
    assert (run_folder / "report.html").read_bytes() == first


def test_without_front_coding_and_account(run_folder):
    for name in ("coded/candidates.json", "account.json"):
        (run_folder / name).unlink()
    write_file(Store(run_folder), "front.json", Front(students=()))
    write_report(run_folder)
    page = Page((run_folder / "report.html").read_text())
    assert len(table(page, "trial", "version")) == 0
    assert len(table(page, "trial", "loss")) == 13


def test_a_missing_file_is_named(run_folder):
    (run_folder / "anchor.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"anchor\.json"):
        write_report(run_folder)
    assert not (run_folder / "report.html").exists()
