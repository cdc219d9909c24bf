"""A stream's header, chunks and payload: packed and parsed, and whatever is wrong with them is one line."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lic_codec.container import HEADER, ChunkKind, Stream, parse
from lic_codec.errors import CodecError

PLAIN = Stream(entropy_id=b"\1\2\3\4", rate_code=2, width=300, height=200, payload=b"wordword")
KEPT = Stream(
    entropy_id=b"\1\2\3\4",
    rate_code=0x8001,
    width=1,
    height=65535,
    chunks={ChunkKind.ORIENTATION: b"\6", ChunkKind.ICC_PROFILE: b"profile"},
    payload=b"",
)
MISMATCH = "damaged stream: its checksum does not match"


def refused(stream: bytes) -> str:
    with pytest.raises(CodecError) as raised:
        parse(stream)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def sealed(stream: bytes) -> bytes:
    """With the checksum that the other bytes have."""
    head, body = stream[: HEADER.size - 4], stream[HEADER.size :]
    return head + struct.pack(">I", zlib.crc32(body, zlib.crc32(head))) + body


@pytest.mark.parametrize("stream", [PLAIN, KEPT])
def test_parsing_is_the_inverse_of_packing(stream):
    assert parse(stream.pack()) == stream
    assert sealed(stream.pack()) == stream.pack()


def test_the_header_is_as_documented():
    assert HEADER.size == 18
    head = PLAIN.pack()[:14]
    assert head == b"LD\x03\x00" + b"\1\2\3\4" + b"\x00\x02" + b"\x01\x2c" + b"\x00\xc8"


@pytest.mark.parametrize("stream", [PLAIN, KEPT])
def test_every_flipped_bit_and_every_cut_is_refused(stream):
    packed = stream.pack()
    for bit in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged))
    for length in range(len(packed)):
        short = f"damaged stream: {length} bytes, the header alone has {HEADER.size}"
        expected = "not a stream of this codec" if length < 2 else short if length < HEADER.size else MISMATCH
        assert refused(packed[:length]) == expected
    assert refused(packed + b"\0") == MISMATCH


@pytest.mark.parametrize("foreign", [b"", b"\x89PNG\r\n\x1a\n" + bytes(64), bytes(90)])
def test_what_is_no_stream_is_called_so(foreign):
    assert refused(foreign) == "not a stream of this codec"


@pytest.mark.parametrize("length", [3, 17, 40])
@pytest.mark.parametrize("version", [1, 2, 99])
def test_other_versions_are_named(version, length):
    stream = b"LD" + bytes([version]) + bytes(length - 3)
    assert refused(stream) == f"stream of version {version}; this codec reads version 3"


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (3, b"\x02", "damaged stream: a header that no encoder writes"),
        (10, b"\0\0", "damaged stream: a header that no encoder writes"),
        (12, b"\0\0", "damaged stream: a header that no encoder writes"),
        (3, b"\x01", "damaged stream: it ends within its chunks"),
        (18, b"", "damaged stream: its payload is not of whole words"),
    ],
)
def test_contradictions_with_a_right_checksum_are_refused(place, value, line):
    packed = bytearray(PLAIN.pack())
    if value:
        packed[place : place + len(value)] = value
    else:
        del packed[place]
    assert refused(sealed(bytes(packed))) == line


@pytest.mark.parametrize(
    "body", [b"\0wordword", b"\1\x09\0\0\0\0", b"\2\x02\0\0\0\1x\x02\0\0\0\1y", b"\1\x02\xff\xff\xff\xffx", b""]
)
def test_chunks_that_no_encoder_writes_are_refused(body):
    head = bytearray(PLAIN.pack()[: HEADER.size])
    head[3] = 1
    assert refused(sealed(bytes(head) + body)).startswith("damaged stream: ")


@given(st.binary(max_size=80))
def test_any_bytes_with_a_right_checksum_are_a_stream_or_one_line(data):
    crafted = sealed(b"LD\x03" + data + bytes(max(0, HEADER.size - 3 - len(data))))
    try:
        parse(crafted)
    except CodecError as error:
        assert len(str(error).splitlines()) == 1
