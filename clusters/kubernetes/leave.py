"""The head pod's preStop hook: ends the sweep's driver, and waits for it, before Kubernetes ends Ray.

    python clusters/kubernetes/leave.py GRACE_S

It is run by its path and imports nothing of ours, so that it starts at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = b"jobs/sweep_feds.py"  # as the job's script names it, from the repository's root
TOLD_S = 10.0  # Ray then knows the exit code, and KubeRay, which asks every 3 s, hears of it from Ray


def drivers(repository: Path = REPOSITORY) -> list[int]:
    """Processes that run a sweep of this repository."""
    drivers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[1:2] == [DRIVER] and (folder / "cwd").resolve() == repository:
                drivers.append(int(folder.name))
        except OSError:  # it has ended, or is another user's
            continue
    return drivers


def main(grace_s: float, told_s: float = TOLD_S, repository: Path = REPOSITORY) -> None:
    ends = time.monotonic() + grace_s
    told = drivers(repository)
    for process in told:
        try:
            os.kill(process, signal.SIGTERM)
        except ProcessLookupError:
            continue
    while time.monotonic() < ends and drivers(repository):
        time.sleep(0.2)
    if told:
        time.sleep(told_s)


if __name__ == "__main__":
    main(float(sys.argv[1]))
