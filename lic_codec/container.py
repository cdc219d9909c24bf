"""Format version 3 of a stream: a header, optional chunks, the range coder's words. Byte by byte: docs/bitstream.md.

All that can be said of a stream without its model is checked here, before anything is allocated or decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from lic_codec.errors import CodecError

MAGIC = b"LD"
VERSION = 3
ID_BYTES = 4  # of the entropy model's id, in the header
# magic, version, flags, entropy id, rate code, width, height, CRC-32
HEADER = struct.Struct(f">2sBB{ID_BYTES}sHHHI")
HAS_CHUNKS = 1  # the only flag
CHUNK = struct.Struct(">BI")  # kind, length
LONGEST_SIDE = 0xFFFF  # pixels


class ChunkKind(IntEnum):
    """What is kept beside the coded pixels."""

    ICC_PROFILE = 1  # deflated
    ORIENTATION = 2  # EXIF's number, one byte
    ALPHA = 3  # a grey PNG of the photograph's size


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream's parts.

    Attributes:
        entropy_id: the first bytes of the entropy model's id.
        rate_code: see `lic_codec.rates`.
        width, height: pixels.
        chunks: what is kept beside the pixels.
        payload: the range coder's words.
    """

    entropy_id: bytes
    rate_code: int
    width: int
    height: int
    chunks: Mapping[ChunkKind, bytes] = field(default_factory=dict)
    payload: bytes

    def pack(self) -> bytes:
        """The stream's bytes. The checksum covers all of them but itself."""
        flags = HAS_CHUNKS if self.chunks else 0
        head = HEADER.pack(MAGIC, VERSION, flags, self.entropy_id, self.rate_code, self.width, self.height, 0)[:-4]
        kept = b"".join(CHUNK.pack(kind, len(data)) + data for kind, data in sorted(self.chunks.items()))
        body = (bytes([len(self.chunks)]) + kept if flags else b"") + self.payload
        return head + struct.pack(">I", zlib.crc32(body, zlib.crc32(head))) + body


def parse(stream: bytes) -> Stream:
    """A stream's parts.

    Raises:
        CodecError: not a stream, of another version, or damaged.
    """
    if stream[: len(MAGIC)] != MAGIC:
        raise CodecError("not a stream of this codec")
    if len(stream) > len(MAGIC) and stream[2] != VERSION:
        raise CodecError(f"stream of version {stream[2]}; this codec reads version {VERSION}")
    if len(stream) < HEADER.size:
        raise CodecError(f"damaged stream: {len(stream)} bytes, the header alone has {HEADER.size}")
    _, _, flags, entropy_id, rate_code, width, height, checksum = HEADER.unpack_from(stream)
    if zlib.crc32(stream[HEADER.size :], zlib.crc32(stream[: HEADER.size - 4])) != checksum:
        raise CodecError("damaged stream: its checksum does not match")
    if flags & ~HAS_CHUNKS or not width or not height:
        raise CodecError("damaged stream: a header that no encoder writes")
    chunks, payload = _chunks(stream) if flags else ({}, stream[HEADER.size :])
    if len(payload) % 4:
        raise CodecError("damaged stream: its payload is not of whole words")
    return Stream(
        entropy_id=entropy_id, rate_code=rate_code, width=width, height=height, chunks=chunks, payload=payload
    )


def _chunks(stream: bytes) -> tuple[dict[ChunkKind, bytes], bytes]:
    """The chunks, and what follows them."""
    chunks: dict[ChunkKind, bytes] = {}
    place = HEADER.size + 1
    for _ in range(stream[HEADER.size] if len(stream) > HEADER.size else 0):
        if len(stream) < place + CHUNK.size:
            raise CodecError("damaged stream: it ends within its chunks")
        kind, length = CHUNK.unpack_from(stream, place)
        place += CHUNK.size + length
        if place > len(stream):
            raise CodecError("damaged stream: it ends within its chunks")
        if kind not in set(ChunkKind) or kind in chunks:
            raise CodecError("damaged stream: chunks that no encoder writes")
        chunks[ChunkKind(kind)] = stream[place - length : place]
    if not chunks:
        raise CodecError("damaged stream: chunks that no encoder writes")
    return chunks, stream[place:]
