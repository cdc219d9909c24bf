"""A trial has a damaged object made again from crops and photographs that it does not have itself."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import ray

from orchestrator.distill.trial_data import SharedData
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.key import DamagedObject, plan_features
from orchestrator.features.format.ledger import publish_ledger
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store
from orchestrator.sweep.gang.trial import SweepTrial


def test_it_is_made_again(local_ray: None, train_photographs: tuple[Photograph, ...], tmp_path: Path) -> None:
    store, photographs = Store(tmp_path), PhotographTable.of(train_photographs)
    crops = plan_crops(photographs, Crops(count=40, size=64), 4, seed=0)
    pixels = plan_features(crops)
    done = [
        fill_shard(store, ShardWork.of(crops, pixels, shard, photographs.by_digest))
        for shard in range(len(crops.shards))
    ]
    publish_ledger(store, pixels, {shard: filled.entries for shard, filled in enumerate(done) if filled is not None})
    name = pixels.object("x", 2)
    whole = store.read(name)
    store.replace(name, b"damaged")
    data = SharedData(
        store_url=store.url,
        plan=crops.ordering,
        pixels_plan=pixels.ordering,
        feature_plans={},
        channel_bits={},
        validation=(),
    )
    assert len(pickle.dumps(data)) < 4000
    trial = SimpleNamespace(_sweep=SimpleNamespace(data=data, sources=ray.put((crops, photographs))), _mended=[])
    SweepTrial._mend(trial, DamagedObject("damaged", pixels.digest, "x", 2))  # type: ignore[arg-type]
    assert store.read(name) == whole
    assert [line.startswith(f"{store.url}/{name}: ") for line in trial._mended] == [True]
