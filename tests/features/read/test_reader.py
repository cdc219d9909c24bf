"""Cached targets are the live teacher's; whatever is not what the ledger says is never trained on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.features.format.key import FeatureError, plan_features
from orchestrator.features.format.recent import Recent
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import batch_at, cut
from orchestrator.photographs.photos import load_rgb
from orchestrator.store.store import Store


def reader_of(store, plan, feature_plans, **options):
    return Reader(store.url, plan, feature_plans, **{"rank": 0, "world": 1, "batch_size": 8, "seed": 0, **options})


@pytest.fixture
def copy(filled, tmp_path) -> Store:
    """A filled store of the test's own."""
    shutil.copytree(filled.folder, tmp_path / "copy")
    return Store(tmp_path / "copy")


def live(ladder, by_digest, crop, rate_point):
    """A crop's pixels and the teacher's outputs for it, with no cache in between."""
    pixels = cut(load_rgb(by_digest[crop.photograph]), crop)
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float().div(255)
    with torch.inference_mode():
        output = ladder(x[None], rate_point)
    return x, output["y"][0], output["x_hat"][0].clamp(0, 1)


def differences(batch, row, x, y, x_hat):
    """Differences in units of the allowed storage error: 0 for pixels, half a step for y, half of 1/255 for x_hat."""
    step = (y.abs().amax((1, 2), keepdim=True) / 127).clamp(min=1 / 16) * (1 + 2**-10)  # a float16, rounded up
    return (
        float((batch.x[row] - x).abs().max()),
        float(((batch.targets["y"][row] - y).abs() / (0.5 * step + 1e-6)).max()),
        float((batch.targets["x_hat"][row] - x_hat).abs().max() / (0.5 / 255 + 1e-6)),
    )


def test_cached_targets_equal_the_live_teachers(filled, plan, feature_plans, by_digest, ladder):
    reader = reader_of(filled, plan, feature_plans)
    seen = []
    for step in range(15):
        batch = reader.batch(step)
        rate_point, ids = batch_at(plan, step, 8, 0)
        assert batch.rate_point == rate_point
        assert batch.x.shape == (8, 3, 64, 64) and batch.x.dtype == torch.float32
        assert batch.targets["y"].shape == (8, 12, 4, 4) and batch.targets["x_hat"].shape == (8, 3, 64, 64)
        for row, index in enumerate(ids):
            x, y, x_hat = differences(batch, row, *live(ladder, by_digest, plan.crops[index], rate_point))
            assert x == 0 and y <= 1 and x_hat <= 1
        seen += [plan.crops[index] for index in ids]
    reader.close()
    assert {crop.flip for crop in seen} == {True, False} and {crop.rate_point for crop in seen} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("change", ["left", "flip", "rate_point"])
def test_the_comparison_sees_a_crop_that_is_off(filled, plan, feature_plans, by_digest, ladder, change):
    """The test above must fail if a box is a pixel off or a flip is forgotten."""
    reader = reader_of(filled, plan, feature_plans)
    batch = reader.batch(2)
    reader.close()
    rate_point, ids = batch_at(plan, 2, 8, 0)
    if change == "rate_point":
        rate_point = (rate_point + 2) % 5
    deviations = []
    for row, index in enumerate(ids):
        crop = plan.crops[index]
        if change == "left":
            crop = replace(crop, left=crop.left + (1 if crop.left == 0 else -1))
        elif change == "flip":
            crop = replace(crop, flip=not crop.flip)
        deviations.append(differences(batch, row, *live(ladder, by_digest, crop, rate_point)))
    x, y, x_hat = np.array(deviations).T
    if change == "rate_point":
        assert (x == 0).all() and (y <= 1).all() and (x_hat > 2).all()
    else:
        assert (x > 0).all() and (y > 5).all() and (x_hat > 5).all()


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_out_the_batch(filled, plan, feature_plans, world):
    whole = reader_of(filled, plan, feature_plans, batch_size=12)
    ranks = [reader_of(filled, plan, feature_plans, batch_size=12, rank=rank, world=world) for rank in range(world)]
    for step in range(4):
        expected, shares = whole.batch(step), [rank.batch(step) for rank in ranks]
        for rank, share in enumerate(shares):
            assert share.rate_point == expected.rate_point
            assert torch.equal(share.x, expected.x[rank::world])
            for tap, values in expected.targets.items():
                assert torch.equal(share.targets[tap], values[rank::world])
    for reader in (whole, *ranks):
        reader.close()


def test_a_reader_resumes_at_any_step(filled, plan, feature_plans):
    going, resumed = (reader_of(filled, plan, feature_plans) for _ in range(2))
    straight = [going.batch(step) for step in range(9)]
    for step in (6, 7, 8, 3):
        assert torch.equal(resumed.batch(step).x, straight[step].x)
        assert torch.equal(resumed.batch(step).targets["y"], straight[step].targets["y"])
    going.close()
    resumed.close()


def test_a_control_reads_pixels_only(filled, plan, feature_plans, monkeypatch):
    read = []
    real = Store.local_path

    def local_path(store, name):
        read.append(name)
        return real(store, name)

    monkeypatch.setattr(Store, "local_path", local_path)
    control = reader_of(filled, plan, feature_plans[:1])
    batch = control.batch(4)
    control.close()
    assert batch.targets == {}
    assert {name.split("/")[1] for name in read if name.startswith("features/")} == {"pixels"}
    with_teacher = reader_of(filled, plan, feature_plans)
    assert torch.equal(batch.x, with_teacher.batch(4).x)
    with_teacher.close()


def test_a_store_that_is_not_filled_says_so(tmp_path, plan, feature_plans, filled, teacher):
    with pytest.raises(FeatureError, match=r"pixels is not filled in \(ledgers/.* is missing\)"):
        reader_of(Store(tmp_path), plan, feature_plans)
    other = plan_features(plan, replace(teacher, digest="1" * 64))
    with pytest.raises(FeatureError, match="teacher small is not filled in"):
        reader_of(filled, plan, (feature_plans[0], other))
    with pytest.raises(FeatureError, match="needs the pixels' feature plan"):
        reader_of(filled, plan, feature_plans[1:])


def spoil_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def spoil_swap(path: Path) -> None:
    others = [other for other in sorted(path.parent.iterdir()) if other != path]
    path.write_bytes(others[0].read_bytes())


@pytest.mark.parametrize("tap", ["x", "y", "x_hat"])
@pytest.mark.parametrize("spoil", [spoil_flip, spoil_truncate, spoil_swap, Path.unlink])
def test_a_spoiled_object_is_named_and_never_trained_on(copy, plan, feature_plans, tap, spoil):
    features = feature_plans[0] if tap == "x" else feature_plans[1]
    shard = 3
    name = features.object(tap, shard)
    spoil(copy.folder / name)
    reader = reader_of(copy, plan, feature_plans)
    spoiled = {step for step in range(5) if batch_at(plan, step, 8, 0)[0] == shard}  # one shard a rate point here
    assert len(spoiled) == 1
    for step in range(5):
        if step not in spoiled:
            reader.batch(step)
            continue
        with pytest.raises(FeatureError) as caught:
            reader.batch(step)
        message = str(caught.value)
        assert f"{copy.url}/{name}: tap {tap}, shard 3: " in message
        assert "\n" not in message
    reader.close()


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"format": 2}', b'{"format": 3, "taps": {"x": []}}'])
def test_a_spoiled_ledger_is_named(copy, plan, feature_plans, text):
    copy.replace(feature_plans[0].ledger(), text)
    with pytest.raises(FeatureError, match=f"{feature_plans[0].ledger()}: not the ledger of pixels"):
        reader_of(copy, plan, feature_plans)


def test_reading_through_a_cache_too_small_gives_the_same(filled, plan, feature_plans):
    wide, narrow = (reader_of(filled, plan, feature_plans, memory_bytes=limit) for limit in (2**29, 1))
    for step in range(12):
        assert torch.equal(wide.batch(step).x, narrow.batch(step).x)
    wide.close()
    narrow.close()


def test_recent_arrays_are_bounded_in_bytes():
    recent, made = Recent(3000), []

    def get(key):
        def make():
            made.append(key)
            return np.full(1000, key, np.uint8)

        return recent.get(key, make)

    for key in (1, 2, 3, 1, 4, 1, 2):
        assert get(key)[0] == key
        assert recent.held_bytes <= 3000
    assert made == [1, 2, 3, 4, 2]  # 4 pushed 2 out, the least recently used
    big = Recent(10)
    assert len(big.get("big", lambda: np.zeros(100, np.uint8))) == 100 and big.held_bytes == 100
    big.get("next", lambda: np.zeros(5, np.uint8))
    assert big.held_bytes == 5
