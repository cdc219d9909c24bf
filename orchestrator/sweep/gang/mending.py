"""A damaged object of the feature store, made again by a Ray task with what the trial that met it has reserved."""

from __future__ import annotations

import os
from collections.abc import Sequence

import ray
from ray import ObjectRef
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.features.fill.fill import mend
from orchestrator.features.format.key import FeaturePlan
from orchestrator.photographs.crops import CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.store.store import Store


def gpus_for(features: FeaturePlan, per_rank: float) -> float:
    """The share of a GPU that making an object takes: a teacher's is one rank's, pixels need none.

    Args:
        features: what the object is of.
        per_rank: `training.gpus_per_rank`.
    """
    return min(1.0, per_rank) if features.teacher is not None else 0.0


def mended(
    store: Store, features: FeaturePlan, shard: int, sources: ObjectRef, *, gpus_per_rank: float
) -> tuple[str, ...]:
    """`fill.mend` in a task of its own; the gang that met the damage is gone, so what it had reserved is free.

    The trial's CPUs and GPUs are all in its placement group, and other trials may hold the rest of the cluster's.

    Args:
        store, features, shard: see `fill.mend`.
        sources: refers to the crops and their photographs.
        gpus_per_rank: of the gang.
    """
    gpus, group = gpus_for(features, gpus_per_rank), ray.util.get_current_placement_group()
    place = PlacementGroupSchedulingStrategy(group) if gpus and group is not None else "DEFAULT"
    task = ray.remote(_mend).options(num_cpus=0, num_gpus=gpus, scheduling_strategy=place)
    lines: tuple[str, ...] = ray.get(task.remote(store, features, shard, sources))
    return lines


def _mend(
    store: Store, features: FeaturePlan, shard: int, sources: tuple[CropPlan, Sequence[Photograph]]
) -> tuple[str, ...]:
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides no GPU from a task that asked for none
    return mend(store, features, shard, sources)
