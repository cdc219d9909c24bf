"""What is undone on the device is what NumPy gives, bit for bit, of every codec and tap."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.form import Array, Form, floats, plain
from orchestrator.features.format.tap_file import StoredTap, encode
from orchestrator.features.read.batch import Batch, undone

NOISE = np.random.default_rng(0)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
EVERY_BYTE = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 3, 16, 16)


def bits(values: Array) -> Array:
    assert values.dtype == np.float32
    return values.view(np.uint32)


def packed(tap: str, content: Array) -> tuple[Form, Array]:
    stored = StoredTap(tap, MemoryBlob(encode(tap, content)))
    return stored.form, np.stack([stored.packed(index) for index in range(len(stored))])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tap", ["x", "x_hat"])
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (8, 3, 64, 64), (2, 3, 7, 33)])
def test_images(device: str, tap: str, shape: tuple[int, ...]) -> None:
    images = EVERY_BYTE if shape[0] == 1 else NOISE.integers(0, 256, shape).astype(np.uint8)
    form, rows = packed(tap, images)
    expected = bits(np.divide(images, 255, dtype=np.float32))  # what was read before bytes were handed on
    assert (bits(floats(form, rows)) == expected).all()
    for of, given in ((form, rows), (form.plain, plain(form, rows))):
        assert (bits(undone(of, torch.from_numpy(given).to(device)).cpu().numpy()) == expected).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tap", ["y", "z", "g_a.3:spatial", "g_a.5:raw", "g_a.3:channel", "entropy", "y_hat"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 12, 5, 5), (3, 5, 3, 3)])  # also of an odd number of bytes
@pytest.mark.parametrize("scale", [1e-7, 1.0, 900.0])
def test_latents_maps_and_statistics(device: str, tap: str, shape: tuple[int, ...], scale: float) -> None:
    content = (NOISE.normal(0, scale, shape) * NOISE.exponential(1, (1, shape[1], 1, 1))).astype(np.float32)
    content[0, 0] = 0
    form, rows = packed(tap, content)
    assert (bits(undone(form, torch.from_numpy(rows).to(device)).cpu().numpy()) == bits(floats(form, rows))).all()


def test_a_batch_is_undone_where_it_trains_and_only_once() -> None:
    image, x = packed("x", NOISE.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8))
    latent, y = packed("y", NOISE.normal(0, 3, (2, 4, 2, 2)).astype(np.float32))
    z = torch.ones(2, 1, 1, 1)  # not as it is stored
    targets = {"y": torch.from_numpy(y), "z": z}
    stored = {"x": image, "y": latent}
    batch = Batch(x=torch.from_numpy(x), rate_point=3, crops=(5, 7), targets=targets, stored=stored)
    there = batch.on(torch.device("cpu"))
    assert (there.rate_point, there.crops, there.stored) == (3, (5, 7), {})
    assert (there.x.numpy() == floats(image, x)).all() and (there.targets["y"].numpy() == floats(latent, y)).all()
    assert there.targets["z"] is z and batch.x.dtype == torch.uint8
    again = there.on(torch.device("cpu"))
    assert again.x is there.x and again.targets == there.targets
