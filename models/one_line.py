"""Text that stays on one line, and that every terminal and file takes, whatever file names it quotes."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lic_codec.errors import one_line

__all__ = ["OneLineError", "OneLineParser", "one_line"]


class OneLineError(Exception):
    """The base of errors whose message is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class OneLineParser(argparse.ArgumentParser):
    """Parses a command line; its errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with code 2."""
        self.exit(2, f"{self.prog}: {one_line(' '.join(message.split()))}; --help says what there is\n")
