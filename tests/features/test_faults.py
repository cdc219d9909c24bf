"""The table of faults of the feature cache: fills and readers against a real S3 server behind a proxy that disturbs.

Of each: the run ends right, every object is published once, work done twice is counted, and what a reader hands to
training is bit for bit what it is undisturbed. What was seen is printed when the module's tests have ended.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.features.fill import claim as claims
from orchestrator.features.fill.claim import claim
from orchestrator.features.fill.fill import mend
from orchestrator.features.format.key import DamagedObject
from orchestrator.features.format.ledger import Entry, ShardRecord
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected
from testing.servers import FaultProxy, SeaweedFS
from tests.features.evidence import Record, Table, disturbed, equal, lost, published, read, reader, repeated
from tests.features.filler import Spare, Work, command_line, tree, until

LEASE_S = 3  # of fills that take over: S3 tells time in whole seconds


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    table = Table()
    yield table
    table.show(request)


@pytest.fixture(scope="module")
def server() -> Iterator[SeaweedFS]:
    """A server of this module's own: a test kills it."""
    with tempfile.TemporaryDirectory(prefix="server-") as folder, SeaweedFS(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def module_proxy(server: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def local_ray(server: SeaweedFS, module_proxy: FaultProxy) -> Iterator[None]:
    """This process, Ray's workers and fills in processes of their own reach the server through the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (server.environment | {"AWS_ENDPOINT_URL": module_proxy.endpoint}).items():
            patch.setenv(name, value)
        with connected(num_cpus=2):
            yield


@pytest.fixture(scope="module")
def work(teacher: Any) -> Work:
    return Work.of(400, 5, teacher)


@pytest.fixture(scope="module")
def spare(work: Work, clean: Store) -> Iterator[Spare]:
    """Four fillers; they take 10 s to start."""
    spare = Spare(work, 4)
    yield spare
    spare.close()


@pytest.fixture(scope="module")
def clean(work: Work, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that was filled with no fault."""
    store = Store(tmp_path_factory.mktemp("clean"))
    assert work.fill(store.url).computed_shards == work.shards
    return store


@pytest.fixture(scope="module")
def undisturbed(work: Work, clean: Store) -> list[Batch]:
    """What readers must hand out."""
    return read(work, clean.url, None)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A folder of the server, on the far side of the proxy, and what tests look at in it."""

    proxy: FaultProxy
    server: SeaweedFS
    work: Work
    prefix: str
    cache: NodeCache  # cold

    @property
    def url(self) -> str:
        return f"s3://{self.server.bucket}/{self.prefix}"

    def published(self) -> Counter[str]:
        """Objects of features, and how often the server took them as new."""
        return published(self.proxy.requests(), f"/{self.server.bucket}/{self.prefix}")

    def once(self) -> str:
        """Asserts that every object was published, once."""
        assert self.published() == dict.fromkeys(self.work.objects(), 1)
        return f"{len(self.work.objects())} objects once"

    def claimed(self) -> list[str]:
        """The teacher's shards, in the order in which they were claimed."""
        folder = f"/{self.server.bucket}/{self.prefix}/shards/{self.work.feature_plans[1].source}/"
        return [
            request["path"]
            for request in self.proxy.requests()
            if request["path"].startswith(folder)
            and request["headers"].get("If-None-Match")
            and request["status"] == 200
        ]

    def objects(self, folder: str = "") -> dict[str, Any]:
        """Name -> (ETag, time of change) of all objects below a folder, read past the proxy."""
        pages = self.server.client().get_paginator("list_objects_v2")
        listed = pages.paginate(Bucket=self.server.bucket, Prefix=f"{self.prefix}/{folder}")
        return {
            entry["Key"]: (entry["ETag"], entry["LastModified"])
            for page in listed
            for entry in page.get("Contents", [])
        }

    def held(self) -> int:
        """How many shards a process holds, or held when it died."""
        client, bucket = self.server.client(), self.server.bucket
        records = [client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in self.objects("shards/")]
        return sum(ShardRecord.from_json(record).owner is not None for record in records)

    def until_teachers_shards_are_held(self, count: int) -> None:
        """With its pixels a second away, a claimed shard is held for that long before its first object is written."""
        self.proxy.behave(latency_s=1, only="GET .*/features/pixels/")
        until(lambda: len(self.claimed()) >= count)


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    module_proxy: FaultProxy,
    server: SeaweedFS,
    local_ray: None,
    work: Work,
    tmp_path: Path,
) -> Iterator[Scene]:
    module_proxy.behave()
    module_proxy.forget()
    prefix = re.sub(r"\W+", "-", request.node.name).strip("-")
    yield Scene(proxy=module_proxy, server=server, work=work, prefix=prefix, cache=NodeCache(tmp_path / "node", 10**9))
    module_proxy.behave()


@pytest.fixture
def record(table: Table, record_property: Any) -> Record:
    return Record(table, record_property)


NETWORK: dict[str, dict[str, Any]] = {
    "503 SlowDown": {"error_share": 0.2},
    "connections cut": {"cut_share": 0.15},
    "answers lost": {"cut_after_share": 0.15},
    "bits flipped in transit": {"corrupt_share": 0.2},
}


@pytest.mark.parametrize("fault", NETWORK)
def test_requests_that_go_wrong(scene: Scene, undisturbed: list[Batch], record: Record, fault: str) -> None:
    scene.proxy.behave(**NETWORK[fault])
    report = scene.work.fill(scene.url)
    once, filling = scene.once(), scene.proxy.requests()
    scene.proxy.forget()
    batches = read(scene.work, scene.url, scene.cache)
    reading = scene.proxy.requests()
    assert (report.computed_shards, report.duplicated_shards) == (scene.work.shards, 0)
    assert equal(batches, undisturbed)
    for requests in (filling, reading):
        assert len(disturbed(requests)) >= 3
        assert repeated(requests) == len(lost(requests))
    shares = ", ".join(f"{name} {share}" for name, share in NETWORK[fault].items())
    record(f"{fault} ({shares}), fill", filling, published=once, duplicated=report.duplicated_shards, outcome="right")
    record(f"{fault} ({shares}), read", reading, outcome=f"{len(batches)} batches equal")


def test_not_found_is_told_by_the_status(scene: Scene) -> None:
    """A flipped bit of its XML would turn NoSuchKey into a code that nobody knows: once in 43 times."""
    scene.proxy.behave(corrupt_share=1)
    store = Store(scene.url)
    for number in range(100):
        with pytest.raises(FileNotFoundError):
            store.read(f"nothing/{number}")


def test_two_seconds_of_latency(scene: Scene, spare: Spare, teacher: Any, tmp_path: Path, record: Record) -> None:
    work = Work.of(64, 1, teacher)  # one shard of pixels, one of the teacher's
    scene = replace(scene, work=work)
    scene.proxy.behave(latency_s=2)
    report = work.fill(scene.url)
    once, filling = scene.once(), len(scene.proxy.requests())
    batches = read(work, scene.url, scene.cache)
    requests = scene.proxy.requests()
    assert (report.computed_shards, report.duplicated_shards) == (2, 0)
    assert len(disturbed(requests)) == len(requests) and lost(requests) == []
    elsewhere = Store(tmp_path / "elsewhere").url
    work.fill(elsewhere)
    assert equal(batches, read(work, elsewhere, None))
    outcome = f"{filling} requests to fill in {report.seconds:.0f} s; {len(batches)} batches equal"
    record("every request 2 s late", requests, published=once, duplicated=report.duplicated_shards, outcome=outcome)


def test_a_server_that_dies_and_comes_back(
    scene: Scene, undisturbed: list[Batch], record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.proxy.behave(latency_s=0.1)

    def outage() -> int:
        until(lambda: len(scene.published()) >= 6)
        scene.server.kill()
        before = len(scene.published())
        time.sleep(3)
        scene.server.start()
        return before

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(outage)
        report = scene.work.fill(scene.url)
        assert 6 <= killed.result() < len(scene.work.objects())
    made, requests = scene.published(), scene.proxy.requests()
    # What it had written, and died before it could say so, was answered with 200 to nobody.
    unsaid = scene.work.objects() - made.keys()
    assert set(made.values()) == {1} and all(
        any(request["path"].endswith(name) for request in lost(requests)) for name in unsaid
    )
    assert (report.computed_shards, report.duplicated_shards) == (scene.work.shards, 0)
    assert repeated(requests) == len(lost(requests)) >= 1

    scene.server.kill()
    monkeypatch.setenv("AWS_ENDPOINT_URL", scene.server.endpoint)  # no proxy: connections are refused
    store = Store(scene.url)

    def start_later() -> None:
        time.sleep(2)
        scene.server.start()

    with ThreadPoolExecutor(3) as pool:
        listed = pool.submit(store.list, "features")
        there = pool.submit(store.exists, next(iter(scene.work.objects())))
        back = pool.submit(start_later)
        batches = read(scene.work, scene.url, scene.cache)
        assert {*listed.result()} == scene.work.objects() and there.result()
        back.result()
    assert equal(batches, undisturbed)
    record(
        f"server killed after {killed.result()} objects, back after 3 s; killed again before reading, back after 2 s",
        requests,
        published=f"{len(made)} objects once, {len(unsaid)} more as it died",
        duplicated=report.duplicated_shards,
        outcome=f"filled in {report.seconds:.0f} s; {len(batches)} batches equal",
    )


def test_workers_killed_in_mid_shard(scene: Scene, undisturbed: list[Batch], record: Record) -> None:
    """Ray gives their tasks to new workers, which take the claims over at once: they have the same owner."""

    def massacre() -> tuple[int, int]:
        scene.until_teachers_shards_are_held(3)
        busy = [pid for pid in tree(os.getpid()) if command_line(pid).startswith("ray::_task")]
        for pid in busy:
            os.kill(pid, signal.SIGKILL)
        held = scene.held()
        scene.proxy.behave()
        return len(busy), held

    with ThreadPoolExecutor(1) as pool:
        victims = pool.submit(massacre)
        report = scene.work.fill(scene.url)
        killed, held = victims.result()
    once, requests = scene.once(), scene.proxy.requests()
    assert killed >= 1 and held >= 1 and scene.held() == 0
    # of a shard whose objects were all there when its worker died nothing is computed again
    assert scene.work.shards - killed <= report.computed_shards <= scene.work.shards and report.duplicated_shards == 0
    assert equal(read(scene.work, scene.url, scene.cache), undisturbed)
    record(
        f"{killed} Ray workers killed, {held} shards held by them",
        requests,
        published=once,
        duplicated=report.duplicated_shards,
        outcome=f"{len(undisturbed)} batches equal",
    )


@pytest.mark.parametrize("alone", [False, True], ids=["with its Ray", "alone"])
def test_a_driver_killed_in_mid_fill(
    scene: Scene, spare: Spare, undisturbed: list[Batch], record: Record, alone: bool
) -> None:
    """Another fill takes its shards over when its leases have lapsed; alone, its workers live on for a moment."""
    with spare.take() as filler:
        filler.go(scene.url, LEASE_S)
        scene.until_teachers_shards_are_held(3)
        filler.kill(driver_only=alone)
        if not alone:
            until(lambda: not filler.alive())
        survivors, held = filler.alive(), scene.held()
        scene.proxy.behave()
        report = scene.work.fill(scene.url, LEASE_S)
        assert scene.held() == 0
        assert alone or report.computed_shards >= held >= 1
    once, requests = scene.once(), scene.proxy.requests()
    assert report.computed_shards + report.reused_shards == scene.work.shards
    assert report.reused_shards >= len(scene.work.plan.shards) and report.duplicated_shards == 0
    assert equal(read(scene.work, scene.url, scene.cache), undisturbed)
    record(
        f"driver killed {'alone' if alone else 'with its Ray'}, {held} shards held",
        requests,
        published=once,
        duplicated=report.duplicated_shards,
        outcome=f"{survivors} processes outlived it; the next fill computed {report.computed_shards} shards and reused "
        f"{report.reused_shards} in {report.seconds:.0f} s; {len(undisturbed)} batches equal",
    )


def test_a_filler_paused_beyond_its_lease(scene: Scene, spare: Spare, undisturbed: list[Batch], record: Record) -> None:
    """Driver, Ray and worker are stopped while a shard is held, and go on when another fill has finished."""
    with spare.take() as filler:
        filler.go(scene.url, LEASE_S)
        scene.until_teachers_shards_are_held(1)
        filler.pause()
        assert scene.held() == 1
        scene.proxy.behave()
        report = scene.work.fill(scene.url, LEASE_S)
        # all of the teacher's, the one that was held among them
        assert (report.computed_shards, report.duplicated_shards) == (len(scene.work.plan.shards), 0)
        there, before = scene.objects(), len(scene.proxy.requests())
        filler.resume()
        late = filler.report()
    requests = scene.proxy.requests()
    refused = [request for request in requests[before:] if request["method"] == "PUT"]
    assert late.duplicated_shards == 1
    assert scene.objects() == there and refused and {request["status"] for request in refused} == {412}
    once = scene.once()
    assert equal(read(scene.work, scene.url, scene.cache), undisturbed)
    record(
        f"filler paused with a shard held, {report.seconds:.0f} s until another had taken it over and finished",
        requests,
        published=once,
        duplicated=f"{late.duplicated_shards} by the paused one, {report.duplicated_shards} by the other",
        outcome=f"{len(refused)} late writes refused, store unchanged; {len(undisturbed)} batches equal",
    )


def test_a_holder_whose_shard_was_finished_alike_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back when all is written, its own bytes too: what it did was done twice all the same."""
    monkeypatch.setattr(claims.Claim, "_renew", lambda self: None)  # as if the process were stopped
    store, made = Store(tmp_path), {"k": Entry(key="k", sha256="0" * 64, bytes=3)}
    late = claim(store, "a.json", "late", lease_s=0.5)
    assert late is not None
    with late:
        time.sleep(0.6)
        other = claim(store, "a.json", "other", lease_s=0.5)
        assert other is not None
        with other:
            assert other.finish(made)
        there = store.read("a.json")
        assert not late.finish(made) and late.lost and store.read("a.json") == there


def test_a_claim_that_nobody_has_any_more_lapses(tmp_path: Path) -> None:
    """Its thread lives in a worker that lives on, as after a task that Ray cancelled."""
    store = Store(tmp_path)
    held = claim(store, "a.json", "cut off", lease_s=0.6)
    assert held is not None
    held.__enter__()
    time.sleep(1)
    assert claim(store, "a.json", "other", lease_s=0.6) is None
    del held
    time.sleep(1)
    assert claim(store, "a.json", "other", lease_s=0.6) is not None


def test_two_fills_at_once(scene: Scene, spare: Spare, undisturbed: list[Batch], record: Record) -> None:
    with spare.take() as filler:
        scene.proxy.behave(latency_s=0.4)  # so that neither is done before the other's workers have started
        filler.go(scene.url, 60)
        ours, theirs = scene.work.fill(scene.url), filler.report()
    once, requests = scene.once(), scene.proxy.requests()
    assert ours.computed_shards + theirs.computed_shards == scene.work.shards
    assert min(ours.computed_shards, theirs.computed_shards) >= 1
    assert ours.duplicated_shards == theirs.duplicated_shards == 0
    assert equal(read(scene.work, scene.url, scene.cache), undisturbed)
    record(
        "two fills at once, each with a Ray of its own",
        requests,
        published=once,
        duplicated=ours.duplicated_shards + theirs.duplicated_shards,
        outcome=f"{ours.computed_shards} and {theirs.computed_shards} shards computed in {ours.seconds:.0f} s; "
        f"{len(undisturbed)} batches equal",
    )


@pytest.mark.parametrize("damage", ["flipped", "truncated", "swapped", "gone"])
def test_objects_damaged_in_the_store(
    scene: Scene, clean: Store, undisturbed: list[Batch], record: Record, damage: str
) -> None:
    """As training does: an object that a reader names is made anew, and the same reader goes on."""
    store, work = Store(scene.url), scene.work
    for name in clean.list():
        store.publish(name, clean.read(name))
    pixels, teacher = work.feature_plans
    places = ((pixels, "x", 3), (teacher, "y", 5), (teacher, "x_hat", 8))
    victims = {(features.digest, tap, shard): features.object(tap, shard) for features, tap, shard in places}
    for (_, tap, shard), name in victims.items():
        data = store.read(name)
        if damage == "gone":
            store.delete(name)
            continue
        other = (pixels if tap == "x" else teacher).object(tap, (shard + 2) % 10)
        flipped = bytes([*data[:-9], data[-9] ^ 1, *data[-8:]])
        store.replace(name, {"flipped": flipped, "truncated": data[:-1], "swapped": store.read(other)}[damage])
    scene.proxy.forget()

    batches: list[Batch] = []
    named, findings = [], list[str]()
    opened = reader(work, scene.url, scene.cache)
    while len(batches) < len(undisturbed):
        try:
            batches.append(opened.batch(len(batches)))
        except DamagedObject as error:
            place = error.plan, error.tap, error.shard
            assert str(error).startswith(f"{scene.url}/{victims[place]}: tap {error.tap}, shard {error.shard}: ")
            named.append(place)
            features = pixels if error.plan == pixels.digest else teacher
            findings += mend(store, features, error.shard, (work.plan, work.photographs))
    opened.close()
    assert sorted(named) == sorted(victims)
    assert len(findings) == (0 if damage == "gone" else len(victims))
    assert scene.published() == dict.fromkeys(victims.values(), 1)  # anew
    assert {name: store.read(name) for name in clean.list()} == {name: clean.read(name) for name in clean.list()}
    assert equal(batches, undisturbed)
    outcome = f"{len(batches)} batches equal, store as it was"
    record(
        f"{len(victims)} objects {damage} in the store", named=len(named), published="each anew once", outcome=outcome
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip() if done else 'no mount'}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_node_cache_on_a_full_disk(
    scene: Scene, clean: Store, undisturbed: list[Batch], record: Record, disk: Path
) -> None:
    store, lines = Store(scene.url), list[str]()
    for name in clean.list():
        store.publish(name, clean.read(name))
    scene.proxy.forget()
    batches = read(scene.work, scene.url, NodeCache(disk / "node", 10**9, lines.append))
    kept = len([path for path in (disk / "node").iterdir() if path.is_file()])
    assert equal(batches, undisturbed) and 0 < kept < len(scene.work.objects())
    assert len(lines) == 1 and lines[0].startswith(f"{disk / 'node'}: No space left on device; reading goes on ")
    record(
        "node cache on a disk of 1.5 MB",
        scene.proxy.requests(),
        outcome=f"{kept} of {len(scene.work.objects())} objects kept; {len(batches)} batches equal; said: {lines[0]}",
    )


def test_a_store_on_a_full_disk(
    local_ray: None, work: Work, clean: Store, undisturbed: list[Batch], record: Record, disk: Path
) -> None:
    store = Store(disk / "store")
    with pytest.raises(StoreError, match=rf"^{store.url}: No space left on device$") as caught:
        work.fill(store.url, LEASE_S)
    assert [path.name for path in disk.rglob("*") if path.name.endswith(".tmp")] == []
    before = {name: (disk / "store" / name).stat().st_mtime_ns for name in store.list("features")}
    assert 0 < len(before) < len(work.objects()) and store.list("ledgers") == []
    assert {name: store.read(name) for name in before} == {name: clean.read(name) for name in before}
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    report = work.fill(store.url, LEASE_S)
    after = {name: (disk / "store" / name).stat().st_mtime_ns for name in store.list("features")}
    assert after.keys() == work.objects() and before.items() <= after.items()
    assert report.duplicated_shards == 0 and equal(read(work, store.url, None), undisturbed)
    record(
        "store on a disk of 1.5 MB, then of 64 MB",
        published=f"{len(before)} objects before, {len(after) - len(before)} after, none twice",
        duplicated=report.duplicated_shards,
        outcome=f"said: {caught.value}; then {report.computed_shards} shards computed in {report.seconds:.0f} s, "
        f"{len(undisturbed)} batches equal",
    )
