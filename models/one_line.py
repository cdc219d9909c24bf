"""Text that stays on one line: the codec's, and a command line whose errors do."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lic_codec.errors import OneLineError, one_line

__all__ = ["OneLineError", "OneLineParser", "one_line"]


class OneLineParser(argparse.ArgumentParser):
    """Parses a command line; its errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with code 2."""
        self.exit(2, f"{self.prog}: {one_line(' '.join(message.split()))}; --help says what there is\n")
