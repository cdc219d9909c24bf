"""A run folder that holds only the files that a report may read, and its page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.report.costs import COSTS
from orchestrator.report.page import write_report
from orchestrator.report.run_files import RunFiles, read_run
from orchestrator.results.account import Account
from orchestrator.results.anchor import AnchorFile
from orchestrator.results.files import write_file
from orchestrator.results.front import Candidates, Front
from orchestrator.results.versions import Versions
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Start, Student
from orchestrator.store.store import Store
from orchestrator.trials.record import TrialRecord
from testing.records import record, rung, write
from tests.results.builders import byte_counts, coded_student, gang_seconds

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
        encoder_macs_per_pixel=SIZES[N] / 2,
        decoder_macs_per_pixel=SIZES[N] / 2,
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
            named = ("trial_id", "teacher", "student", "complexity_class", "images_seen", *COSTS)
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
