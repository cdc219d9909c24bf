"""Waits until a job's nodes have joined its Ray: python -m clusters.slurm.joined NODES SECONDS"""

from __future__ import annotations

import logging
import sys
import time

import ray


def main(nodes: int, bound_s: float) -> int:
    """The exit code."""
    deadline = time.monotonic() + bound_s
    while True:
        try:
            if not ray.is_initialized():
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            alive = sum(node["Alive"] for node in ray.nodes())
        except Exception:  # Ray raises no other type; the head may be on its way
            alive = 0
        if alive >= nodes:
            return 0
        if time.monotonic() > deadline:
            print(f"slurm: {alive} of {nodes} nodes have joined Ray within {bound_s:g} s; see above", file=sys.stderr)
            return 1
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
