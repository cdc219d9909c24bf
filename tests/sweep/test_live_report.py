"""The report of a sweep that trains: written again, and no fault of it is one of the sweep."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store.store import Store
from orchestrator.sweep import live_report
from orchestrator.sweep.live_report import LiveReport


class Writer:
    """Stands for `write_report`: counts, waits for `go`, raises what it is told to."""

    def __init__(self) -> None:
        self.written = 0
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def until(self, count: int) -> None:
        """So many pages were written."""
        until(lambda: self.written == count)

    def __call__(self, run: Store, *, stills: bool) -> None:
        assert not stills
        self.go.wait(10)
        self.written += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    found = Writer()
    monkeypatch.setattr(live_report, "write_report", found)
    return found


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(live_report, "say", found.append)
    monkeypatch.setattr(live_report, "warn", found.append)
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_is_written_after_a_change_and_said_once(tmp_path: Path, writer: Writer, lines: list[str]) -> None:
    with LiveReport(Store(tmp_path), pause_s=0.0) as report:
        time.sleep(0.05)
        assert writer.written == 0
        for count in (1, 2):
            report.changed()
            writer.until(count)
    assert lines == [f"report: file://{tmp_path}/report.html, written again as trials reach rungs"]


def test_changes_that_come_fast_share_a_page(tmp_path: Path, writer: Writer, lines: list[str]) -> None:
    with LiveReport(Store(tmp_path), pause_s=60.0) as report:
        for _ in range(50):
            report.changed()
        writer.until(1)
        report.changed()
        time.sleep(0.05)
        assert writer.written == 1
    assert writer.written == 2  # the last change is not lost


def test_an_error_is_one_line_and_does_not_end_it(tmp_path: Path, writer: Writer, lines: list[str]) -> None:
    writer.error = OSError("no space\nleft")
    with LiveReport(Store(tmp_path), pause_s=0.0) as report:
        for count in (1, 2):
            report.changed()
            writer.until(count)
        writer.error = None
        report.changed()
        until(lambda: len(lines) == 2)
    assert lines[0] == "report: not written this time: no space left" and lines[1].startswith("report: file://")


def test_a_sweep_that_ends_with_an_error_does_not_wait_for_a_page(
    tmp_path: Path, writer: Writer, lines: list[str]
) -> None:
    writer.go.clear()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), LiveReport(Store(tmp_path)) as report:
        report.changed()
        time.sleep(0.05)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 2
    writer.go.set()


def test_it_survives_being_pickled_by_tune(tmp_path: Path) -> None:
    with LiveReport(Store(tmp_path)) as report:
        assert callable(pickle.loads(pickle.dumps(report.changed)))  # noqa: S301
