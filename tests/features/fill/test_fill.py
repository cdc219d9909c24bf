"""Filling by Ray tasks, on a folder and on a real S3 server; once each, ledger last, resumable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from models.catalogue import build_ladder
from models.weights import digest, load_ladder, save_ladder
from orchestrator.features.fill.estimate import estimate
from orchestrator.features.fill.fill import fill, mend
from orchestrator.features.fill.missing import missing
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.key import DamagedObject, FeatureError, TeacherWeights, plan_features
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import cut, plan_crops
from orchestrator.photographs.photos import PhotographError, load_rgb
from orchestrator.photographs.survey import survey
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected
from tests.features.racers import race

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


def test_a_ledger_is_published_when_all_its_objects_are(
    local_ray, tmp_path, plan, feature_plans, train_photographs, monkeypatch
):
    real, seen = Store.publish, []

    def publish(self, name, data):
        if name.startswith("ledgers/"):
            seen.append(self.list("features"))
        return real(self, name, data)

    monkeypatch.setattr(Store, "publish", publish)
    fill(Store(tmp_path), plan, feature_plans, train_photographs, lambda line: None)
    assert len(seen) == 2
    for features, there in zip(feature_plans, seen, strict=True):
        wanted = {features.object(tap, shard) for tap in features.taps for shard in range(SHARDS)}
        assert wanted <= set(there)


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
        fill_shard(store, ShardWork.of(plan, feature_plans[1], shard, by_digest))
    before = {name: store.read(name) for name in store.list()}
    assert missing(store, feature_plans[1]) == tuple(range(SHARDS))  # nothing counts before there is a ledger
    report = fill(store, plan, feature_plans, train_photographs, lambda line: None)
    assert (report.reused_shards, report.computed_shards) == (2, 2 * SHARDS - 2)
    assert {name: store.read(name) for name in before} == before
    assert missing(store, feature_plans[1]) == ()


def test_records_that_say_too_much_are_not_believed(
    local_ray, tmp_path, filled, plan, feature_plans, train_photographs
):
    """As when somebody deleted objects by hand: the records stay, and there is no ledger to hold them to."""
    shutil.copytree(filled.folder, tmp_path / "copy")
    store, features = Store(tmp_path / "copy"), feature_plans[1]
    store.delete(features.ledger())
    store.delete(features.object("x_hat", 1))
    store.replace(features.object("y", 3), b"short")
    report = fill(store, plan, feature_plans, train_photographs, lambda line: None)
    assert (report.computed_shards, report.reused_shards) == (2, 2 * SHARDS - 2)
    assert missing(store, features) == ()
    assert all(store.read(name) == filled.read(name) for name in store.list("features"))


def test_the_same_crops_of_another_plan_are_reused(local_ray, tmp_path, plan, teacher, train_photographs):
    store = Store(tmp_path)
    fill(store, plan, [plan_features(plan, teacher, ["y"])], train_photographs, lambda line: None)
    report = fill(store, plan, [plan_features(plan, teacher)], train_photographs, lambda line: None)
    assert report.computed_shards == SHARDS and len(store.list("features")) == 2 * SHARDS  # x_hat alone was made


def test_a_deleted_object_is_made_anew(local_ray, tmp_path, filled, plan, feature_plans, train_photographs):
    shutil.copytree(filled.folder, tmp_path / "copy")
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
    shard = fill_shard(store, ShardWork.of(plan, features, 4, by_digest))
    assert shard is not None and shard.computed
    crop = plan.crops[features.shards[4][0]]
    pixels = cut(load_rgb(by_digest[crop.photograph]), crop).transpose(2, 0, 1)
    with torch.inference_mode():
        y = load_ladder(path)(torch.from_numpy(pixels.copy())[None].float() / 255, 4)["y"][0]
    stored = torch.from_numpy(StoredTap("y", MemoryBlob(store.read(features.object("y", 4)))).row(0))
    step = (y.abs().amax((1, 2), keepdim=True) / 127).clamp(min=1 / 16)
    assert ((stored - y).abs() <= step * 0.501).all()

    mistaken = plan_features(plan, replace(networks, kind="variable-rate"))
    with pytest.raises(FeatureError, match=r"networks\.safetensors: a fixed-lambda ladder, planned as variable-rate$"):
        fill_shard(store, ShardWork.of(plan, mistaken, 4, by_digest))


@pytest.mark.parametrize("damage", ["torn", "flipped", "swapped", "gone"])
def test_a_damaged_object_is_named_and_made_anew(tmp_path, plan, feature_plans, filled, train_photographs, damage):
    shutil.copytree(filled.folder, tmp_path / "copy")
    store, features = Store(tmp_path / "copy"), feature_plans[1]
    name = features.object("y", 0)
    good = store.read(name)
    if damage == "gone":
        store.delete(name)
    else:
        flipped = bytes([*good[:-9], good[-9] ^ 1, *good[-8:]])
        store.replace(
            name, {"torn": good[:99], "flipped": flipped, "swapped": store.read(features.object("y", 1))}[damage]
        )
    findings = mend(store, features, 0, (plan, train_photographs))
    assert store.read(name) == good
    if damage != "gone":
        (finding,) = findings
        assert finding.startswith(f"{store.url}/{name}: tap y: ")
    assert mend(store, features, 0, (plan, train_photographs)) == ()


def test_other_bytes_after_a_repair_are_in_the_ledger(tmp_path, plan, feature_plans, filled, train_photographs):
    """As another machine's arithmetic would give them: here a record and a ledger of other digests."""
    shutil.copytree(filled.folder, tmp_path / "copy")
    store, features = Store(tmp_path / "copy"), feature_plans[1]
    good = store.read(features.ledger())
    digest = json.loads(good)["taps"]["y"][0]["sha256"]
    for name in (features.ledger(), features.record(0)):
        store.replace(name, store.read(name).replace(digest.encode(), b"0" * 64))
    reader = Reader(store.url, plan, feature_plans, rank=0, world=1, batch_size=8, seed=0)
    with pytest.raises(DamagedObject, match=r"tap y, shard 0: .* whose digest is not the ledger's"):
        for step in range(5):
            reader.batch(step)
    mend(store, features, 0, (plan, train_photographs))
    assert store.read(features.ledger()) == good
    for step in range(5, 15):  # the same reader goes on: it looks into the ledger again
        reader.batch(step)
    reader.close()


def test_a_fill_of_module_taps(local_ray, tmp_path, plan, teacher, ladder, train_photographs, by_digest):
    taps = ["y", "z", "g_a.1:spatial", "g_a.3:channel", "g_a.4:raw", "g_s.0:spatial"]
    store, features = Store(tmp_path), plan_features(plan, teacher, taps)
    fill(store, plan, [features], train_photographs, lambda line: None)
    crops = [plan.crops[index] for index in features.shards[3][:4]]
    x = torch.stack(
        [torch.from_numpy(cut(load_rgb(by_digest[c.photograph]), c).transpose(2, 0, 1).copy()) for c in crops]
    )
    with torch.inference_mode():
        expected = ladder(x.float() / 255, 3, taps=taps)
    for tap in taps:
        stored = StoredTap(tap, MemoryBlob(store.read(features.object(tap, 3))))
        values, live = torch.stack([torch.from_numpy(stored.row(row)) for row in range(4)]), expected[tap]
        assert values.shape == live.shape
        step = (live.abs().amax((2, 3), keepdim=True) / 127).clamp(min=1 / 16 if tap in "yz" else 1e-7)
        assert ((values - live).abs() <= (step if not tap.endswith("channel") else live.abs() / 512) * 0.502).all(), tap


@pytest.mark.parametrize(
    ("tap", "line"),
    [
        ("g_a.99:spatial", r"^taps: .*'g_a.99:spatial'. is not allowed: modules of small: "),
        ("g_a.0:raw", r"^taps: 'g_a.0:raw' is not allowed: raw maps at stride 8 or 16; it has 2$"),
    ],
)
def test_taps_that_cannot_be_stored_are_refused(local_ray, tmp_path, plan, teacher, train_photographs, tap, line):
    store, features = Store(tmp_path), plan_features(plan, teacher, ["y", tap])
    for act in (estimate, fill):
        with pytest.raises(FeatureError, match=line):
            act(store, plan, [features], train_photographs)
    assert store.list("features") == []


def test_an_estimate_is_near_what_a_fill_then_takes(local_ray, tmp_path, plan, feature_plans, train_photographs):
    store = Store(tmp_path)
    pixels, teacher = estimate(store, plan, feature_plans, train_photographs)
    assert (pixels.missing, pixels.crops, teacher.shards) == (SHARDS, 166, SHARDS) and store.list() == []
    report = fill(store, plan, feature_plans, train_photographs, lambda line: None)
    assert sum(pixels.bytes.values()) + sum(teacher.bytes.values()) == pytest.approx(report.bytes, rel=0.1)
    assert pixels.teacher_hours == 0 < teacher.teacher_hours < 1 / 60
    again = estimate(store, plan, feature_plans, train_photographs)
    assert [(refill.missing, refill.crops, refill.requests, sum(refill.bytes.values())) for refill in again] == 2 * [
        (0, 0, 0, 0)
    ]


def test_fills_that_race_agree_on_one_object(store, plan, feature_plans, by_digest):
    results = race(store, ShardWork.of(plan, feature_plans[0], 1, by_digest), racers=3)
    assert len({result.entries["x"] for result in results}) == 1
    assert sum(result.computed for result in results) == 1
    assert store.list() == [feature_plans[0].object("x", 1), feature_plans[0].record(1)]


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
    monkeypatch.setattr("orchestrator.store.s3.AWAY_S", 0.0)
    with pytest.raises(StoreError, match="s3://sweep/x: "):
        missing(Store("s3://sweep/x"), feature_plans[0])


@pytest.mark.slow
def test_the_driver_side_loads_no_torch():
    code = (
        "import sys, orchestrator.features.fill.fill, orchestrator.sweep.gang.trial; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
