"""What a crop's bytes mean: the same for one crop and for a batch, with differences and without."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.form import Form, floats, plain, values
from orchestrator.features.format.tap_file import StoredTap, encode

NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("form", "size"),
    [
        (Form("u8", (3, 5, 7)), 105),
        (Form("pixels", (3, 5, 7)), 105),
        (Form("q8", (4, 3, 5)), 68),
        (Form("f16", (4, 1, 1)), 8),
    ],
)
def test_bytes_of_a_crop(form: Form, size: int) -> None:
    assert form.row_bytes == size
    assert form.plain == (Form("pixels", form.shape) if form.codec == "u8" else form)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 16, 16), (3, 5, 12), (3, 33, 2)])
def test_differences_are_undone_of_many_crops_as_of_one(shape: tuple[int, ...]) -> None:
    images = NOISE.integers(0, 256, (6, *shape)).astype(np.uint8)
    stored = StoredTap("x", MemoryBlob(encode("x", images)))
    rows = np.stack([stored.packed(index) for index in range(6)])
    before = rows.copy()
    assert not (rows.reshape(images.shape) == images).all()
    assert (plain(stored.form, rows).reshape(images.shape) == images).all()
    assert (values(stored.form, rows) == images).all() and (rows == before).all()
    assert (plain(stored.form, rows[2]) == images[2].ravel()).all()
    assert plain(stored.form.plain, rows) is rows


def test_images_are_in_0_to_1_and_all_else_is_as_it_is() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(3, 16, 16)
    expected = np.array([np.float32(value) / np.float32(255) for value in image.ravel()], np.float32)
    assert (floats(Form("pixels", image.shape), image.ravel()) == expected.reshape(image.shape)).all()
    latent = NOISE.normal(0, 3, (2, 4, 3, 3)).astype(np.float32)
    stored = StoredTap("y", MemoryBlob(encode("y", latent)))
    rows = np.stack([stored.packed(index) for index in range(2)])
    assert (floats(stored.form, rows) == stored.rows()).all() and np.abs(stored.rows() - latent).max() < 0.1
