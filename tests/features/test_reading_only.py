"""A process that only reads writes nothing: not even a file that it deletes at once, as a folder's time shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import cache_features, evaluate
from models.catalogue import SHIPPED
from orchestrator.features.fill.missing import missing
from orchestrator.features.keep.holds import Hold
from orchestrator.features.read.reader import Reader
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store


def snapshot(folder: Path | None) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of change of every file and folder, by path."""
    assert folder is not None
    paths = [folder, *sorted(folder.rglob("*"))]
    stats = [(path, path.stat()) for path in paths]
    return {str(path): (stat.st_ino, stat.st_size, stat.st_ctime_ns) for path, stat in stats}


@pytest.fixture
def store(filled: Store, feature_plans, tmp_path: Path) -> Store:
    """A filled store of the test's own, with a hold that has ended and a record that no ledger names."""
    assert filled.folder is not None
    shutil.copytree(filled.folder, tmp_path / "store")
    store = Store(tmp_path / "store")
    with Hold(store, feature_plans, "a run"):
        pass
    store.publish("shards/pixels/unlisted.json", store.read(feature_plans[0].record(0)))
    return store


@pytest.mark.parametrize("words", [["ls"], ["verify"], ["prune", "--older-than", "0", "--orphans"]])
def test_listing_and_verifying_write_nothing(
    store: Store, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(store.folder)
    assert cache_features.main([*words, "--store", store.url]) == 0, capsys.readouterr()
    assert snapshot(store.folder) == before


def test_reading_features_writes_nothing(store: Store, plan, feature_plans) -> None:
    before = snapshot(store.folder)
    assert [missing(store, features) for features in feature_plans] == [(), ()]
    reader = Reader(store.url, plan, feature_plans, rank=0, world=1, batch_size=8, seed=0)
    assert reader.batch(0).x.shape == (8, 3, 64, 64)
    reader.close()
    assert snapshot(store.folder) == before


def test_evaluating_leaves_its_inputs_alone(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "teacher-hyperprior.safetensors", tmp_path / "weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "photographs").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photographs" / "a.png")
    before = snapshot(tmp_path)
    words = [tmp_path / "weights.safetensors", tmp_path / "photographs", "--estimate", "--processes", "1"]
    assert evaluate.main([str(word) for word in words]) == 0
    assert snapshot(tmp_path) == before


def test_a_store_for_reading_refuses_to_be_written(store: Store, feature_plans) -> None:
    before = snapshot(store.folder)
    reading = store.reading() / "holds"
    for write in (
        lambda: reading.publish("x", b""),
        lambda: reading.replace("x", b""),
        lambda: reading.replace_if("x", b"", "tag"),
        lambda: reading.delete("x"),
    ):
        with pytest.raises(StoreError, match=rf"^{store.url}/holds: opened for reading only$"):
            write()
    with pytest.raises(StoreError, match=r"opened for reading only$"), Hold(store.reading(), feature_plans, "a run"):
        raise AssertionError("held")
    assert snapshot(store.folder) == before


def test_a_hold_needs_a_store_that_can_be_written(feature_plans) -> None:
    nowhere = Store("/proc/store")
    with pytest.raises(StoreError, match=r"^file:///proc/store: [^\n]+$"), Hold(nowhere, feature_plans, "a run"):
        raise AssertionError("held")
