"""Registers a run folder in a process that is killed in the middle: `python -m tests.registry.killed FOLDER STEP TIME`.

STEP is a function of `STEPS`. The process kills itself with SIGKILL, so that nothing is cleaned up, as soon as
that function has returned for the TIMEth time.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any

from alembic.runtime.migration import HeadMaintainer
from mlflow import MlflowClient

from jobs.register_front import main
from orchestrator.sweep.front import publish


def into_artifacts(*arguments: Any, **_: Any) -> bool:
    """Whether a file of a bundle was copied to where MLflow has its artifacts."""
    to = str(arguments[1])
    return "/mlartifacts/" in to and "/bundle/" in to


def always(*_: Any, **__: Any) -> bool:
    """Every call counts."""
    return True


# What it belongs to, and which of its calls count.
STEPS: dict[str, tuple[Any, Callable[..., bool]]] = {
    "update_to_step": (HeadMaintainer, always),  # each step of making MLflow's tables
    "create_experiment": (MlflowClient, always),
    "create_run": (MlflowClient, always),
    "log_batch": (MlflowClient, always),
    "create_registered_model": (MlflowClient, always),
    "update_model_version": (MlflowClient, always),
    "copyfile": (shutil, into_artifacts),
    "log_artifacts": (MlflowClient, always),
    "create_model_version": (MlflowClient, always),
    "set_registered_model_alias": (MlflowClient, always),
    "write_file": (publish, always),
}


def kill_after(step: str, time: int) -> None:
    """Lets this process be killed after that call."""
    owner, counts = STEPS[step]
    before, left = getattr(owner, step), time

    def after(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        answer = before(*arguments, **named)
        left -= counts(*arguments, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, step, after)


if __name__ == "__main__":
    kill_after(sys.argv[2], int(sys.argv[3]))
    sys.exit(main([sys.argv[1]]))
