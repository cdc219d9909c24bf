"""Streams that no encoder wrote: damaged ones, and crafted ones whose checksum is right."""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from lic_codec.codec import Codec
from lic_codec.container import HEADER
from lic_codec.errors import CodecError

FIELDS = {"flags": (3, 1), "rate": (8, 2), "width": (10, 2), "height": (12, 2)}  # name -> offset and bytes


def damaged(stream: bytes, draw: random.Random) -> bytes:
    """A stream with bits flipped, bytes cut off, added or moved."""
    data = bytearray(stream)
    for _ in range(draw.choice((1, 1, 2, 8))):
        kind = draw.randrange(4)
        place = draw.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = draw.randbytes(draw.randrange(1, 9))
        elif data:
            data[place:] = draw.randbytes(len(data) - place)
    return bytes(data)


def crafted(stream: bytes, draw: random.Random) -> bytes:
    """A stream with another header or payload, and the checksum that these have."""
    data = bytearray(stream)
    kind = draw.randrange(4)
    if kind in (0, 3):
        offset, size = FIELDS[draw.choice(list(FIELDS))]
        data[offset : offset + size] = draw.randbytes(size)
    if kind in (1, 3):
        place = draw.randrange(HEADER.size, len(data))
        data[place:] = draw.randbytes(4 * draw.randrange(0, 400))[: draw.choice((4, 40, 1600))]
    if kind == 2:
        for _ in range(draw.choice((1, 4, 64))):
            data[draw.randrange(HEADER.size, len(data))] ^= 1 << draw.randrange(8)
    return sealed(bytes(data))


def sealed(stream: bytes) -> bytes:
    """With the checksum that the other bytes have."""
    head, body = stream[: HEADER.size - 4], stream[HEADER.size :]
    return head + struct.pack(">I", zlib.crc32(body, zlib.crc32(head))) + body


@dataclass
class Outcomes:
    """What became of streams.

    Attributes:
        images: how many were decoded.
        errors: the first words of each line, and how often.
        slowest_s: of one stream.
    """

    images: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


def outcomes(codec: Codec, streams: Iterable[bytes], largest: int) -> Outcomes:
    """Decodes all; whatever is neither an image nor a `CodecError` of one line is raised."""
    found = Outcomes()
    for stream in streams:
        began = time.monotonic()
        try:
            codec.decode(stream, largest)
            found.images += 1
        except CodecError as error:
            assert len(str(error).splitlines()) == 1, error
            found.errors[" ".join(word for word in str(error).split(";")[0].split() if word.isalpha())] += 1
        found.slowest_s = max(found.slowest_s, time.monotonic() - began)
    return found
