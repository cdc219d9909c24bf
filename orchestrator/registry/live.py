"""Logs trials into MLflow while a sweep runs, beside it: MLflow's page is a live view, and the sweep never waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from orchestrator.registry.registry import Registry
from orchestrator.store.store import Store
from orchestrator.trials.files import read_trial
from orchestrator.trials.record import TrialRecord

PATIENCE_S = 20.0  # for what is being logged when the sweep goes on; then it goes on all the same


class LiveLog:
    """Takes records; one thread logs the newest of each trial. After a fault it says so once, and logs nothing more: at
    the sweep's end all is logged from the run folder.

    Args:
        run: the run folder.
        sweep: its id.
        warn: takes the line about a fault.
    """

    def __init__(self, run: Store, sweep: str, warn: Callable[[str], None]) -> None:
        self._run, self._sweep, self._warn = run, sweep, warn
        self._waiting: dict[str, TrialRecord] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def __reduce__(self) -> tuple[type[LiveLog], tuple[Store, str, Callable[[str], None]]]:
        """Tune saves its callbacks, and what they name: a copy is a log that has not begun, and logs nothing."""
        return LiveLog, (self._run, self._sweep, self._warn)

    def __enter__(self) -> LiveLog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until the rest is logged, but not for long, and not at all if the sweep ends by an exception."""
        with self._changed:
            self._closed = True
            if kind is not None:
                self._waiting.clear()
            self._changed.notify()
        self._thread.join(PATIENCE_S if kind is None else 1.0)
        with self._changed:
            self._waiting.clear()

    def rung(self, record: TrialRecord) -> None:
        """Has a trial logged soon; returns at once."""
        with self._changed:
            if not self._closed:
                self._waiting[record.trial_id] = record
                self._changed.notify()

    def _work(self) -> None:
        try:
            registry, first = None, None
            while (record := self._next()) is not None:
                registry = registry or Registry(self._run, self._sweep)
                first = first or self._first(record)
                registry.log_rung(record, first)
        except Exception as error:  # whatever it is, it is no fault of the sweep
            self._warn(f"live view: {error}; trials are logged at the sweep's end")
            with self._changed:
                self._closed = True
                self._waiting.clear()

    def _next(self) -> TrialRecord | None:
        """The next record to be logged; None: there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.pop(next(iter(self._waiting))) if self._waiting else None

    def _first(self, record: TrialRecord) -> TrialRecord:
        """The record of the sweep's first trial, which names the sweep's own run."""
        names = [name.removeprefix("trials/").removesuffix(".json") for name in self._run.list("trials")]
        return read_trial(self._run, min(names)) or record if names else record
