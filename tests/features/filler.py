"""What tests of faults fill, here or in a process of its own that they kill and pause. Without torch, to start fast."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from orchestrator.features.fill.fill import FillReport, fill
from orchestrator.features.format.key import FeaturePlan, TeacherWeights, plan_features
from orchestrator.photographs.crops import CropPlan, plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.photographs.survey import survey
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store

ROOT = Path(__file__).parents[2]
RAY_FOLDER = re.compile(r"/tmp/ray-\w+")  # in the command line of every process of a Ray
TRAIN = ROOT / "data" / "quickstart" / "train"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is filled: crops of 64x64 pixels, their own pixels and what a teacher says of them."""

    crops: int
    rate_points: int
    teacher: TeacherWeights
    photographs: Sequence[Photograph]
    plan: CropPlan
    feature_plans: tuple[FeaturePlan, FeaturePlan]

    @classmethod
    def of(cls, crops: int, rate_points: int, teacher: TeacherWeights) -> Work:
        photographs = survey(TRAIN, minimum_side=128).photographs
        plan = plan_crops(photographs, Crops(count=crops, size=64, downscale=(0.7, 1.0)), rate_points, seed=0)
        return cls(
            crops=crops,
            rate_points=rate_points,
            teacher=teacher,
            photographs=photographs,
            plan=plan,
            feature_plans=(plan_features(plan), plan_features(plan, teacher)),
        )

    @property
    def shards(self) -> int:
        return 2 * len(self.plan.shards)

    def objects(self) -> set[str]:
        return {
            features.object(tap, shard)
            for features in self.feature_plans
            for tap in features.taps
            for shard in range(len(features.shards))
        }

    def fill(self, url: str, lease_s: float = 60.0, say: Callable[[str], None] = lambda line: None) -> FillReport:
        return fill(Store(url), self.plan, self.feature_plans, self.photographs, say, lease_s=lease_s)


def until(reached: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Waits for something true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (result := reached()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return result


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def begun(pid: int) -> str | None:
    """When a process was started, which tells it from a later one with its number; None if it has ended."""
    with suppress(OSError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return None if state == "Z" else rest[18]
    return None


def tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    processes = [pid]
    for process in processes:
        with suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                processes += map(int, (thread / "children").read_text().split())
    return processes


class Filler:
    """A fill in a process of its own, with a Ray of its own that has one CPU; it waits for `go`."""

    def __init__(self, work: Work) -> None:
        arguments = {
            "crops": work.crops,
            "rate_points": work.rate_points,
            "teacher": asdict(work.teacher),
        }
        self._ready, self._stopped, self._killed, self._folders = (
            False,
            list[int](),
            dict[int, str | None](),
            set[str](),
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.features.filler", json.dumps(arguments)],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that signals to the process group of its Ray do not reach this process
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self.kill()
        _signal(self._left(), signal.SIGKILL)
        until(lambda: not self.alive())
        for stream in (self._input, self._output):
            with suppress(OSError):
                stream.close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def wait(self) -> None:
        """Waits until it is ready."""
        if not self._ready:
            assert self._output.readline() == "ready\n"
            self._ready = True

    def go(self, url: str, lease_s: float) -> None:
        self.wait()
        self._input.write(json.dumps({"url": url, "lease_s": lease_s}) + "\n")
        self._input.flush()

    def report(self) -> FillReport:
        output, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, output
        return FillReport(**json.loads(output))

    def pause(self) -> None:
        self._stopped = tree(self._process.pid)
        _signal(self._stopped, signal.SIGSTOP)

    def resume(self) -> None:
        _signal(self._stopped, signal.SIGCONT)

    def kill(self, *, driver_only: bool = False) -> None:
        """Kills all processes at once, as a machine that is lost; or the driver alone, which workers may survive."""
        pids = tree(self._process.pid)
        self._killed = {pid: begun(pid) for pid in pids}
        self._folders |= {folder for pid in pids for folder in RAY_FOLDER.findall(command_line(pid))}
        if driver_only:
            _signal(pids[:1], signal.SIGKILL)
        else:
            _signal(pids, signal.SIGSTOP)  # none of them sees another die
            _signal(pids, signal.SIGKILL)
        self._process.wait()

    def alive(self) -> int:
        """How many processes of a killed one there still are: workers for 2 s, Ray's agents for a minute."""
        return len(self._left())

    def _left(self) -> list[int]:
        return [pid for pid, began in self._killed.items() if began is not None and begun(pid) == began]


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Spare:
    """Fillers that start while tests do other things: each that is taken has the next one started, up to `count`."""

    def __init__(self, work: Work, count: int) -> None:
        self._work, self._left = work, count
        self._next: Filler | None = None
        self._start()

    def _start(self) -> None:
        self._next = Filler(self._work) if self._left else None
        self._left -= 1

    def take(self) -> Filler:
        taken = self._next or Filler(self._work)
        taken.wait()
        self._start()
        return taken

    def close(self) -> None:
        if self._next is not None:
            with self._next:
                self._next.kill()


def main(arguments: dict[str, Any]) -> None:
    from orchestrator.sweep.cluster import connected

    work = Work.of(arguments["crops"], arguments["rate_points"], TeacherWeights(**arguments["teacher"]))
    with connected(num_cpus=1), tempfile.TemporaryDirectory() as folder:
        Work.of(100, 5, work.teacher).fill(folder)  # its worker has then loaded what a fill needs
        print("ready", flush=True)
        if line := sys.stdin.readline():
            given = json.loads(line)
            print(json.dumps(asdict(work.fill(given["url"], given["lease_s"]))))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
