"""The report, from a run folder that holds only the files that it may read."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.report.distillation import equal_images, equal_wall_time
from orchestrator.report.page import STYLE, _best_control, main, write_report
from orchestrator.report.plots import KEY
from orchestrator.report.run_files import RunFiles, bd_rate_of, read_run
from orchestrator.results.account import Account, Forecasts
from orchestrator.results.anchor import AnchorFile
from orchestrator.results.files import write_file
from orchestrator.results.front import Candidates, CodedCurve, CodingKey, Front
from orchestrator.results.versions import Versions
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Start, Student
from orchestrator.store.store import Store
from orchestrator.trials.record import TrialRecord
from testing.records import record, rung, write
from tests.report.test_plots import Drawing
from tests.results.builders import byte_counts, coded_student, forecast_of, gang_seconds

GOLDEN = Path(__file__).with_name("page.html")
SIZES = {8: 3100.0, 16: 7800.0, 24: 14200.0, 32: 22500.0}
TEACHERS = [None, "teacher-hyperprior", "teacher-mean-scale"]
ANCHOR = [(0.10 * 1.45**i, 25.5 + 1.3 * i) for i in range(8)]


def points(excess_pct: float) -> tuple[CurvePoint, ...]:
    """A curve that needs `excess_pct` percent more bits than the anchor."""
    return tuple(
        CurvePoint(rate_point=i, lmbda=0.01, bpp=rate * (1 + excess_pct / 100), psnr_db=psnr, mse=10 ** (-psnr / 10))
        for i, (rate, psnr) in enumerate(ANCHOR[1:6])
    )


def make_trial(number: int, N: int, teacher: str | None) -> TrialRecord:
    level = 900 / N + (14.0 if teacher is None else 6.0 + 3 * (number % 3))
    last = 1 if number % 4 == 3 else 3
    rungs = []
    for place in range(last):
        value = None if N == 8 and place == 0 else level + 60 / (place + 1)
        rungs.append(
            rung(
                (512, 1536, 4608)[place],
                value,
                points=points(level + 60 / (place + 1)),
                log_lagrangian_ratio=0.01 * level + 0.3 / (place + 1),
                overlap=1.0,
                interval_db=(26.8, 32.0),
            )
        )
    return record(
        f"{number:02}-hyperprior-n{N}-{'control' if teacher is None else teacher}",
        rungs,
        student=Student(family="hyperprior", N=N, M=96, init="teacher-slice"),
        teacher=teacher,
        loss=Loss(rate_distortion=1.0, latent=0.0 if teacher is None else 0.1, reconstruction=0.0),
        seed=number,
        status="stopped" if last == 1 else "finished",
        params=40 * N * N,
        macs_per_pixel=SIZES[N],
        weights_digest="0",
    )


@pytest.fixture
def run_folder(tmp_path) -> Path:
    folder = tmp_path / "quick <test>"
    (folder / "coded").mkdir(parents=True)
    order = [(N, teacher) for teacher in TEACHERS for N in SIZES]
    trials = [make_trial(number, N, teacher) for number, (N, teacher) in enumerate(order)]
    trials.append(
        make_trial(12, 8, "teacher-mean-scale").changed(
            status="lost", error="Traceback\nrank 1 died: <out>", rungs=(), images_seen=0
        )
    )
    front = []
    for trial in trials:
        write(Store(folder), trial)
        if trial.status == "finished" and trial.teacher == "teacher-hyperprior":
            value = trial.rungs[-1].bd_rate_pct or 0.0
            named = ("trial_id", "teacher", "student", "complexity_class", "params", "macs_per_pixel", "images_seen")
            front.append(
                coded_student(
                    **{name: getattr(trial, name) for name in named},
                    bd_rate_pct=value + 1.25,
                    estimated_bd_rate_pct=value,
                    points=tuple(points(value + 1.25)),
                    version="7",
                )
            )
    anchor = Anchor(
        teacher="teacher-mean-scale",
        weights="0" * 64,
        rate_points=tuple(range(8)),
        curve=tuple(ANCHOR),
        lambdas=(0.01,) * 5,
        at_lambdas=tuple((rate, 1.0) for rate, _ in ANCHOR[1:6]),
    )
    account = Account(
        finished=True,
        continued=False,
        wall_s=400.0,
        phases_s={"anchor": 20.0, "features": 25.0, "trials": 320.0, "coding": 35.0},
        gangs=gang_seconds(training_s=250.0, data_wait_s=5.0, idle_s=65.0),
        images=21_000,
        bytes=byte_counts(features_stored=110e6),
        turnaround_median_s=0.62,
        turnaround_max_s=0.9,
    )
    store = Store(folder)
    write_file(store, "anchor.json", AnchorFile(anchor=anchor, digest=anchor.digest, mean_log_lagrangian={}))
    write_file(store, "front.json", Front(students=tuple(front)))
    write_file(store, "coded/candidates.json", Candidates(students=tuple(front)))
    write_file(store, "account.json", account)
    versions = Versions(
        python="3.11.7",
        platform="Linux",
        git_revision="abc",
        libraries={"torch": "2.14.1", "numpy": "2.3.4", "ray": "2.56.1"},
    )
    write_file(store, "versions.json", versions)
    (folder / "spec.yaml").write_text("name: quick\nnote: a <script> & more\n")
    return folder


class Page(HTMLParser):
    """Tables as lists of rows of texts, and every tag and attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append("".join(self._cell or []))
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)


@pytest.fixture
def page(run_folder) -> Page:
    write_report(run_folder)
    return Page((run_folder / "report.html").read_text())


def table(page: Page, first: str, column: str) -> list[dict[str, str]]:
    (rows_of_table,) = [rows for rows in page.tables if rows[0][0] == first and column in rows[0]]
    return [dict(zip(rows_of_table[0], row, strict=True)) for row in rows_of_table[1:]]


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
        CodedCurve(key=CodingKey(weights="0" * 64, rate_points=(), crops=()), points=points(0.0), validation=()),
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


def test_a_trial_is_compared_with_the_control_of_its_own_start(run_folder: Path) -> None:
    """A start that is better by itself is no gain of the distillation from that teacher."""
    for file in (run_folder / "trials").iterdir():
        file.unlink()
    good, bad = TEACHERS[1:]
    levels = {(None, good): 10.0, (good, good): 11.0, (None, bad): 30.0, (bad, bad): 25.0}
    for number, ((teacher, start_of), level) in enumerate(levels.items()):
        trial = make_trial(4 * number, 8, teacher)
        last = trial.rungs[-1].model_copy(update={"bd_rate_pct": level})
        write(Store(run_folder), trial.changed(start_of=start_of, trial_id=f"{number}", rungs=(last,)))
    rows = cells(equal_images(read_run(Store(run_folder))))
    assert [(row["student"], row["control: slice"], row["best - slice"]) for row in rows] == [
        (f"hyperprior-n8-m96, slice of {good}", "+10.00", "+1.00"),
        (f"hyperprior-n8-m96, slice of {bad}", "+30.00", "-5.00"),
    ]


def test_trials_that_start_from_a_file_are_compared_with_its_control(run_folder: Path) -> None:
    for file in (run_folder / "trials").iterdir():
        file.unlink()
    student = Student(family="hyperprior", N=8, M=96, init="own.safetensors")
    for number, teacher in enumerate((None, TEACHERS[1])):
        write(Store(run_folder), make_trial(4 * number, 8, teacher).changed(student=student))
    *_, last = cells(equal_images(read_run(Store(run_folder))))
    assert (last["control: same file"], last["best - same file"], last["median - same start"]) == (
        "+146.50",
        "-5.00",
        "-5.00",
    )


STARTS: dict[Start, float] = {"random": 90.0, "teacher-slice": 40.0, "teacher-refit": 20.0}  # BD-rates of the controls


@pytest.fixture
def of_three_starts(run_folder: Path) -> RunFiles:
    """Controls of three starts, and a distilled trial from a refitted one; a rung takes 10 s of training."""
    for file in (run_folder / "trials").iterdir():
        file.unlink()
    arms: list[tuple[str | None, Start, float]] = [(None, start, level) for start, level in STARTS.items()]
    arms.append(("teacher-hyperprior", "teacher-refit", 17.5))
    for number, (teacher, start, level) in enumerate(arms):
        trial = make_trial(4 * number, 8, teacher)
        rungs = tuple(
            rung.model_copy(
                update={
                    "bd_rate_pct": level + more,
                    "log_lagrangian_ratio": (level + more) / 100,
                    "training_s": 10.0,
                }
            )
            for rung, more in zip(trial.rungs, (20.0, 10.0, 0.0), strict=True)
        )
        start_of = None if start == "random" else "teacher-hyperprior"
        loss = Loss(start=start, latent=0.1 if teacher else 0.0)
        write(Store(run_folder), trial.changed(loss=loss, start_of=start_of, trial_id=f"{number}", rungs=rungs))
    return read_run(Store(run_folder))


def cells(text: str) -> list[dict[str, str]]:
    head, *rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr.*?</tr>", text)]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_gain_over_each_control_is_told_apart(of_three_starts: RunFiles) -> None:
    text = equal_images(of_three_starts)
    *_, last = cells(text)
    controls = {name.removeprefix("control: "): value for name, value in last.items() if name.startswith("control: ")}
    assert controls == {"random start": "+90.00", "slice": "+40.00", "refitted": "+20.00"}
    gains = {name: value for name, value in last.items() if name.startswith("best - ")}
    assert gains == {"best - random start": "-72.50", "best - slice": "-22.50", "best - refitted": "-2.50"}
    words = re.findall(r"<li>(.*?)</li>", text)
    assert words == [
        "hyperprior-n8-m96, 4,608 images: the start (refitted) was worth +70.0 points of BD-rate over a random one, "
        "+20.0 over a slice, the losses on top of it +2.5 (best of 1)."
    ]
    assert text.count('class="better"') == 4 * 3 and "worse" not in text


def test_where_controls_were_stopped_early_is_told_too(of_three_starts: RunFiles) -> None:
    """Their last common rung in ratios of the cost, as not all curves have a BD-rate there."""
    stopped = []
    for trial in of_three_starts.trials:
        rungs = trial.rungs
        if trial.teacher is None and trial.init != "teacher-refit":
            first = rungs[0].model_copy(update={"bd_rate_pct": None, "log_lagrangian_ratio": 2.0})
            trial = trial.changed(rungs=(first,))
        else:
            better = 0.1 if trial.teacher is None else 0.0
            first = rungs[0].model_copy(update={"log_lagrangian_ratio": better})
            trial = trial.changed(rungs=(first, *rungs[1:]))
        stopped.append(trial)
    text = equal_images(replace(of_three_starts, trials=tuple(stopped)))
    name, images = of_three_starts.trials[0].complexity_class, of_three_starts.trials[0].rungs[0].images_seen
    assert re.findall(r"<li>(.*?)</li>", text) == [
        f"{name}, {images:,} images: the start (refitted) was worth a factor of 6.69 in the cost J over a random one, "
        "a factor of 6.69 over a slice, the losses on top of it a factor of 1.11 (best of 1).",
        f"{name}, 4,608 images: the losses on top of it +2.5 points of BD-rate (best of 1).",
    ]


def test_at_equal_wall_time_filling_and_refitting_count(of_three_starts: RunFiles) -> None:
    """The distilled trial pays for the cache and for its half of the refitting: it is compared where it was by then."""
    account = of_three_starts.account
    assert account is not None
    seconds = sum(rung.training_s for rung in of_three_starts.trials[0].rungs)
    free = account.model_copy(update={"phases_s": {"features": 0.0, "starts": 0.0}})
    (row,) = cells(equal_wall_time(replace(of_three_starts, account=free)))
    assert float(row["seconds, slice"]) == pytest.approx(seconds)
    dear = account.model_copy(update={"phases_s": {"features": 0.4 * seconds, "starts": 0.0}})
    (late,) = cells(equal_wall_time(replace(of_three_starts, account=dear)))
    gains = [[of[f"best - {start}"] for start in ("random start", "slice", "refitted")] for of in (row, late)]
    assert gains[0] == ["-72.50", "-22.50", "-2.50"]
    assert all(float(after) > float(before) for before, after in zip(*gains, strict=True))


def test_a_page_elsewhere_leaves_the_run_folder_alone(run_folder, tmp_path, capsys):
    before = {path: path.stat().st_ctime_ns for path in (run_folder, *run_folder.rglob("*"))}
    assert main([str(run_folder), "--out", str(tmp_path / "page.html")]) == 0
    assert {path: path.stat().st_ctime_ns for path in (run_folder, *run_folder.rglob("*"))} == before
    assert main([str(run_folder), "--out", str(tmp_path / "front.svg")]) == 0
    assert (tmp_path / "front.svg").read_text() in (tmp_path / "page.html").read_text()
    write_report(run_folder)
    assert (tmp_path / "page.html").read_bytes() == (run_folder / "report.html").read_bytes()


@pytest.mark.parametrize("name", ["front.json", "page.png", "page", "spec.yaml"])
def test_a_page_is_never_written_over_another_kind_of_file(run_folder, capsys, name):
    before = {path: path.stat().st_ctime_ns for path in run_folder.rglob("*")}
    assert main([str(run_folder), "--out", str(run_folder / name)]) == 2
    line = f"--out: '{run_folder / name}' is not allowed: a name that ends in .html or .svg\n"
    assert capsys.readouterr().err == line
    assert {path: path.stat().st_ctime_ns for path in run_folder.rglob("*")} == before


def test_a_run_folder_that_cannot_be_written_is_one_line(run_folder, tmp_path, capsys):
    (run_folder / "report.html").unlink(missing_ok=True)
    (run_folder / "report.html").mkdir()
    assert main([str(run_folder)]) == 2
    assert capsys.readouterr().err == f"file://{run_folder}: Is a directory\n"
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_without_a_folder_is_one_line(run_folder, tmp_path):
    command = [sys.executable, "-m", "orchestrator.report"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    line = "python -m orchestrator.report: the following arguments are required: run; --help says what there is\n"
    assert done.stderr == line
    assert main([str(run_folder), "--out", str(tmp_path)]) == 2
    assert subprocess.run([*command, str(run_folder), "--out", str(tmp_path / "a.html")]).returncode == 0


def test_a_text_that_is_none_is_one_line(run_folder, capsys):
    (run_folder / "spec.yaml").write_bytes(b"\xff\xfe")
    assert main([str(run_folder)]) == 2
    assert capsys.readouterr().err == f"file://{run_folder}/spec.yaml: it is not UTF-8 text\n"


def test_a_run_folder_of_another_format_is_one_line(run_folder, capsys):
    assert main([str(run_folder)]) == 0
    (old,) = run_folder.glob("trials/00-*.json")
    content = json.loads(old.read_text())
    del content["format"], content["owners"]
    old.write_text(json.dumps(content | {"lost": False}))
    assert main([str(run_folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"file://{old}: no format number, but this version reads format 3: ")


@pytest.mark.parametrize("name", ["front.json", "anchor.json", "account.json", "coded/candidates.json"])
def test_a_folder_of_an_earlier_version_is_one_line(run_folder, capsys, name):
    content = json.loads((run_folder / name).read_text())
    del content["format"]
    (run_folder / name).write_text(json.dumps(content))
    assert main([str(run_folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"file://{run_folder}/{name}: no format number, but this version reads format 1: ")
    assert not (run_folder / "report.html").exists()
