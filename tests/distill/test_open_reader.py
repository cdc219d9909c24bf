"""How a rank reads, by what the specification says of GPUs and of the node's cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.catalogue import SHIPPED
from orchestrator.distill.trial_data import TrialData
from orchestrator.distill.trial_run import open_reader
from orchestrator.features.format.key import plan_features
from orchestrator.features.format.ledger import entry_of, publish_ledger
from orchestrator.features.format.tap_file import encode
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.sections import Crops, NodeCacheSection, Photographs, Student, Teacher, Training
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.space import trials


@pytest.fixture
def data(tmp_path: Path) -> TrialData:
    """Grey crops, without a teacher."""
    photograph = Photograph(path="/nowhere", digest="0" * 64, width=256, height=256)
    plan = plan_crops([photograph], Crops(count=20, size=64), 5, seed=0)
    pixels, store, made = plan_features(plan), Store(tmp_path / "store"), {}
    for shard, ids in enumerate(pixels.shards):
        content = encode("x", torch.full((len(ids), 3, 64, 64), 51, dtype=torch.uint8).numpy())
        store.publish(pixels.object("x", shard), content)
        made[shard] = {"x": entry_of(pixels.key("x", shard), content)}
    publish_ledger(store, pixels, made)
    return TrialData(store_url=store.url, plan=plan, pixels_plan=pixels, feature_plan=None, validation=())


@pytest.mark.parametrize("gpus", [0, 0.25])
@pytest.mark.parametrize("decoded", [False, True])
def test_gpus_get_stored_bytes_and_a_cache_decoded_shards(
    data: TrialData, tmp_path: Path, gpus: float, decoded: bool
) -> None:
    spec = Spec(
        name="t",
        trials=1,
        photographs=Photographs(train="a", validation="b"),
        teachers=(Teacher(name="t", weights=str(SHIPPED / "teacher-hyperprior.safetensors")),),
        students=(Student(family="hyperprior", N=8, M=96),),
        losses=(LossSpace(preset="prim-l1"),),
        training=Training(gpus_per_rank=gpus, ranks_per_trial=1),
        node_cache=NodeCacheSection(folder=str(tmp_path / "node"), decoded=decoded),
    )
    reader = open_reader(spec, trials(spec)[0], data, lambda step: (), 0, 1)
    batch = reader.batch(0)
    reader.close()
    assert {tap: form.codec for tap, form in batch.stored.items()} == (
        {"x": "pixels" if decoded else "u8"} if gpus else {}
    )
    assert torch.equal(batch.on(torch.device("cpu")).x, torch.full((len(batch.crops), 3, 64, 64), 51 / 255))
    assert (tmp_path / "node").exists() == decoded
