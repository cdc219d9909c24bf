from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.run_files import read_run
from orchestrator.results.format import FormatError
from orchestrator.store.store import Store
from orchestrator.sweep.run_folder.records import write_json
from orchestrator.trials.files import check_format, read_trial, read_trials
from testing.records import record, write
from testing.servers import FaultProxy

LATENCY_S = 0.05


class Slow(Store):
    """A store in a folder that answers as late as a distant server; it counts simultaneous requests."""

    def __init__(self, url: Path) -> None:
        super().__init__(url)
        self.reads = self.waiting = self.most = 0
        self._lock = threading.Lock()

    def read(self, name: str, *, checksum: bool = True) -> bytes:
        with self._lock:
            self.reads, self.waiting = self.reads + 1, self.waiting + 1
            self.most = max(self.most, self.waiting)
        time.sleep(LATENCY_S)
        with self._lock:
            self.waiting -= 1
        return super().read(name, checksum=checksum)


def a_run(run: Store, trials: int) -> None:
    for number in range(trials):
        write(run, record(f"{number:03}-a"))


def test_trials_are_read_side_by_side_and_in_order(tmp_path: Path) -> None:
    run = Slow(tmp_path)
    a_run(run, 40)
    began = time.monotonic()
    assert [trial.trial_id for trial in read_trials(run)] == [f"{number:03}-a" for number in range(40)]
    assert run.reads == 40 and run.most == 8 and time.monotonic() - began < 40 * LATENCY_S / 2


def test_reads_of_s3_overlap(fault_proxy: FaultProxy, tmp_path: Path) -> None:
    run = Store(f"s3://sweep/{tmp_path.name}")
    a_run(run, 24)
    fault_proxy.forget()
    fault_proxy.behave(latency_s=0.3, only=r"^GET .*/trials/\d")
    assert len(read_trials(run)) == 24
    gets: list[dict[str, Any]] = [request for request in fault_proxy.requests() if "-a.json" in request["path"]]
    assert len(gets) == 24
    together = [sum(a["started"] <= b["started"] < a["started"] + a["seconds"] for a in gets) for b in gets]
    assert max(together) >= 4


def test_a_folder_of_another_format_is_seen_by_one_read(tmp_path: Path) -> None:
    run = Slow(tmp_path)
    check_format(run)
    assert read_trial(run, "000-a") is None
    a_run(run, 3)
    run.reads = 0
    check_format(run)
    assert run.reads == 1
    old = json.loads(run.read("trials/000-a.json"))
    del old["format"]
    write_json(run, "trials/000-a.json", old)
    for act in (check_format, read_trials, read_run):
        with pytest.raises(FormatError, match=rf"^file://{tmp_path}/trials/000-a.json: no format number, but "):
            act(run)
