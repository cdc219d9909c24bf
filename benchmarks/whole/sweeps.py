"""Whole sweeps for benchmarks: variations of a specification, each run by the command in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.common.facts import ROOT
from orchestrator.results.account import ACCOUNT, Account
from orchestrator.results.files import needed
from orchestrator.spec.load import dump
from orchestrator.spec.sections import Student
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.space import by_size
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord
from testing.tree import CpuTime

PACE_STEPS = (20, 60)  # at the rungs of the sweep that measures the pace: the first ones are slower


@dataclass(frozen=True)
class Ran:
    """What a sweep left."""

    account: Account
    records: list[TrialRecord]  # in the order of the trials
    cpu: CpuTime
    watched: list[dict[str, Any]]  # what `watch` returned

    @property
    def trials_s(self) -> float:
        return self.account.phases_s["trials"]

    @property
    def starts_s(self) -> list[float]:
        """Seconds that each start of a gang took."""
        return [rung.startup_s for record in self.records for rung in record.rungs if rung.startup_s > 0]


class Bench:
    """Runs variations of a specification.

    Args:
        spec: with absolute paths.
        work: a folder; a sweep's own folder in it is made anew.
    """

    def __init__(self, spec: Spec, work: Path) -> None:
        self.spec, self.work = spec, work

    def varied(self, name: str, count: int, rungs: Sequence[int], **changes: Any) -> Spec:
        """The specification with other trials and rungs, nothing stopped, its results in the folder `name`."""
        data: dict[str, Any] = self.spec.model_dump()
        data |= {"name": "sweep", "trials": count, "candidates": 1, "results": str(self.work / name / "runs")}
        for field, value in changes.items():
            data[field] = data[field] | value if isinstance(value, dict) else value
        data["early_stopping"] |= {"rule": "none", "rungs": tuple(rungs)}
        return Spec.model_validate(data)

    def sweep(
        self,
        name: str,
        spec: Spec,
        watch: Callable[[subprocess.Popen[bytes], Spec], list[dict[str, Any]]] | None = None,
    ) -> Ran:
        """Runs a variation; `watch` looks at the process while it lasts."""
        say(f"{name}: {spec.trials} trials to {', '.join(map(str, spec.early_stopping.rungs))} images")
        folder = self.folder(name, spec)
        command = [str(ROOT / "jobs" / "sweep_feds.py"), "--spec", str(folder / "spec.yaml")]
        with running(command, folder) as process, CpuTime(process.pid).sampled() as cpu:
            watched = watch(process, spec) if watch is not None else []
            process.wait()
        run = folder / "runs" / spec.name
        return Ran(needed(Store(run), ACCOUNT, Account), read_trials(Store(run)), cpu, watched)

    def folder(self, name: str, spec: Spec) -> Path:
        """An empty folder with the specification in spec.yaml."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text(dump(spec))
        return folder

    @cached_property
    def pace(self) -> dict[Student, float]:
        """Seconds an image of each student without a teacher, on one gang, its first steps left out."""
        rungs = [steps * self.spec.training.batch_size for steps in PACE_STEPS]
        students = by_size(self.spec)
        ran = self.sweep("pace", self.varied("pace", len(students), rungs))  # the controls come first
        pace = {
            student: record.rungs[1].training_s / (rungs[1] - rungs[0])
            for student, record in zip(students, ran.records, strict=True)
        }
        say("pace: " + ", ".join(f"N={student.N} {value * 1000:.1f} ms an image" for student, value in pace.items()))
        return pace

    def images(self, seconds: float, students: Sequence[Student]) -> int:
        """About so many seconds of training, whole batches."""
        batch_size = self.spec.training.batch_size
        return max(1, round(seconds / fmean(self.pace[student] for student in students) / batch_size)) * batch_size


def start(arguments: Sequence[str], folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Python with these arguments in a folder, its output behind what is in output.txt there; no Ray or MLflow of the
    environment's but what `variables` name."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(ROOT), **variables}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )


@contextmanager
def running(arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`start`, to its end. Raises SystemExit if it fails."""
    process = start(arguments, folder)
    try:
        yield process
    except BaseException:
        process.terminate()
        raise
    if process.wait():
        raise SystemExit(f"exit code {process.returncode}: {folder}/output.txt")


def say(line: str) -> None:
    print(line, flush=True)
