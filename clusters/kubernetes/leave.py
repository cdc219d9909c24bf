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

DRIVER = "jobs/sweep_feds.py"
TOLD_S = 10.0  # Ray then knows the exit code, and KubeRay, which asks every 3 s, hears of it from Ray


def drivers() -> list[int]:
    """Processes that run the sweep."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if len(words) > 1 and words[1].decode(errors="replace").endswith(DRIVER):
            found.append(int(folder.name))
    return found


def main(grace_s: float, told_s: float = TOLD_S) -> None:
    ends = time.monotonic() + grace_s
    told = drivers()
    for process in told:
        try:
            os.kill(process, signal.SIGTERM)
        except ProcessLookupError:
            continue
    while time.monotonic() < ends and drivers():
        time.sleep(0.2)
    if told:
        time.sleep(told_s)


if __name__ == "__main__":
    main(float(sys.argv[1]))
