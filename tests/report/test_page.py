"""The report's page: its words, tables and figures."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.report.curves import rate_distortion
from orchestrator.report.distillation import equal_images
from orchestrator.report.interactive import asset
from orchestrator.report.page import render, write_report
from orchestrator.report.run_files import read_run
from orchestrator.results.account import Forecasts
from orchestrator.results.files import write_file
from orchestrator.results.front import Candidates, CodedCurve, CodingKey, Front
from orchestrator.results.mlflow_runs import MlflowRuns
from orchestrator.results.versions import Versions
from orchestrator.store.store import Store
from testing.records import write
from tests.report.conftest import ANCHOR, TEACHERS, Page, make_trial, points, table
from tests.results.builders import byte_counts, forecast_of, gang_seconds

CHARTS = ["rate-distortion", "pareto", "learning", "survival"]
GOLDEN = Path(__file__).with_name("page.html")


def test_needs_nothing_else(page, run_folder):
    """No file, no network: the browser is told so as well."""
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe")]
    assert not [attributes for tag, attributes in page.tags if tag == "script" and "src" in attributes]
    links = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert links and all(link.startswith("#") for link in links)
    policies = [
        attributes for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert [policy["content"].split(";")[0] for policy in policies] == ["default-src 'none'"]
    assert len((run_folder / "report.html").read_bytes()) < 2_000_000


def lines_of(folder: Path) -> list[str]:
    """The report's page without style, scripts and figures, a line for each row, tile and sentence."""
    text = (folder / "report.html").read_text()
    text = re.sub(r"<(svg|style|script).*?</\1>", r"<\1>", text, flags=re.DOTALL)
    return [line for line in re.sub(r"(?=<tr|<li|<div|<p|<details|<figure)", "\n", text).split("\n") if line]


def test_the_page_is_the_one_written_down(page, run_folder):
    """Its words, and the figures that follow from the fixture: a change is seen, and page.html changed with it."""
    assert lines_of(run_folder) == GOLDEN.read_text().splitlines()


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
        ("none", "valid BD-rates at the last rung, estimated"),
    ]
    assert '<p class="quiet">No rung was reached both by a control and by a trial with distillation.</p>' in lines
    caption = "Lower and further left is better. 0 trials were coded with real bitstreams, the others are estimated. "
    assert f"<p>{caption}The front is of BD-rate and MACs per pixel of coding and decoding.</p>" in lines
    assert not [line for line in lines if "Hypervolume" in line]
    assert "<li>03-hyperprior-n8-control: not drawn; it has not reached a rung</li></ul>" in lines
    assert "<h2>Where the time went</h2>" not in lines
    (anchor,) = rate_distortion(read_run(store)).series
    assert anchor.label == "teacher-mean-scale (anchor)" and len(anchor.marks) == len(points(0.0)) < len(ANCHOR)


def test_the_plane_and_the_front_are_of_the_axes_of_the_specification(run_folder):
    (run_folder / "spec.yaml").write_text("axes: [decoder_macs_per_pixel, params]\n")
    write_report(run_folder)
    text = (run_folder / "report.html").read_text()
    page = Page(text)
    (label,) = re.findall("<label.*?</label>", text)
    assert re.findall("<option>(.*?)</option>", label)[:2] == ["kMACs per pixel, decoder", "parameters, thousands"]
    assert [attributes["aria-label"] for _, attributes in page.tags if attributes.get("class") == "live"][1] == (
        "BD-rate against the anchor over kMACs per pixel, decoder: 12 trials, 3 on the front"
    )
    assert "The front is of BD-rate, the decoder&#x27;s MACs per pixel and parameters: where one" in text
    assert [row["kMACs per pixel, decoder"] for row in table(page, "trial", "version")] == ["1.55", "3.90", "7.10"]


def test_ids_of_the_figures_do_not_meet(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {attributes["xlink:href"][1:] for _, attributes in page.tags if "xlink:href" in attributes}
    assert used and used <= set(ids)


def test_every_trial_is_listed_and_the_front_with_its_figures(page):
    trials = table(page, "trial", "loss")
    assert len(trials) == 13
    assert {row["status"] for row in trials} == {"finished", "stopped", "lost"}
    assert [row["note"] for row in trials if row["status"] == "lost"] == ["rank 1 died: <out>"]
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
    (day,) = re.findall(r"^:root {(.*?)}", asset("report.css"), re.DOTALL | re.MULTILINE)
    for name, stronger in (("good", 1), ("bad", 0)):
        colour = re.findall(rf"--{name}: #(\w{{6}})", day)[0]
        red, green = (int(colour[place : place + 2], 16) for place in (0, 2))
        assert (green > red) == stronger


def test_text_is_escaped_and_account_shown(run_folder):
    write_report(str(run_folder))
    text = (run_folder / "report.html").read_text()
    assert "quick &lt;test&gt;" in text and "a &lt;script&gt; &amp; more" in text
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


def test_a_trial_whose_coded_curve_is_not_valid_is_named_with_the_reason(run_folder):
    """It was on no list, while a tile said that all curves are valid."""
    store = Store(run_folder)
    *rest, last = read_run(store).front
    reason = "overlap: 0.61 of the test curve lies in the anchor's range, at least 0.75 is needed"
    bad = last.model_copy(update={"bd_rate_pct": None, "bd_rate_reason": reason, "overlap": 0.61})
    write_file(store, "front.json", Front(students=tuple(rest)))
    write_file(store, "coded/candidates.json", Candidates(students=(*rest, bad)))
    write_report(run_folder)
    lines = lines_of(run_folder)
    told = f"{bad.trial_id}: drawn at its estimate; its coded curve: {reason.replace(chr(39), '&#x27;')}"
    assert f"<li>{told}</li>" in lines
    assert '<div class="tile"><b>2 of 3</b><span>valid BD-rates, coded</span></div>' in lines
    (row,) = [row for row in table(Page((run_folder / "report.html").read_text()), "trial", "loss")
              if row["trial"] == bad.trial_id]  # fmt: skip
    assert row["coded"] == "" and row["note"] == reason


def test_a_sweep_that_trains_has_a_page(run_folder):
    """Without a front and an account: it says how far it is, and can be loaded again by itself."""
    for name in ("front.json", "coded/candidates.json", "account.json"):
        (run_folder / name).unlink()
    (run_folder / "spec.yaml").write_text("trials: 15\n")
    write_report(run_folder, stills=False)
    text = (run_folder / "report.html").read_text()
    assert "12 of 15 trials have ended; the last rung was reached at 1970-01-01 00:00:00 UTC." in text
    assert "The front is not made yet" in text and 'id="again"' in text
    assert "<svg role" not in text and text.count("<noscript>") == 4
    assert len(table(Page(text), "trial", "loss")) == 13


def test_a_finished_sweep_is_not_loaded_again(page, run_folder):
    assert "again" not in {attributes.get("id") for _, attributes in page.tags}
    (run_folder / "spec.yaml").write_text("trials: 14\n")
    assert 'id="again"' in render(read_run(Store(run_folder)))


def test_names_lead_to_their_mlflow_runs(run_folder):
    trial = "04-hyperprior-n8-teacher-hyperprior"
    where = MlflowRuns(tracking_uri="http://host:5000/", experiment_id="3", model="a <model>", runs={trial: "abc"})
    write_file(Store(run_folder), "mlflow.json", where)
    text = render(read_run(Store(run_folder)))
    assert text.count(f'<a href="http://host:5000/#/experiments/3/runs/abc">{trial}</a>') == 2  # front and trials
    assert "a &lt;model&gt;" in text and "mlflow ui" not in text
    own = where.model_copy(update={"tracking_uri": "sqlite:////runs/a/mlflow.db"})
    write_file(Store(run_folder), "mlflow.json", own)
    text = render(read_run(Store(run_folder)))
    assert f'<a href="http://127.0.0.1:5000/#/experiments/3/runs/abc">{trial}</a>' in text
    assert "mlflow ui --backend-store-uri sqlite:////runs/a/mlflow.db" in text


def test_tables_are_read_out_by_row_and_column(page):
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert {attributes.get("scope") for attributes in heads} == {"col", "row"}
    regions = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert all(region["role"] == "region" and region["aria-label"] and region["tabindex"] == "0" for region in regions)
    assert len(regions) == len(page.tables)


def test_pictures_of_charts_have_titles(run_folder):
    text = render(read_run(Store(run_folder)))
    drawings = re.findall(r'<svg role="img" aria-labelledby="([\w-]+)"[^>]*><title id="([\w-]+)">(.*?)</title>', text)
    assert [name for name, *_ in drawings] == [f"{name}-title" for name in CHARTS] == [name for _, name, _ in drawings]
    assert all(len(title) > 20 for *_, title in drawings)
    assert re.findall(r'id="chart-([\w-]+)"', text) == CHARTS
