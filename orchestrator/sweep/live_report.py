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

SHARE = 0.05  # at most so much of the time goes into writing, mostly far less: a page takes 0.1 s of a CPU
PAUSE_S = 5.0  # between two pages, at least
LEAVE_S = 5.0  # a page that is being written when training ends may take so long; after an error it is not waited for


class LiveReport:
    """Writes the report soon after `changed`, in a thread. The last change may be left out: the sweep's end has it.

    Args:
        run: the run folder.
        pause_s: between two pages, at least.
    """

    def __init__(self, run: Store, pause_s: float = PAUSE_S) -> None:
        self._run, self._pause_s = run, pause_s
        self._said: set[str] = set()
        self._wanted, self._leaving = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="report", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._wanted.set()
        self._thread.join(LEAVE_S if kind is None else 0.0)

    def __reduce__(self) -> tuple[type[LiveReport], tuple[Store, float]]:
        return LiveReport, (self._run, self._pause_s)  # Tune pickles its callbacks; the pickle is not used

    def changed(self) -> None:
        """The run folder has news. Returns at once."""
        self._wanted.set()

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._leaving.is_set():
                return
            began = time.monotonic()
            try:
                write_report(self._run, stills=False)
                self._once(say, f"report: {self._run.url}/{REPORT}, written again as trials reach rungs")
            except Exception as error:  # whatever it is: the page is the poorer for it, the sweep is not
                line = " ".join(str(error).split()) or type(error).__name__
                with suppress(OSError):  # a terminal that is gone
                    self._once(warn, f"report: not written this time: {line}")
            self._leaving.wait(max(self._pause_s, (time.monotonic() - began) / SHARE))

    def _once(self, tell: Callable[[str], None], line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            tell(line)
