"""Faults at random moments of a real sweep, again and again: is anything lost, is anything decided otherwise?

    python -m benchmarks.faults --work FOLDER [--tries 5] [--faults rank-killed driver-killed ...]

A sweep of 3 trials on 2 ranks runs undisturbed once. Each try then runs the same sweep in a folder of its own, causes
its fault at a moment drawn from (fault, try), and starts the same command until it returns 0. Faults:

    rank-killed        SIGKILL to one rank
    trial-killed       SIGKILL to the trial's Tune actor, whose ranks go with it
    driver-killed      SIGKILL to the sweep's process
    driver-terminated  SIGTERM to it: exit code 75 is expected
    s3-away            the S3 server that holds store and results is killed, and is back after 60 s

A row a try: when, how the starts ended, `lost` (rungs in the trials' files at that moment that are gone or another in
the end), `equal` (all decisions, points and losses are the undisturbed run's) and `front_equal`. Rows that are in the
results are not made again: keep FOLDER to go on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.facts import RESULTS, ROOT, TRAIN, VALIDATION, WEIGHTS, facts, write
from orchestrator.store import Store

FAULTS = ("rank-killed", "trial-killed", "driver-killed", "driver-terminated", "s3-away")
# of processes, as Ray shows them; Tune wraps a trainable that has resources
TITLES = {"rank-killed": "ray::Rank", "trial-killed": "ray::ResourceTrainable"}
AWAY_S = 60.0
STARTS = 4
MISSES = 3
START_BOUND_S = 900.0
DECIDED = ("images_seen", "points", "bd_rate_pct", "log_lagrangian_ratio", "losses", "decision")
Rungs = dict[str, list[dict[str, Any]]]


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, work = facts(), Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    spec = work / "faults.yaml"
    spec.write_text(yaml.safe_dump(_spec()))
    rows = _before(Path(options.results) / "faults.json")
    undisturbed = Sweep(spec, work / "undisturbed")
    if undisturbed.start().wait() != 0:
        raise SystemExit(f"the undisturbed sweep failed: {undisturbed.folder}/output.txt")
    for number in range(options.tries):
        for fault in options.faults:
            if any((row["fault"], row["try"]) == (fault, number) for row in rows):
                continue
            for miss in range(MISSES):  # a sweep that was quicker than the undisturbed one had ended by then
                row = attempt(fault, number, miss, spec, work / f"{fault}-{number}-{miss}", undisturbed)
                if row["met"]:
                    break
            rows.append(row)
            print(json.dumps(rows[-1]), flush=True)
            write(options.results, "faults", machine, {"summary": summary(rows), "rows": rows})
    return 0


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """By fault: how often tried, and how often all was well."""
    return {
        fault: {
            "tries": sum(row["fault"] == fault for row in rows),
            "equal": sum(row["fault"] == fault and row["equal"] and row["front_equal"] for row in rows),
            "lost_rungs": sum(row["lost"] for row in rows if row["fault"] == fault),
        }
        for fault in FAULTS
    }


class Sweep:
    """The command in a folder of its own, and what it leaves there."""

    def __init__(self, spec: Path, folder: Path, place: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, root = folder, place or str(folder)
        self.run = Store(f"{root}/runs/faults")
        self._command = [sys.executable, str(ROOT / "jobs" / "sweep_feds.py"), "--spec", str(spec)]
        self._command += ["--set", f"results={root}/runs", "--set", f"store={root}/store"]
        self._command += ["--set", f"node_cache.folder={folder / 'node'}"]

    def start(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(ROOT)}
        if self.run.url.startswith("s3://"):
            environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.folder / 'mlflow.db'}"
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                self._command, cwd=self.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def rungs(self) -> Rungs:
        """By trial: what each rung measured and decided. A rung without a decision is not reported yet."""
        found = {}
        for name in self.run.list("trials"):
            with suppress(FileNotFoundError):
                record = json.loads(self.run.read(name))
                rungs = [{key: rung[key] for key in DECIDED} for rung in record["rungs"] if "decision" in rung]
                found[record["trial_id"]] = rungs
        return found

    def front(self) -> list[dict[str, Any]]:
        """Without times."""
        entries = json.loads(self.run.read("front.json"))
        return [{key: value for key, value in entry.items() if not key.endswith("_s")} for entry in entries]

    def trials_s(self) -> float:
        """Seconds from the first to the last report."""
        ends = [
            rung["ended_at"] for name in self.run.list("trials") for rung in json.loads(self.run.read(name))["rungs"]
        ]
        return max(ends) - min(ends)


def attempt(fault: str, number: int, miss: int, spec: Path, folder: Path, undisturbed: Sweep) -> dict[str, Any]:
    """One try; see the module."""
    from tests.servers import SeaweedFS

    shutil.rmtree(folder, ignore_errors=True)  # of a try that was cut off
    server = SeaweedFS(folder / "server") if fault == "s3-away" else None
    with server or nullcontext():
        if server is not None:
            os.environ |= server.environment
        sweep = Sweep(spec, folder, f"s3://{server.bucket}/try" if server else None)
        moment_s = random.Random(f"{fault} {number} {miss}").uniform(0.0, undisturbed.trials_s())
        began, process = time.monotonic(), sweep.start()
        _await_training(process, began)
        time.sleep(moment_s)
        before = sweep.rungs()
        met = _cause(fault, process, server)
        exits = [process.wait()]
        while exits[-1] != 0 and len(exits) < STARTS:
            exits.append(sweep.start().wait())
        after, expected = sweep.rungs(), undisturbed.rungs()
        lost = sum(rung not in after.get(trial, ()) for trial, rungs in before.items() for rung in rungs)
        return {
            "fault": fault,
            "try": number,
            "met": met,  # False: the sweep had ended its trials by then, each time
            "moment_s": round(moment_s, 2),
            "reported_before": sum(len(rungs) for rungs in before.values()),
            "exit_codes": exits,
            "seconds": round(time.monotonic() - began, 1),
            "lost": lost,
            "equal": after == expected or _close(after, expected),
            "bitwise_equal": after == expected,
            "front_equal": sweep.front() == undisturbed.front() if exits[-1] == 0 else False,
        }


def _cause(fault: str, process: subprocess.Popen[bytes], server: Any) -> bool:
    match fault:
        case "driver-killed":
            process.kill()
        case "driver-terminated":
            process.terminate()
        case "s3-away":
            server.kill()
            time.sleep(AWAY_S)
            server.start()
        case _:
            found = _processes(process.pid, TITLES[fault])
            if not found:
                return False
            with suppress(psutil.NoSuchProcess):
                found[-1].kill()
    return True


def _await_training(process: subprocess.Popen[bytes], began: float) -> None:
    while time.monotonic() - began < START_BOUND_S and process.poll() is None:
        if _processes(process.pid, "ray::Rank.train"):
            return
        time.sleep(0.05)
    raise SystemExit("the sweep trains nothing")


def _processes(driver: int, title: str) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if " ".join(child.cmdline()).startswith(title):
                    found.append(child)
    return found


def _close(ours: Any, theirs: Any) -> bool:
    """Equal but for the roundings of mean losses, whose sums a checkpoint in mid-segment holds as means over ranks."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(_close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(_close(*pair) for pair in zip(ours, theirs, strict=True))
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= 1e-6 * abs(theirs)
    return bool(ours == theirs)


def _before(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def _spec() -> dict[str, Any]:
    teachers = {name: str(WEIGHTS / f"teacher-{name}.safetensors") for name in ("hyperprior", "mean-scale")}
    return {
        "name": "faults",
        "trials": 3,
        "photographs": {"train": TRAIN, "validation": VALIDATION},
        "crops": {"count": 64, "size": 64},
        "validation": {"crops": 2, "size": 128},
        "teachers": [{"name": name, "weights": weights} for name, weights in teachers.items()],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teachers["hyperprior"]}],
        "losses": [{"latent": 0.1, "reconstruction": 0.3}],
        "training": {"batch_size": 8, "ranks_per_trial": 2},
        "early_stopping": {"rungs": [80, 240, 640], "reduction": 2},
        "preemption": {"grace_s": 60},
        "candidates": 2,
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", required=True, metavar="FOLDER")
    add("--tries", type=int, default=5)
    add("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(main())
