"""A decoded shard has the crops of the stored one, and nothing else passes for it."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.decoded import DecodedTap, decode
from orchestrator.features.format.form import Array, values
from orchestrator.features.format.key import FeatureError
from orchestrator.features.format.tap_file import StoredTap, encode

NOISE = np.random.default_rng(0)
TAPS: dict[str, Array] = {
    "x": NOISE.integers(0, 256, (5, 3, 8, 8)).astype(np.uint8),
    "y@2": NOISE.normal(0, 3, (5, 4, 3, 3)).astype(np.float32),
    "entropy": NOISE.exponential(3, (5, 4, 1, 1)).astype(np.float32),
}


def stored_tap(tap: str) -> StoredTap:
    return StoredTap(tap, MemoryBlob(encode(tap, TAPS[tap])))


@pytest.mark.parametrize("tap", TAPS)
def test_crops_are_those_of_the_stored_shard(tap: str) -> None:
    stored = stored_tap(tap)
    data = decode(tap, stored)
    decoded = DecodedTap(tap, MemoryBlob(data))
    assert (len(decoded), decoded.form, decoded.memory_bytes) == (5, stored.form.plain, len(data))
    for index in range(5):
        assert (values(decoded.form, decoded.packed(index)) == stored.row(index)).all()
    decoded.close()
    assert len(decoded) == 0
    assert decode(tap, stored) == data  # equal input gives equal bytes


def test_what_is_not_a_decoded_shard_of_the_tap_is_refused() -> None:
    data = decode("y@2", stored_tap("y@2"))
    with pytest.raises(FeatureError, match=r"^tap z: not a decoded tap \(format 1, tap 'y'\)$"):
        DecodedTap("z", MemoryBlob(data))
    for junk in (b"", b"junk", bytes(100), data[:-1], encode("x", TAPS["x"])):
        with pytest.raises(FeatureError, match="tap x: not a decoded tap"):
            DecodedTap("x", MemoryBlob(junk))


def test_a_damaged_crop_is_not_decoded() -> None:
    data = bytearray(encode("x", TAPS["x"]))
    data[-20] ^= 1
    with pytest.raises(FeatureError, match="crop 4 of the shard is damaged"):
        decode("x", StoredTap("x", MemoryBlob(bytes(data))))
