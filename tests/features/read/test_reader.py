"""Cached targets are the live teacher's; whatever is not what the ledger says is never trained on."""

from __future__ import annotations

import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard

from models.weights import digest
from orchestrator.features.format.key import FeatureError, plan_features
from orchestrator.features.format.recent import Recent
from orchestrator.features.read.node_cache import NodeCache
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


def same(one, other) -> bool:
    """Whether two batches, undone, are equal bit for bit."""
    one, other = (batch.on(torch.device("cpu")) for batch in (one, other))
    return (
        torch.equal(one.x.view(torch.int32), other.x.view(torch.int32))
        and one.crops == other.crops
        and one.targets.keys() == other.targets.keys()
        and all(torch.equal(one.targets[tap], other.targets[tap]) for tap in one.targets)
    )


@pytest.mark.parametrize("options", [{}, {"as_stored": True}, {"workers": 3}, {"as_stored": True, "workers": 2}])
@pytest.mark.parametrize("decoded", [False, True])
def test_every_way_to_read_gives_the_same_batches(filled, plan, feature_plans, tmp_path, options, decoded):
    cache = NodeCache(tmp_path / "node", 10**9, decoded=decoded)
    plain = reader_of(filled, plan, feature_plans)
    other = reader_of(filled, plan, feature_plans, cache=cache, **options)
    for step in range(25):  # each crop is read more than once
        expected, batch = plain.batch(step), other.batch(step)
        assert same(expected, batch) and not expected.stored
        handed_on = {tap for tap in ("x", *batch.targets) if options.get("as_stored")}
        assert batch.stored.keys() == handed_on
        codecs = {"y": "q8", **dict.fromkeys(("x", "x_hat"), "pixels" if decoded else "u8")}
        assert all(batch.stored[tap].codec == codecs[tap] for tap in handed_on)
        assert (batch.x.dtype == torch.uint8) == bool(handed_on)
    plain.close()
    other.close()
    assert (tmp_path / "node").exists() == decoded  # a store on file:// is read directly


def test_decoded_shards_are_made_once_and_a_damaged_one_again(filled, plan, feature_plans, tmp_path):
    def batches(store):
        cache = NodeCache(tmp_path / "node", 10**9, pytest.fail, decoded=True)
        reader = reader_of(store, plan, feature_plans, cache=cache)
        made = [reader.batch(step) for step in range(21)]
        reader.close()
        return made, reader.read_bytes

    first, read = batches(filled)
    files = sorted(path for path in (tmp_path / "node").iterdir() if path.is_file())
    assert len(files) == 3 * len(plan.shards) and all(path.suffix == ".decoded-1" for path in files)
    assert read == sum(filled.sizes("features").values())
    second, read = batches(filled)
    assert read == 0 and all(map(same, first, second))
    contents = [path.read_bytes() for path in files]
    for place, path in enumerate(files[:4]):
        whole = contents[place]
        flipped = whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:]
        path.write_bytes([flipped, whole[:-1], whole + b"0", b""][place])
    third, read = batches(filled)
    digests = {path.stem for path in files[:4]}
    sizes = [path.stat().st_size for path in filled.folder.rglob("*.safetensors") if digest(path) in digests]
    assert len(sizes) == 4 and read == sum(sizes)
    assert all(map(same, first, third)) and [path.read_bytes() for path in files] == contents


@pytest.mark.parametrize("tap", ["x", "y"])
def test_a_spoiled_object_is_never_decoded(copy, plan, feature_plans, tmp_path, tap):
    features = feature_plans[0] if tap == "x" else feature_plans[1]
    spoil_flip(copy.folder / features.object(tap, 0))
    cache = NodeCache(tmp_path / "node", 10**9, decoded=True)
    reader = reader_of(copy, plan, feature_plans, cache=cache)
    step = next(step for step in range(5) if batch_at(plan, step, 8, 0)[0] == 0)
    with pytest.raises(FeatureError, match=f"tap {tap}, shard 0: .* whose digest is not the ledger's"):
        reader.batch(step)
    reader.close()


def test_shards_are_decoded_only_if_all_of_them_have_room(filled, plan, feature_plans, tmp_path):
    stored, lines = sum(filled.sizes("features").values()), list[str]()
    for limit, kept in ((3 * stored, True), (2 * stored, False)):
        folder = tmp_path / str(limit)
        cache = NodeCache(folder, limit, lines.append, decoded=True)
        reader = reader_of(filled, plan, feature_plans, cache=cache)
        reader.batch(0)
        reader.close()
        assert folder.exists() == kept
    (line,) = lines
    needed = r"room for 0\.\d GB of decoded shards is needed"
    assert re.fullmatch(rf"node_cache\.gigabytes: 0\.\d+; {needed}: they are kept as they are stored", line)


def test_a_thread_has_one_context_for_all_frames(filled, plan, feature_plans, monkeypatch):
    made = []
    real = zstandard.ZstdDecompressor

    def counted(*given, **named):
        made.append(threading.get_ident())
        return real(*given, **named)

    monkeypatch.setattr(zstandard, "ZstdDecompressor", counted)
    reader = reader_of(filled, plan, feature_plans, workers=2)
    for step in range(5):
        reader.batch(step)
    reader.close()
    assert 1 <= len(made) == len(set(made)) <= 3


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


def test_the_thread_that_reads_makes_the_noise_of_its_crops(filled, plan, feature_plans):
    reader, asked = reader_of(filled, plan, feature_plans), []

    def noise(crops, step):
        asked.append((threading.current_thread().name, step))
        return torch.tensor(crops, dtype=torch.float32)[:, None] + step

    assert reader.batch(0).noise is None
    reader.noise = noise
    batch = reader.batch(20)  # what was read ahead before has none
    assert torch.equal(batch.noise[:, 0], torch.tensor(batch.crops) + 20.0)
    assert torch.equal(batch.on(torch.device("cpu")).noise, batch.noise)
    reader.close()
    assert asked and all(name.startswith("batches") for name, _ in asked)
