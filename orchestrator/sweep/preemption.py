"""SIGTERM: the sweep has some seconds to save its running trials, and leaves.

That is what a preempted machine, `sbatch --signal=B:TERM@60`, a Kubernetes pod that is deleted and `ray job stop` send
ahead of SIGKILL. The driver is told; its trials hear of it by gang/notices.py and stop between two slices of training.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray import tune
from ray.exceptions import RayError

from orchestrator.logs import warn
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store
from orchestrator.sweep.gang.notices import Notices
from orchestrator.trials.files import read_trial

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on


class Preempted(BaseException):
    """The process was told to leave. Like KeyboardInterrupt no Exception, so that no library takes it for its own."""


class Leaving(tune.Callback):
    """Heeds SIGTERM: raises Preempted, at once or, while trials run, when they have saved what they have.

    Args:
        grace_s: seconds from the signal on after which the process ends in any case, saved or not.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._told, self._over = threading.Event(), threading.Event()
        self._trials: tuple[Store, Notices] | None = None
        self._saved: set[str] = set()  # trials, since the signal

    def listen(self) -> None:
        """Again after ray.init, which puts a handler of its own in place."""
        signal.signal(signal.SIGTERM, self._tell)

    def __reduce__(self) -> tuple[type[Leaving], tuple[float]]:
        return Leaving, (self._grace_s,)  # Tune writes a pickle of its callbacks, which nobody reads

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """While the context lasts."""
        before = signal.getsignal(signal.SIGTERM)
        self.listen()
        watch = threading.Thread(target=self._watch, name="preemption", daemon=True)
        watch.start()
        try:
            yield
        except SystemError as error:  # Ray's compiled code makes this of what the handler raises in it
            if isinstance(error.__cause__, Preempted):
                raise error.__cause__ from None
            raise
        finally:
            self._over.set()
            signal.signal(signal.SIGTERM, before)
            watch.join()

    @contextmanager
    def of_trials(self, run: Store, notices: Notices) -> Iterator[None]:
        """Trials run meanwhile, so SIGTERM is not Preempted at once."""
        self._trials = run, notices
        try:
            yield
        finally:
            self._trials = None
        if self._told.is_set():
            raise Preempted("no trial was running")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's loop comes by ten times a second."""
        if not self._told.is_set() or self._trials is None:
            return
        run, _ = self._trials
        running = {trial.config["trial_id"] for trial in trials if trial.status == "RUNNING"}
        for trial_id, record in in_threads(lambda trial_id: read_trial(run, trial_id), running - self._saved):
            if record is not None and record.status == "saved":
                self._saved.add(trial_id)
        if running <= self._saved:
            raise Preempted(f"{len(running)} running trials are saved")

    def _tell(self, *_: object) -> None:
        self._told.set()
        if self._trials is None:
            raise Preempted("nothing was being trained")

    def _watch(self) -> None:
        while not self._told.wait(0.5):
            if self._over.is_set():
                return
        deadline = time.monotonic() + self._grace_s
        noted = False
        while not self._over.wait(0.2) and time.monotonic() < deadline:
            if self._trials is not None and not noted:
                with suppress(RayError):  # the deadline stands
                    self._trials[1].leave()
                    noted = True
        if not self._over.is_set():
            line = f"preempted: not all was saved within {self._grace_s:g} s; the same command goes on from the rungs"
            warn(line)
            os._exit(EXIT_CODE)
