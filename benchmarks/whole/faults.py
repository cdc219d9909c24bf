"""Faults at random moments of a real sweep, again and again: is anything lost, is anything decided otherwise?

    python -m benchmarks.whole.faults --work FOLDER [--tries 5] [--faults rank-killed driver-killed ...]

A sweep of 5 trials in one gang of 2 ranks, drawn by TPE, runs undisturbed once. Each try then runs the same sweep in a
folder of its own, causes its fault at a moment drawn from (fault, try), and starts the same command until it returns 0.
Faults:

    rank-killed        SIGKILL to one rank
    trial-killed       SIGKILL to the trial's Tune actor, whose ranks go with it
    driver-killed      SIGKILL to the sweep's process
    driver-terminated  SIGTERM to it: exit code 75 is expected
    s3-away            the S3 server that holds store and results is killed, and is back after 60 s

A row a try: when, how the starts ended, `lost` (rungs in the trials' files at that moment that are gone or measured
otherwise in the end), and `equal`, by part, whether all is as in the undisturbed sweep (`states`): `points` (what rungs
measured), `rungs` (and decided), `search` (what TPE drew, and would draw next), `checkpoints` (all that were seen at
rungs, every tensor bit for bit; not looked at on S3), `left` (weights, bit for bit, and no checkpoint), `mlflow` (runs
and versions), `front` (with all bitstreams). A trial whose actor is killed fails and is tried again by the next start,
after the others: its reports come later, so decisions may differ. Rows that are in the results are not made again: keep
FOLDER to go on after an interruption.
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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, TRAIN, VALIDATION, WEIGHTS, facts, revision, write
from benchmarks.whole import states
from benchmarks.whole.sweeps import start
from orchestrator.registry.database import database_url
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser
from orchestrator.store.store import Store
from testing.tree import titled

FAULTS = ("rank-killed", "trial-killed", "driver-killed", "driver-terminated", "s3-away")
# of processes, as Ray shows them; Tune wraps a trainable that has resources
TITLES = {"rank-killed": "ray::Rank", "trial-killed": "ray::ResourceTrainable"}
AWAY_S = 60.0
STARTS = 4
MISSES = 3
START_BOUND_S = 900.0


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine, work = facts(), Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    spec = work / "faults.yaml"
    spec.write_text(yaml.safe_dump(_spec()))
    rows = _before(Path(options.results) / "faults.json")
    undisturbed = Sweep(spec, work / "undisturbed")
    with undisturbed.watched():
        if undisturbed.start().wait() != 0:
            raise SystemExit(f"the undisturbed sweep failed: {undisturbed.folder}/output.txt")
    expected = undisturbed.state()
    for number in range(options.tries):
        for fault in options.faults:
            if any((row["fault"], row["try"]) == (fault, number) for row in rows):
                continue
            for miss in range(MISSES):  # a sweep that was quicker than the undisturbed one had ended by then
                row = attempt(fault, number, miss, spec, work / f"{fault}-{number}-{miss}", undisturbed, expected)
                if row["met"]:
                    break
            rows.append(row)
            print(json.dumps(rows[-1]), flush=True)
            write(options.results, "faults", machine, {"summary": summary(rows), "rows": rows})
    return 0


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By fault: how often tried, how often all was as in the undisturbed sweep, and what was not."""
    return {
        fault: {
            "tries": sum(row["fault"] == fault for row in rows),
            "equal": sum(row["fault"] == fault and all(row["equal"].values()) for row in rows),
            "unequal": Counter(
                part for row in rows if row["fault"] == fault for part in row["equal"] if not row["equal"][part]
            ),
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
        self.kept = folder / "kept"  # checkpoints that `watched` saw
        database = folder / "mlflow.db" if place else folder / "runs" / "faults" / "mlflow.db"
        self.mlflow, self._spec = database_url(database), load_spec(spec, []).resolved(ROOT)
        self._arguments = [str(ROOT / "jobs" / "sweep_feds.py"), "--spec", str(spec)]
        self._arguments += ["--set", f"results={root}/runs", "--set", f"store={root}/store"]
        self._arguments += ["--set", f"node_cache.folder={folder / 'node'}"]

    def start(self) -> subprocess.Popen[bytes]:
        away = {"MLFLOW_TRACKING_URI": self.mlflow} if self.run.folder is None else {}
        return start(self._arguments, self.folder, **away)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sees the checkpoints of the starts in it."""
        if self.run.folder is None:  # where listing again and again would be a load
            yield
        else:
            with states.checkpoints(self.run, self.kept):
                yield

    def state(self) -> dict[str, Any]:
        """Of a sweep that has ended."""
        return {
            "rungs": states.rungs(self.run),
            "search": states.searched(self.run, self._spec),
            "left": states.left(self.run),
            "mlflow": states.registered(self.mlflow),
            "front": states.front(self.run),
        }

    def trials_s(self) -> float:
        """Seconds from the first to the last report."""
        ends = [
            rung["ended_at"] for name in self.run.list("trials") for rung in json.loads(self.run.read(name))["rungs"]
        ]
        return max(ends) - min(ends)


def attempt(
    fault: str, number: int, miss: int, spec: Path, folder: Path, undisturbed: Sweep, expected: Mapping[str, Any]
) -> dict[str, Any]:
    """One try; see the module. `expected`: the undisturbed sweep's state."""
    from testing.servers import SeaweedFS

    shutil.rmtree(folder, ignore_errors=True)  # of a try that was cut off
    server = SeaweedFS(folder / "server") if fault == "s3-away" else None
    with server or nullcontext():
        if server is not None:
            os.environ |= server.environment
        sweep = Sweep(spec, folder, f"s3://{server.bucket}/try" if server else None)
        moment_s = random.Random(f"{fault} {number} {miss}").uniform(0.0, undisturbed.trials_s())
        began = time.monotonic()
        with sweep.watched():
            process = sweep.start()
            _await_training(process, began)
            time.sleep(moment_s)
            before = states.rungs(sweep.run)
            met = _cause(fault, process, server)
            exits = [process.wait()]
            while exits[-1] != 0 and len(exits) < STARTS:
                exits.append(sweep.start().wait())
        seconds, after = time.monotonic() - began, states.rungs(sweep.run)
        measured = _measured(after)
        lost = sum(rung not in measured.get(trial, ()) for trial, rungs in _measured(before).items() for rung in rungs)
        both = [path for path in sorted(undisturbed.kept.iterdir()) if (sweep.kept / path.name).exists()]
        equal = dict.fromkeys(expected, False)
        if exits[-1] == 0:
            state = sweep.state()
            equal = {part: state[part] == expected[part] for part in expected}
        equal["points"] = _close(measured, _measured(expected["rungs"]))
        equal["rungs"] = equal["rungs"] or _close(after, expected["rungs"])
        equal["checkpoints"] = all(states.contents(path) == states.contents(sweep.kept / path.name) for path in both)
        shutil.rmtree(sweep.kept, ignore_errors=True)
        return {
            "git_revision": revision(),
            "fault": fault,
            "try": number,
            "met": met,  # False: the sweep had ended its trials by then, each time
            "moment_s": round(moment_s, 2),
            "reported_before": sum(len(rungs) for rungs in before.values()),
            "exit_codes": exits,
            "seconds": round(seconds, 1),
            "lost": lost,
            "checkpoints_compared": len(both),
            "losses_bit_for_bit": after == expected["rungs"],
            "equal": equal,
        }


def _measured(rungs: states.Rungs) -> states.Rungs:
    return {
        trial: [{key: value for key, value in rung.items() if key != "decision"} for rung in reported]
        for trial, reported in rungs.items()
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
            processes = titled(process.pid, (TITLES[fault],))
            if not processes:
                return False
            with suppress(psutil.NoSuchProcess):
                processes[-1].kill()
    return True


def _await_training(process: subprocess.Popen[bytes], began: float) -> None:
    while time.monotonic() - began < START_BOUND_S and process.poll() is None:
        if titled(process.pid, ("ray::Rank.train",)):
            return
        time.sleep(0.05)
    raise SystemExit("the sweep trains nothing")


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
        "trials": 5,
        "photographs": {"train": TRAIN, "validation": VALIDATION},
        "crops": {"count": 64, "size": 64},
        "validation": {"crops": 2, "size": 128},
        "teachers": [{"name": name, "weights": weights} for name, weights in teachers.items()],
        "students": [{"family": "hyperprior", "N": 64, "M": 96, "init": teachers["hyperprior"]}],
        "losses": [{"latent": {"low": 0.003, "high": 0.3}, "reconstruction": {"low": 0.03, "high": 3.0}}],
        "search": {"method": "tpe"},
        "training": {"batch_size": 8, "ranks_per_trial": 2},
        "early_stopping": {"rungs": [80, 240, 640], "reduction": 2},
        "preemption": {"grace_s": 60},
        "candidates": 2,
    }


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", required=True, metavar="FOLDER")
    add("--tries", type=count, default=5)
    add("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
