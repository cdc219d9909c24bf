"""A small crop plan of real photographs, a small teacher with random weights, and a filled store."""

from __future__ import annotations

import uuid

import pytest
import torch

from models.catalogue import build_ladder
from models.weights import digest, load_ladder, save_ladder
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.key import FeaturePlan, TeacherWeights, plan_features
from orchestrator.features.format.ledger import publish_ledger
from orchestrator.photographs.crops import CropPlan, plan_crops
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops
from orchestrator.store.store import Store


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path) -> Store:
    """An empty store, in a folder and on a real S3 server."""
    if request.param == "file":
        return Store(tmp_path / "a store")
    request.getfixturevalue("s3_environment")
    return Store(f"s3://{request.getfixturevalue('s3_server').bucket}/{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def plan(train_photographs) -> CropPlan:
    """166 crops of 64x64: 34 or 33 a rate point; resized and mirrored ones among them."""
    return plan_crops(train_photographs, Crops(count=166, size=64, downscale=(0.7, 1.0)), 5, seed=0)


@pytest.fixture(scope="session")
def by_digest(train_photographs):
    return {photograph.digest: photograph for photograph in train_photographs}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> TeacherWeights:
    path = tmp_path_factory.mktemp("teacher") / "small.safetensors"
    torch.manual_seed(0)
    ladder = build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="variable-rate")
    with torch.no_grad():  # untrained, a network's latent rounds to 0 and its reconstructions are all one grey
        ladder.networks[0].g_a[-1].weight.mul_(300)
        ladder.networks[0].g_s[-1].weight.mul_(0.01)
        ladder.networks[0].g_s[-1].bias.fill_(0.5)
    save_ladder(path, ladder)
    return TeacherWeights(name="small", path=str(path), digest=digest(path))


@pytest.fixture(scope="session")
def ladder(teacher):
    return load_ladder(teacher.path)


@pytest.fixture(scope="session")
def feature_plans(plan, teacher) -> tuple[FeaturePlan, FeaturePlan]:
    return plan_features(plan), plan_features(plan, teacher)


def fill_here(store: Store, plan, feature_plans, by_digest) -> None:
    """What `fill` does, in this process."""
    for features in feature_plans:
        works = [ShardWork.of(plan, features, shard, by_digest) for shard in range(len(features.shards))]
        done = [filled for work in works if (filled := fill_shard(store, work))]
        assert len(done) == len(works)
        publish_ledger(store, features, {shard: filled.entries for shard, filled in enumerate(done)})


@pytest.fixture(scope="session")
def filled(tmp_path_factory, plan, feature_plans, by_digest) -> Store:
    """A filled store; tests leave it as it is."""
    store = Store(tmp_path_factory.mktemp("store"))
    fill_here(store, plan, feature_plans, by_digest)
    return store
