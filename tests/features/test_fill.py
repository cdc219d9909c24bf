"""Filling by Ray tasks, on a folder and on a real S3 server; once each, ledger last, resumable."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from models.catalogue import build_ladder
from models.weights import digest, load_ladder, save_ladder
from orchestrator.crops import cut, plan_crops
from orchestrator.features.codec import decode
from orchestrator.features.fill import fill, fill_shard, missing
from orchestrator.features.key import FeatureError, TeacherWeights, plan_features
from orchestrator.features.reader import Reader
from orchestrator.photos import PhotographError, load_rgb, survey
from orchestrator.spec import PRIM_LAMBDAS, Crops
from orchestrator.store import Store, StoreError
from orchestrator.sweep.cluster import connected

SHARDS = 5  # one a rate point in this plan


@pytest.fixture(scope="module")
def local_ray(s3_server) -> Iterator[None]:
    """Its workers take the server's credentials from the environment that it starts in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
        patch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with connected(num_cpus=2):
            yield


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path) -> Store:
    if request.param == "file":
        return Store(tmp_path / "a store")
    request.getfixturevalue("s3_environment")
    return Store(f"s3://{request.getfixturevalue('s3_server').bucket}/{uuid.uuid4().hex}")


def test_a_fill_and_a_second_one(local_ray, store, plan, feature_plans, train_photographs, filled):
    lines: list[str] = []
    first = fill(store, plan, feature_plans, train_photographs, lines.append)
    assert (first.reused_shards, first.computed_shards) == (0, 2 * SHARDS)
    names = store.list("features")
    assert len(names) == 3 * SHARDS and len(store.list("ledgers")) == 2
    assert first.bytes == sum(len(store.read(name)) for name in names)
    assert lines[-1].startswith("features: 10/10 shards, ") and lines[-1].endswith(" MB/s")

    second = fill(store, plan, feature_plans, train_photographs, lines.append)
    assert (second.reused_shards, second.computed_shards, second.bytes) == (2 * SHARDS, 0, 0)

    one, other = (
        Reader(where.url, plan, feature_plans, rank=0, world=1, batch_size=8, seed=0) for where in (store, filled)
    )
    for step in range(5):
        assert torch.equal(one.batch(step).x, other.batch(step).x)
        for tap in ("y", "x_hat"):
            torch.testing.assert_close(
                one.batch(step).targets[tap], other.batch(step).targets[tap], atol=4e-3, rtol=1e-3
            )
    one.close()
    other.close()


def test_renamed_photographs_are_found(local_ray, tmp_path, filled, train_photographs, by_digest, plan, teacher):
    for index, photograph in enumerate(train_photographs):
        shutil.copy(photograph.path, tmp_path / f"{99 - index}.webp")
    renamed = survey(tmp_path, minimum_side=128).photographs
    same = plan_crops(renamed, Crops(count=166, size=64, downscale=(0.7, 1.0)), 5, seed=0)
    plans = [plan_features(same), plan_features(same, replace(teacher, name="renamed", path="/nowhere"))]
    report = fill(filled, same, plans, renamed, lambda line: None)
    assert (report.computed_shards, report.bytes) == (0, 0)


def test_a_fill_that_was_cut_off_goes_on(local_ray, tmp_path, plan, feature_plans, train_photographs, by_digest):
    store = Store(tmp_path)
    for shard in (1, 4):
        fill_shard(store, plan, feature_plans[1], shard, by_digest)
    before = {name: store.read(name) for name in store.list()}
    assert missing(store, feature_plans[1]) == tuple(range(SHARDS))  # nothing counts before there is a ledger
    report = fill(store, plan, feature_plans, train_photographs, lambda line: None)
    assert (report.reused_shards, report.computed_shards) == (2, 2 * SHARDS - 2)
    assert {name: store.read(name) for name in before} == before
    assert missing(store, feature_plans[1]) == ()


def test_the_same_crops_of_another_plan_are_reused(local_ray, tmp_path, plan, teacher, train_photographs):
    store = Store(tmp_path)
    fill(store, plan, [plan_features(plan, teacher, ["y"])], train_photographs, lambda line: None)
    report = fill(store, plan, [plan_features(plan, teacher)], train_photographs, lambda line: None)
    assert report.computed_shards == SHARDS and len(store.list("features")) == 2 * SHARDS  # x_hat alone was made


def test_a_deleted_object_is_made_anew(local_ray, tmp_path, filled, plan, feature_plans, train_photographs):
    shutil.copytree(filled.url.removeprefix("file://"), tmp_path / "copy")
    store = Store(tmp_path / "copy")
    store.delete(feature_plans[1].object("y", 2))
    assert missing(store, feature_plans[1]) == (2,)
    report = fill(store, plan, feature_plans, train_photographs, lambda line: None)
    assert (report.reused_shards, report.computed_shards) == (2 * SHARDS - 1, 1)
    reader = Reader(store.url, plan, feature_plans, rank=0, world=1, batch_size=8, seed=0)
    for step in range(5):
        reader.batch(step)  # whose digests are the ledger's
    reader.close()


def test_a_teacher_with_a_network_for_each_rate_point(tmp_path, plan, by_digest):
    path = tmp_path / "networks.safetensors"
    save_ladder(path, build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="fixed-lambda"))
    networks = TeacherWeights(name="networks", path=str(path), digest=digest(path), kind="fixed-lambda")
    store, features = Store(tmp_path / "store"), plan_features(plan, networks)
    assert fill_shard(store, plan, features, 4, by_digest).computed
    crop = plan.crops[features.shards[4][0]]
    pixels = cut(load_rgb(by_digest[crop.photograph]), crop).transpose(2, 0, 1)
    with torch.inference_mode():
        y = load_ladder(path)(torch.from_numpy(pixels.copy())[None].float() / 255, 4)["y"][0]
    found = torch.from_numpy(decode("y", store.read(features.object("y", 4)))[0]).float()
    torch.testing.assert_close(found, y, atol=1e-5, rtol=2**-10)

    mistaken = plan_features(plan, replace(networks, kind="variable-rate"))
    with pytest.raises(FeatureError, match=r"networks\.safetensors: a fixed-lambda ladder, planned as variable-rate$"):
        fill_shard(store, plan, mistaken, 4, by_digest)


def test_a_torn_object_is_named_and_made_anew(tmp_path, plan, feature_plans, by_digest):
    store, features = Store(tmp_path), feature_plans[1]
    fill_shard(store, plan, features, 0, by_digest)
    good = store.read(features.object("y", 0))
    store.replace(features.object("y", 0), good[: len(good) // 2])
    again = fill_shard(store, plan, features, 0, by_digest)
    assert again.computed and again.bytes == len(good)
    (finding,) = again.findings
    assert finding.startswith(f"{store.url}/{features.object('y', 0)}: shard 0: tap y: not a stored tap")
    assert store.read(features.object("y", 0)) == good


def _fill_one(store, plan, features, by_digest, barrier, answers) -> None:
    barrier.wait(60)
    answers.put(fill_shard(store, plan, features, 1, by_digest))


def test_fills_that_race_agree_on_one_object(store, plan, feature_plans, by_digest):
    """Pixels, by forked processes: torch does not survive a fork."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.Queue()
    arguments = (store, plan, feature_plans[0], by_digest, barrier, answers)
    racers = [context.Process(target=_fill_one, args=arguments) for _ in range(3)]
    for racer in racers:
        racer.start()
    results = [answers.get(timeout=120) for _ in racers]
    for racer in racers:
        racer.join(60)
    assert len({result.entries["x"] for result in results}) == 1
    assert store.list() == [feature_plans[0].object("x", 1)]


def test_what_a_task_raises_reaches_the_driver(local_ray, tmp_path, plan, teacher, train_photographs):
    store = Store(tmp_path / "store")
    changed = plan_features(plan, replace(teacher, digest="0" * 64))
    with pytest.raises(
        FeatureError, match=rf"^{teacher.path}: digest {teacher.digest}, but 0{{64}} was planned for small$"
    ):
        fill(store, plan, [changed], train_photographs, lambda line: None)
    with pytest.raises(FeatureError, match=r"^teacher small: .*nowhere"):
        fill(
            store, plan, [plan_features(plan, replace(teacher, path="/nowhere"))], train_photographs, lambda line: None
        )
    with pytest.raises(FeatureError, match="is not among those surveyed"):
        fill(store, plan, [plan_features(plan)], train_photographs[:3], lambda line: None)
    gone = [replace(photograph, path="/nowhere/x.png") for photograph in train_photographs]
    with pytest.raises(PhotographError, match=r"^/nowhere/x\.png"):
        fill(store, plan, [plan_features(plan)], gone, lambda line: None)
    assert store.list("ledgers") == []
    assert ray.is_initialized()


def test_a_server_that_is_not_there_stops_a_fill_at_once(s3_environment, monkeypatch, plan, feature_plans):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("orchestrator.store.S3_CONFIG", {"retries": {"max_attempts": 1}, "connect_timeout": 1})
    with pytest.raises(StoreError, match="s3://sweep/x: "):
        missing(Store("s3://sweep/x"), feature_plans[0])


def test_the_driver_side_loads_no_torch():
    code = "import sys, orchestrator.features.fill as f, orchestrator.features.codec; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
