"""Text that stays on one line, and that every terminal and file takes, whatever file names it quotes."""

from __future__ import annotations

import argparse
from typing import NoReturn


def one_line(text: str) -> str:
    """The text with what cannot be printed written as in a Python literal.

    A file's name may hold line breaks, terminal codes, and bytes that are not UTF-8: `\\n`, `\\x1b`, `\\udcff`.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class OneLineError(Exception):
    """The base of errors whose message is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class OneLineParser(argparse.ArgumentParser):
    """Parses a command line; its errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with code 2."""
        self.exit(2, f"{self.prog}: {one_line(' '.join(message.split()))}; --help says what there is\n")
