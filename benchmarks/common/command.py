"""A benchmark's command line: what is wrong with it is one line and exit code 2, as a job's."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from models.one_line import OneLineError, one_line
from orchestrator.photographs.photos import PhotographError
from orchestrator.spec.messages import SpecError


def count(text: str) -> int:
    """A whole number of at least 1. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a whole number of at least 1")
    return int(text)


def exit_code(main: Callable[[], int]) -> int:
    """Runs it; a file, folder or specification that cannot be used is one line.

    A process that it started, and that failed, has said why; its exit code is passed on.
    """
    try:
        return main()
    except (SpecError, PhotographError, OneLineError) as error:
        print(error, file=sys.stderr)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        print(one_line(f"{error.filename}: {error.strerror}"), file=sys.stderr)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 2
