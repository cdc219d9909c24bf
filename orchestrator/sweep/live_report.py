"""The report of a sweep that trains, written again as trials reach rungs. A fault in it is no fault of the sweep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from orchestrator.logs import say, warn
from orchestrator.report.page import REPORT, write_report
from orchestrator.store.store import Store

SHARE = 0.05  # at most so much of a CPU goes into writing; a page takes 0.1 s of one
PAUSE_S = 2.0  # between two pages, at least
LEAVE_S = 5.0  # the last page, when training ends, may take so long; after an error there is none


class LiveReport:
    """Writes the report soon after `changed`, in a thread, and after the last change once more.

    Args:
        run: the run folder.
        pause_s: between two pages, at least.
    """

    def __init__(self, run: Store, pause_s: float = PAUSE_S) -> None:
        self._run, self._pause_s = run, pause_s
        self._said: set[str] = set()
        self._wanted, self._leaving = threading.Event(), threading.Event()
        self._pending = False
        self._thread = threading.Thread(target=self._work, name="report", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pending = self._pending and kind is None
        self._leaving.set()
        self._wanted.set()
        self._thread.join(LEAVE_S if kind is None else 0.0)

    def __reduce__(self) -> tuple[type[LiveReport], tuple[Store, float]]:
        return LiveReport, (self._run, self._pause_s)  # Tune pickles its callbacks; the pickle is not used

    def changed(self) -> None:
        """The run folder has news. Returns at once."""
        self._pending = True
        self._wanted.set()

    def _work(self) -> None:
        while not self._leaving.is_set():
            self._wanted.wait()
            self._wanted.clear()
            began = time.thread_time()
            if self._pending:
                self._write()
            self._leaving.wait(max(self._pause_s, (time.thread_time() - began) / SHARE))
        if self._pending:
            self._write()

    def _write(self) -> None:
        self._pending = False
        try:
            write_report(self._run, stills=False)
            self._once(say, f"report: {self._run.url}/{REPORT}, written again as trials reach rungs")
        except Exception as error:  # whatever it is: the page is the poorer for it, the sweep is not
            line = " ".join(str(error).split()) or type(error).__name__
            with suppress(OSError):  # a terminal that is gone
                self._once(warn, f"report: not written this time: {line}")

    def _once(self, tell: Callable[[str], None], line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            tell(line)
