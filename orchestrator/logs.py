"""The application's messages: on the terminal as they are, in a run folder's file with their time and level.

On the terminal (stdout) a message has no prefix. Exit codes and their error lines on stderr are the jobs' own.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.one_line import OneLineError, one_line
from orchestrator.spec.messages import without_credentials

LOG_FILE = "sweep.log"


class OutputError(OneLineError, OSError):
    """Stdout cannot be written: a full disk, or a reader that has gone; the message is one line."""


class _Formatter(logging.Formatter):
    """Hides credentials in URLs, since a message may quote another program's error."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


class _Terminal(logging.StreamHandler):  # type: ignore[type-arg]
    """To the current sys.stdout, which tests and Ray replace. What its encoding lacks is written as in a literal."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stdout is None:  # closed before Python began (`>&-`): nothing is said, as by print
            return
        self.stream = sys.stdout
        with _stdout_faults():
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # as print does


class _File(logging.FileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # the file cannot be opened
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk ends the log, not the sweep."""
        logger.removeHandler(self)
        warn(f"log: {self.baseFilename} is not written any more: {sys.exc_info()[1]}")


def _configured() -> logging.Logger:
    configured = logging.getLogger("lic_distillery")
    configured.setLevel(logging.INFO)
    configured.propagate = False  # libraries configure the root logger as they like
    terminal = _Terminal()
    terminal.setFormatter(_Formatter())
    configured.handlers = [terminal]
    return configured


logger = _configured()


def say(line: str) -> None:
    """A line for the user; a line break in it, as in a file's name, is written as \\n."""
    logger.info(one_line(line))


def warn(line: str) -> None:
    """A line for the user about something that is wrong or unusual."""
    logger.warning(one_line(line))


def put(text: str) -> None:
    """Text on stdout as it is, such as a file's. Raises OutputError."""
    with _stdout_faults():
        print(text, end="", flush=True)


def exit_code(main: Callable[[], int]) -> int:
    """The exit code of a job's `main`; with one line on stderr, 1 if stdout cannot be written, and 130 after Ctrl-C.

    The last thing that a process calls: from here on it ignores SIGTERM.
    """
    try:
        return main()
    except OutputError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing is left to save, and the exit code stays what it is


@contextmanager
def _stdout_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # What is left in the buffer would fail again when Python ends, as the Python manual says of SIGPIPE.
        with suppress(AttributeError, io.UnsupportedOperation):  # a stream without a file, such as a notebook's
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"stdout: {error.strerror}") from error


@contextmanager
def log_file(folder: Path | None) -> Iterator[None]:
    """Messages go into the run folder's sweep.log as well, and so does the exception that ends the context.

    The file is appended to: a sweep that is started again continues in it.

    Args:
        folder: the run folder; None where it is on S3. There is no file then, since an object cannot be appended to:
            the terminal's lines are kept by what runs the sweep (Slurm, a Ray job, a pod).
    """
    if folder is None:
        yield
        return
    file = _File(folder / LOG_FILE, encoding="utf-8", delay=True, errors="backslashreplace")
    file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ"))
    logger.addHandler(file)
    try:
        yield
    except BaseException as error:
        trace = (
            sys.exc_info() if isinstance(error, Exception) else None
        )  # the others are interruption and preemption, and need no traceback
        line = f"{type(error).__name__}: {error}"
        file.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, line, (), trace))
        raise
    finally:
        logger.removeHandler(file)
        file.close()
