"""A damaged object is made again with the GPU that its trial holds, and without one where none is needed."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from orchestrator.features.format.key import FeaturePlan, TeacherWeights, plan_features
from orchestrator.photographs.crops import plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store
from orchestrator.sweep.gang import mending

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
        lines = mending.mended(Store(tmp_path), None, features, 0, (), gpus_per_rank=0.25)  # type: ignore[arg-type]
        assert lines == ("made again",)
    of_pixels, of_teacher = asked
    assert of_pixels == {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": "DEFAULT"}
    assert (of_teacher["num_cpus"], of_teacher["num_gpus"]) == (0, 0.25)
    assert of_teacher["scheduling_strategy"].placement_group is group
