"""A damaged object is made again, from crops that its trial does not have, with the GPU that the trial holds."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from orchestrator.distill.trial_data import SharedData
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.key import DamagedObject, FeaturePlan, TeacherWeights, plan_features
from orchestrator.features.format.ledger import publish_ledger
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store
from orchestrator.sweep.gang import mending
from orchestrator.sweep.gang.trial import SweepTrial

TEACHER = TeacherWeights(name="t", path="t.safetensors", digest="0" * 64)


@pytest.fixture(scope="module")
def plans(train_photographs: tuple[Photograph, ...]) -> tuple[FeaturePlan, FeaturePlan]:
    """Of pixels and of a teacher."""
    plan = plan_crops(train_photographs, Crops(count=40, size=64), 5, seed=0)
    return plan_features(plan), plan_features(plan, TEACHER)


@pytest.mark.parametrize(("per_rank", "share"), [(0.0, 0.0), (0.125, 0.125), (1.0, 1.0), (2.0, 1.0)])
def test_a_teacher_takes_the_gpu_of_a_rank_and_pixels_take_none(plans, per_rank: float, share: float) -> None:
    pixels, teacher = plans
    assert mending.gpus_for(pixels, per_rank) == 0
    assert mending.gpus_for(teacher, per_rank) == share


def test_the_task_is_placed_where_its_trial_has_reserved_a_gpu(plans, monkeypatch, tmp_path) -> None:
    """The cluster's GPUs may all be reserved by trials: outside of its placement group the task would wait for ever."""
    asked: list[dict[str, Any]] = []

    class Task:
        def options(self, **options: Any) -> Task:
            asked.append(options)
            return self

        def remote(self, *_: Any) -> None:
            return None

    group = object()
    monkeypatch.setattr(ray, "remote", lambda function: Task())
    monkeypatch.setattr(ray, "get", lambda reference: ("made again",))
    monkeypatch.setattr(ray.util, "get_current_placement_group", lambda: group)
    for features in plans:
        lines = mending.mended(Store(tmp_path), features, 0, None, gpus_per_rank=0.25)
        assert lines == ("made again",)
    of_pixels, of_teacher = asked
    assert of_pixels == {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": "DEFAULT"}
    assert (of_teacher["num_cpus"], of_teacher["num_gpus"]) == (0, 0.25)
    assert of_teacher["scheduling_strategy"].placement_group is group


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
    training = SimpleNamespace(gpus=0.0)
    sweep = SimpleNamespace(data=data, sources=ray.put((crops, photographs)), spec=SimpleNamespace(training=training))
    trial = SimpleNamespace(_sweep=sweep, _mended=[])
    SweepTrial._mend(trial, DamagedObject("damaged", pixels.digest, "x", 2))  # type: ignore[arg-type]
    assert store.read(name) == whole
    assert [line.startswith(f"{store.url}/{name}: ") for line in trial._mended] == [True]
