"""Messages that stay on one line, and that every terminal and file takes, whatever file names they quote."""

from __future__ import annotations


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


class CodecError(OneLineError, ValueError):
    """A stream, a photograph, a rate or a bundle that cannot be used."""
