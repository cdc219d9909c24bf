"""What goes wrong while coding, in one line."""

from __future__ import annotations


class CodecError(ValueError):
    """A stream, a photograph, a rate or a bundle that cannot be used; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
