"""Preemption: on SIGTERM the sweep saves its running trials within some seconds, and exits.

A preempted machine, `sbatch --signal=B:TERM@60`, the deletion of a Kubernetes pod and `ray job stop` send SIGTERM some
time before SIGKILL. The driver gets it and tells its trials by gang/notices.py; they stop between two slices of
training.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from ray import tune
from ray.exceptions import RayError

from orchestrator.logs import warn
from orchestrator.spec.messages import without_credentials
from orchestrator.store.in_threads import in_threads
from orchestrator.store.store import Store
from orchestrator.trials.files import read_trial

NOTHING = "nothing was being trained"
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to continue


class Preempted(BaseException):
    """The process was told to exit. Not an Exception, like KeyboardInterrupt, so that no library catches it."""


class Leaving(Protocol):
    """What tells the processes that train."""

    def leave(self) -> None:
        """Tell them to save and to stop. Raises RayError: it gave no answer."""


class SigtermHandler(tune.Callback):
    """Raises Preempted on SIGTERM: at once or, while trials run, when they are saved.

    At once means by a KeyboardInterrupt, which `installed` turns into Preempted: no other exception ends a call of Ray
    that waits. Another one is kept until the call returns, which may be after the grace.

    Args:
        grace_s: seconds from the signal on after which the process ends in any case, saved or not.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._signalled, self._ended = threading.Event(), threading.Event()
        self._interrupted = False  # at once
        self._trials: tuple[Store, Leaving] | None = None
        self._saved: set[str] = set()  # ids of trials that were saved since the signal

    def install(self) -> None:
        """Set the handler. To be called again after ray.init, which sets its own."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def __reduce__(self) -> tuple[type[SigtermHandler], tuple[float]]:
        return SigtermHandler, (self._grace_s,)  # Tune pickles its callbacks; the pickle is not used

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle SIGTERM while the context lasts.

        Raises:
            Preempted: also in place of an error after the signal. Some come of it: compiled code wraps what a handler
                raises in it in a SystemError, and a cluster that goes down with this process no longer answers.
            KeyboardInterrupt: SIGINT; also in place of an error that came of it.
        """
        before = signal.getsignal(signal.SIGTERM)
        self.install()
        watch = threading.Thread(target=self._watch, name="preemption", daemon=True)
        watch.start()
        try:
            yield
        except KeyboardInterrupt as interrupt:
            raise self._meant_by(interrupt) from None
        except Exception as error:
            if raised := _raised_by_handler(error):
                raise self._meant_by(raised) from None
            if self._signalled.is_set():
                line = (str(error).splitlines() or [type(error).__name__])[0]
                raise Preempted(f"not all was saved ({without_credentials(line)})") from error
            raise
        except SystemExit as end:  # from the handler that ray.init has while it starts Ray
            if end.code == signal.SIGTERM:
                raise Preempted(NOTHING) from None
            raise
        finally:
            self._ended.set()
            if not self._signalled.is_set():  # else the process ends, and another SIGTERM must not change its exit code
                signal.signal(signal.SIGTERM, before)
            watch.join()

    @contextmanager
    def saving_trials(self, run: Store, notices: Leaving) -> Iterator[None]:
        """While the context lasts, trials run: on SIGTERM they are saved before Preempted is raised.

        Args:
            run: the run folder.
            notices: tells the trials.
        """
        self._trials = run, notices
        try:
            yield
        finally:
            self._trials = None
        if self._signalled.is_set():
            raise Preempted("no trial was running")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune's loop about ten times a second. Raises Preempted once all running trials are saved."""
        if not self._signalled.is_set() or self._trials is None:
            return
        run, _ = self._trials
        running = {trial.config["trial_id"] for trial in trials if trial.status == "RUNNING"}
        for trial_id, record in in_threads(lambda trial_id: read_trial(run, trial_id), running - self._saved):
            if record is not None and record.status == "saved":
                self._saved.add(trial_id)
        if running <= self._saved:
            raise Preempted(f"{len(running)} running trials are saved")

    def _on_sigterm(self, *_: object) -> None:
        if self._signalled.is_set():
            return  # what the first one began goes on undisturbed
        self._signalled.set()
        if self._trials is None:
            self._interrupted = True
            raise KeyboardInterrupt

    def _meant_by(self, raised: Preempted | KeyboardInterrupt) -> Preempted | KeyboardInterrupt:
        return Preempted(NOTHING) if self._interrupted and isinstance(raised, KeyboardInterrupt) else raised

    def _watch(self) -> None:
        """Runs in a thread: tells the trials, and ends the process at the deadline."""
        while not self._signalled.wait(0.5):
            if self._ended.is_set():
                return
        deadline = time.monotonic() + self._grace_s
        told_trials = False
        while not self._ended.wait(0.2) and time.monotonic() < deadline:
            if self._trials is not None and not told_trials:
                with suppress(RayError):  # try again until the deadline
                    self._trials[1].leave()
                    told_trials = True
        if not self._ended.is_set():
            line = f"preempted: not all was saved within {self._grace_s:g} s; the same command goes on from the rungs"
            warn(line)
            os._exit(EXIT_CODE)


def _raised_by_handler(error: BaseException | None) -> Preempted | KeyboardInterrupt | None:
    """What a signal's handler raised, if the error came of it."""
    while error is not None and not isinstance(error, (Preempted, KeyboardInterrupt)):
        error = error.__cause__ or error.__context__
    return error
