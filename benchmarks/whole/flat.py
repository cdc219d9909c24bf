"""Resident memory of a sweep's processes over many trials in one gang.

It is read from outside, when a trial's file has its last rung: model and engine are still there then, and the ranks
wait for what is decided.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import linear_regression
from typing import Any

import psutil

from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.space import combinations, trials
from orchestrator.trials.files import read_trial
from testing.tree import titled

SHOWN = (1, 10, 25, 50, 75, 100)
FITTED = (25, 100)  # first and last trial of the slope: before them caches fill
POLL_S = 0.03
# as Ray shows it: in a call of Tune's, and between two
TRAINABLE, RANK = ("ray::ResourceTrainable", "ray::SweepTrial"), ("ray::Rank",)


def of_many(spec: Spec, least: int) -> Spec:
    """The specification with so many trials or a few more: all of its configurations, each with several seeds."""
    configurations = len(combinations(spec))
    replicates = math.ceil(least / configurations)
    data: dict[str, Any] = spec.model_dump()
    data |= {"trials": replicates * configurations}
    data["search"] |= {"method": "grid", "replicates": replicates}
    return Spec.model_validate(data)


def watch(process: subprocess.Popen[bytes], spec: Spec) -> list[dict[str, Any]]:
    """A row a trial, in the order of their ends on one gang: MB of the driver, the trainable and each rank."""
    run, rungs = Store(spec.results) / spec.name, len(spec.early_stopping.rungs)
    rows: list[dict[str, Any]] = []
    for number, trial in enumerate(trials(spec), start=1):
        while _rungs(run, trial.trial_id) < rungs:
            if process.poll() is not None:
                return rows
            time.sleep(POLL_S)
        rows.append({"number": number, "trial_id": trial.trial_id, "mb": resident_mb(process.pid)})
        if number in SHOWN:
            print(f"  after {number} trials: {rows[-1]['mb']}", flush=True)
    return rows


def _rungs(run: Store, trial_id: str) -> int:
    """How many the trial has reached."""
    record = read_trial(run, trial_id)
    return len(record.rungs) if record else 0


def resident_mb(driver: int) -> dict[str, float]:
    """By role; one that has ended is left out."""
    processes = [("driver", psutil.Process(driver)), *(("trainable", process) for process in titled(driver, TRAINABLE))]
    processes += [(f"rank {place}", process) for place, process in enumerate(titled(driver, RANK))]
    mb = {}
    for role, process in processes:
        with suppress(psutil.NoSuchProcess):
            mb[role] = round(process.memory_info().rss / 1e6, 2)
    return mb


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By role: MB after some of the trials, the largest, and MB a trial by least squares over the trials FITTED."""
    by_role = {}
    for role in rows[0]["mb"]:
        mb = {row["number"]: row["mb"][role] for row in rows if role in row["mb"]}  # the last trial's gang goes soon
        fitted = {number: value for number, value in mb.items() if FITTED[0] <= number <= FITTED[1]}
        slope = round(linear_regression(list(fitted), list(fitted.values())).slope, 4) if len(fitted) > 1 else None
        by_role[role] = {
            "at_mb": {number: mb[number] for number in SHOWN if number in mb},
            "max_mb": max(mb.values()),
            "slope_mb_per_trial": slope,
        }
    return by_role
