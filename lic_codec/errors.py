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


class CurveError(CodecError):
    """A curve that cannot be read, or of which no BD-rate can be taken; the message is one line."""


class MismatchError(CodecError):
    """The decoder's latent is not the encoder's: no figure of this machine can be trusted."""


class WorkerDiedError(CodecError):
    """A process that measures photographs was killed."""


def missing(package: str, what_for: str) -> CodecError:
    """That a package of the extra `bench` is not installed."""
    return CodecError(f"{what_for} needs {package}: pip install 'lic-codec[bench]'")
