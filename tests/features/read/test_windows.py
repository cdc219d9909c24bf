"""How many objects a reader holds open, and how often it opens each; of a store made without a teacher."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from orchestrator.features.format.blob import FileBlob, open_file
from orchestrator.features.format.key import FeatureError, FeaturePlan, TeacherWeights, plan_features
from orchestrator.features.format.ledger import entry_of, publish_ledger
from orchestrator.features.format.tap_file import encode
from orchestrator.features.read import objects
from orchestrator.features.read.prefetch import DEPTH
from orchestrator.features.read.reader import LOOKAHEAD, Reader, workers_for
from orchestrator.photographs.crops import CropPlan, plan_crops
from orchestrator.photographs.passes import WINDOW_SHARDS
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store

RATE_POINTS, WINDOWS, BATCH = 5, 3, 16
ATTENTION = tuple(f"g_{side}:{kind}" for side in ("a.3", "a.5", "s.1") for kind in ("spatial", "channel"))
TAPS = ("y", *ATTENTION)  # what `feds` compares, in phases


@pytest.fixture(scope="module")
def plan() -> CropPlan:
    """Three windows of full shards a rate point."""
    photograph = Photograph(path="/nowhere", digest="0" * 64, width=256, height=256)
    crops = RATE_POINTS * WINDOWS * WINDOW_SHARDS * 64
    return plan_crops([photograph], Crops(count=crops, size=64), RATE_POINTS, seed=0)


@pytest.fixture(scope="module")
def feature_plans(plan: CropPlan) -> tuple[FeaturePlan, FeaturePlan]:
    teacher = TeacherWeights(name="t", path="/nowhere", digest="1" * 64)
    return plan_features(plan), plan_features(plan, teacher, TAPS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, feature_plans: tuple[FeaturePlan, FeaturePlan]) -> Store:
    folder = tmp_path_factory.mktemp("windows")
    store = Store(folder)
    pixels = encode("x", np.arange(64 * 3 * 64, dtype=np.uint8).reshape(64, 3, 8, 8))
    others = {tap: encode(tap, np.ones((64, 2, 1, 1), np.float32)) for tap in TAPS}
    for features in feature_plans:
        made = {}
        for shard in range(len(features.shards)):
            data = {tap: others.get(tap, pixels) for tap in features.taps}
            for tap, content in data.items():
                path = Path(folder, features.object(tap, shard))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)  # many: `publish` waits for the disk each time
            made[shard] = {tap: entry_of(features.key(tap, shard), content) for tap, content in data.items()}
        publish_ledger(store, features, made)
    return store


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Files of the store that were opened, by name."""
    counts: Counter[str] = Counter()

    def counted(path: Path) -> FileBlob:
        counts[str(path)] += 1
        return open_file(path)

    monkeypatch.setattr(objects, "open_file", counted)
    return counts


def test_a_pass_opens_and_reads_each_object_once_and_holds_two_windows(
    store: Store, plan: CropPlan, feature_plans: tuple[FeaturePlan, FeaturePlan], opens: Counter[str]
) -> None:
    """8 taps of 5 rate points: a window of 320 objects."""
    reader = Reader(store.url, plan, feature_plans, rank=0, world=1, batch_size=BATCH, seed=0)
    steps = len(plan.crops) // BATCH - LOOKAHEAD - DEPTH  # beyond that the next pass begins
    held = []
    for step in range(steps):
        reader.batch(step)
        held.append(len(reader._open))  # while the next step is read
    reader.close()
    window = RATE_POINTS * WINDOW_SHARDS * (1 + len(TAPS))
    assert window == 320 and len(opens) == WINDOWS * window and set(opens.values()) == {1}
    assert reader.read_bytes == sum(store.sizes("features").values())
    of_a_step = WINDOW_SHARDS * (1 + len(TAPS))  # at most, opened before others are closed
    assert reader.open_objects == 2 * window and window < max(held) <= 2 * window + of_a_step


def test_fewer_are_open_if_fewer_taps_are_read(
    store: Store, plan: CropPlan, feature_plans: tuple[FeaturePlan, FeaturePlan], opens: Counter[str]
) -> None:
    """The first phase of a schedule reads attention, the second y."""
    switch = 10
    reader = Reader(
        store.url,
        plan,
        feature_plans,
        rank=0,
        world=1,
        batch_size=BATCH,
        seed=0,
        taps_at=lambda step: ATTENTION if step < switch else ("y",),
    )
    reader.batch(200)
    assert reader.open_objects == 2 * RATE_POINTS * WINDOW_SHARDS * 2
    reader.batch(0)
    assert reader.open_objects == 2 * RATE_POINTS * WINDOW_SHARDS * 8
    reader.close()
    assert set(opens.values()) == {1}


def test_a_file_that_another_has_replaced_is_hashed_again(
    store: Store, plan: CropPlan, feature_plans: tuple[FeaturePlan, FeaturePlan], tmp_path: Path
) -> None:
    name = feature_plans[0].object("x", 0)
    (tmp_path / name).parent.mkdir(parents=True)
    for needed in (name, feature_plans[0].ledger()):
        Store(tmp_path).replace(needed, store.read(needed))
    opened = objects.Objects(Store(tmp_path), feature_plans[:1], None)
    size = (tmp_path / name).stat().st_size
    for times in (1, 1):
        opened.open("x", 0).close()
        assert opened.read_bytes == times * size
    Store(tmp_path).replace(name, store.read(name))  # the same bytes in another file
    opened.open("x", 0).close()
    assert opened.read_bytes == 2 * size
    other = bytearray(store.read(name))
    other[-1] ^= 1
    Store(tmp_path).replace(name, bytes(other))
    with pytest.raises(FeatureError, match="whose digest is not the ledger's"):
        opened.open("x", 0)


@pytest.mark.parametrize(
    ("cores", "on_gpu", "workers"), [(1, True, 1), (2, True, 1), (16, True, 4), (128, True, 4), (16, False, 1)]
)
def test_threads_that_read_crops(cores: int, on_gpu: bool, workers: int) -> None:
    assert workers_for(cores, on_gpu) == workers
