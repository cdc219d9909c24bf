"""Work in processes of its own, set up as the workers of a sweep are."""

from __future__ import annotations

import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

_rendezvous: list[Any] = []  # of this process's group, which asks it again for each group within
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true"}


def workers(count: int) -> ProcessPoolExecutor:
    """A pool whose every task has a process of its own, with the environment that `orchestrator.sweep.cluster` gives
    to trials: malloc reads it when a process starts.
    """
    from orchestrator.sweep.cluster import SETTINGS as OF_A_SWEEP

    for name, value in (OF_A_SWEEP | SETTINGS).items():
        os.environ.setdefault(name, value)
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), max_tasks_per_child=1)


def join_alone(threads: int) -> None:
    """Makes this process rank 0 of 1, which is what the engine's DeepSpeed wants, with so many threads to compute."""
    import torch

    from orchestrator.distill.process_group import join_process_group, open_rendezvous

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    torch.set_num_threads(threads)
    _rendezvous.append(open_rendezvous("127.0.0.1"))
    join_process_group(0, 1, "127.0.0.1", _rendezvous[0].port)
