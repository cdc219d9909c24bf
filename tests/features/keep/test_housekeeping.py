"""ls reports what a store holds, verify finds what is damaged, and prune removes only what nobody needs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import zstandard

from orchestrator.features.fill.missing import missing
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.key import FeatureError, plan_features
from orchestrator.features.format.ledger import ShardRecord, entry_of, publish_ledger
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.features.keep import prune as module
from orchestrator.features.keep.evict import evict
from orchestrator.features.keep.holds import Hold
from orchestrator.features.keep.listing import ls, table
from orchestrator.features.keep.prune import Choice, prune
from orchestrator.features.keep.verify import verify
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import cut
from orchestrator.photographs.photos import load_rgb
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store
from tests.features.claims import claimed
from tests.features.conftest import fill_here

SHARDS = 5
DAY_S = 86_400
ALL = Choice(older_than_s=0)


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path, filled) -> Store:
    """A filled store of the test's own."""
    if request.param == "file":
        store = Store(tmp_path / "a store")
    else:
        request.getfixturevalue("s3_environment")
        store = Store(f"s3://{request.getfixturevalue('s3_server').bucket}/{uuid.uuid4().hex}")
    copy(filled, store)
    return store


@pytest.fixture
def local(tmp_path, filled) -> Store:
    store = Store(tmp_path / "a store")
    copy(filled, store)
    return store


@pytest.fixture
def lines() -> list[str]:
    return []


def copy(filled: Store, store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.publish(name, filled.read(name)), filled.list()))


def everything(store: Store) -> dict[str, Any]:
    """All that counts: of a record its objects, and no holds."""
    contents = {name: store.read(name) for name in store.list() if not name.startswith("holds/")}
    return {
        name: json.loads(data)["objects"] if name.startswith("shards/") else data for name, data in contents.items()
    }


def refill(store: Store, plan, plans, by_digest) -> None:
    """What `fill` does, in this process."""
    for features in plans:
        suspect = store.exists(features.ledger())
        works = {
            shard: ShardWork.of(plan, features, shard, by_digest, suspect=suspect) for shard in missing(store, features)
        }
        made = {}
        for shard, work in works.items():
            while (filled := fill_shard(store, work)) is None or filled.duplicated:
                time.sleep(0.01)
            made[shard] = filled.entries
        publish_ledger(store, features, made)


def make_old(store: Store, name: str, days: float) -> None:
    written = time.time() - days * DAY_S
    path = store.local_path(name)
    assert path is not None
    os.utime(path, (written, written))


# What it holds


def test_ls_tells_the_real_sizes(store, plan, teacher, feature_plans, by_digest):
    narrow = plan_features(plan, teacher, ["y"])
    fill_here(store, plan, [narrow], by_digest)
    other = plan_features(plan, replace(teacher, name="another", digest="ab" * 32), ["y", "z"])
    store.publish(f"features/{teacher.digest[:16]}/y/cut-off.safetensors", b"12345")
    with claimed(store, f"shards/{other.source}/0.json", "somebody"), Hold(store, [other, narrow], "s3://b/run"):
        rows, loose = ls(store)
    by_plan = {row.plan: row for row in rows}
    for features in (*feature_plans, narrow):
        row = by_plan[features.digest]
        names = [features.object(tap, shard) for tap in features.taps for shard in range(SHARDS)]
        assert row.bytes == sum(len(store.read(name)) for name in names)
        assert (row.crops, row.shards, row.state, sorted(row.taps)) == (166, SHARDS, "complete", sorted(features.taps))
    size = by_plan[narrow.digest].bytes
    assert [by_plan[of_plan.digest].shared_bytes for of_plan in (*feature_plans, narrow)] == [0, size, size]
    assert by_plan[feature_plans[0].digest].source == "pixels" and by_plan[feature_plans[0].digest].last_used_s is None
    assert by_plan[narrow.digest].source == f"small {teacher.digest[:12]}"
    assert (by_plan[narrow.digest].last_used_s or 0) < 60
    assert "s3://b/run on " in by_plan[narrow.digest].held_by[0]
    being_filled = by_plan[other.digest]
    assert (being_filled.source, being_filled.state, being_filled.bytes) == ("another abababababab", "being filled", 0)
    assert (being_filled.taps, being_filled.crops) == (("y", "z"), 166)
    assert (loose.objects, loose.bytes, loose.records, loose.filling) == (1, 5, 1, 1)
    text = table(rows, loose)
    assert len(text) == 6 and text[-1] == "in no ledger: 1 objects of 0.0 MB, 1 shard records, 1 of them being filled"


def test_an_object_can_be_read_by_its_documentation(filled, plan, feature_plans, by_digest):
    """docs/feature-store.md, without our code: a ledger, its first object of each tap, the crops in it."""
    for features, tap in zip(feature_plans, ("x", "y"), strict=True):
        ledger = json.loads(filled.read(f"ledgers/{features.digest}.json"))
        entry = ledger["taps"][tap][2]
        data = filled.read(f"features/{features.source}/{tap}/{entry['key']}.safetensors")
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
        tensors, (length,) = safetensors.numpy.load(data), struct.unpack("<Q", data[:8])
        head = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tap"])
        begin, end = tensors["offsets"][:2]
        frame = zstandard.decompress(tensors["frames"][begin:end].tobytes())
        stored = StoredTap(tap, MemoryBlob(data))
        if head["codec"] == "u8/1":
            image = np.frombuffer(frame, np.uint8).reshape(head["shape"]).cumsum(1).cumsum(2)
            image = (image + image[1] * np.array([1, 0, 1])[:, None, None]).astype(np.uint8)
            crop = plan.crops[features.shards[2][0]]
            assert (image == cut(load_rgb(by_digest[crop.photograph]), crop).transpose(2, 0, 1)).all()
        else:
            channels = head["shape"][0]
            steps = np.frombuffer(frame, "<f2", channels).astype(np.float32)
            values = np.frombuffer(frame, np.int8, offset=2 * channels).reshape(head["shape"])
            assert (values * steps[:, None, None] == stored.row(0)).all() and steps.min() >= 1 / 16


def test_ls_says_what_is_not_whole(local, feature_plans):
    local.delete(feature_plans[0].object("x", 1))
    local.replace(feature_plans[1].ledger(), b'{"format": 1}')
    rows, loose = ls(local)
    states = {row.plan: row.state for row in rows}
    assert states[feature_plans[0].digest] == "lacks 1 of 5 objects"
    assert states[feature_plans[1].digest] == "not a ledger of this version (format 1, not 2)"
    assert loose.objects == 2 * SHARDS and len(table(rows, loose)) == 4


def test_an_empty_store_is_listed_verified_and_pruned(tmp_path, lines):
    store = Store(tmp_path / "nothing")
    assert table(*ls(store))[-1].startswith("in no ledger: 0 objects")
    assert verify(store, say=lines.append) == 0 == prune(store, ALL, yes=True, say=lines.append)


# Whether it is whole


def test_a_whole_store_is_verified_in_one_line(store, lines):
    assert verify(store, say=lines.append) == 0
    assert len(lines) == 1 and lines[0].startswith("verify: 15/15 objects, ")


def test_damage_is_named_dropped_and_made_anew(store, plan, feature_plans, by_digest, lines):
    good, (_, features) = everything(store), feature_plans
    torn, flipped, swapped, gone = (features.object("y", shard) for shard in range(4))
    unsound = features.object("x_hat", 4)
    store.replace(torn, good[torn][:99])
    store.replace(flipped, bytes([*good[flipped][:-9], good[flipped][-9] ^ 1, *good[flipped][-8:]]))
    store.replace(swapped, good[torn])
    store.delete(gone)
    store.replace(unsound, good[torn])  # a ledger that says so makes it no object of this tap
    key, entry = features.key("x_hat", 4), entry_of(features.key("x_hat", 4), good[torn])
    ledger = json.loads(good[features.ledger()])
    ledger["taps"]["x_hat"][4] |= {"sha256": entry.sha256, "bytes": entry.bytes}
    store.replace(features.ledger(), json.dumps(ledger).encode())

    assert verify(store, say=lines.append) == 5
    messages = {line.partition(": ")[0].removeprefix(f"{store.url}/"): line.partition(": ")[2] for line in lines[:-1]}
    assert messages[torn] == f"tap y, shard 0: 99 bytes, {len(good[torn]):,} in the ledger"
    assert messages[flipped] == f"tap y, shard 1: {len(good[flipped]):,} bytes whose digest is not the ledger's"
    assert messages[swapped].startswith("tap y, shard 2: ")
    assert messages[gone] == "tap y, shard 3: the object is missing"
    assert messages[unsound].startswith("tap x_hat, shard 4: not a stored tap (format 2, tap 'y', codec 'q8/1')")

    assert verify(store, drop=True, source="small", say=lines.append) == 5
    assert sum(line.endswith("removed; the next fill makes it anew") for line in lines) == 5
    assert not any(store.exists(name) for name in messages)
    assert key not in json.loads(store.read(features.record(4)))["objects"]
    assert missing(store, features) == (0, 1, 2, 3, 4) and missing(store, feature_plans[0]) == ()
    refill(store, plan, feature_plans, by_digest)
    assert everything(store) == good and verify(store, say=lines.append) == 0


def test_a_shard_that_is_being_filled_is_not_dropped(local, feature_plans, lines):
    name = feature_plans[0].object("x", 1)
    local.replace(name, b"torn")
    with claimed(local, feature_plans[0].record(1), "somebody") as held:
        assert verify(local, drop=True, say=lines.append) == 1
        assert lines[1] == f"{local.url}/{name}: stays: its shard is being filled" and local.exists(name)
        assert held.finish(held.before.objects)


def test_what_was_made_anew_meanwhile_is_not_dropped(local, filled, feature_plans, lines):
    name = feature_plans[0].object("x", 1)
    local.replace(name, b"torn")

    def mended(line: str) -> None:
        lines.append(line)
        local.replace(name, filled.read(name))

    assert verify(local, drop=True, say=mended) == 1
    assert lines[1].endswith("stays: it was made anew meanwhile")
    assert everything(local) == everything(filled)


# What may go


def test_prune_without_yes_removes_nothing(store, filled, lines):
    size = sum(filled.sizes("features").values())
    assert prune(store, ALL, say=lines.append) == size
    assert lines[-1] == f"nothing was removed; with --yes: 15 objects, {size / 1e6:.1f} MB"
    assert everything(store) == everything(filled)


def test_prune_with_all_removes_everything(store, lines):
    size = sum(store.sizes("features").values())
    assert prune(store, ALL, yes=True, say=lines.append) == size
    assert store.list() == [] and lines[-1] == f"removed: 15 objects, {size / 1e6:.1f} MB"


def test_prune_keeps_what_other_plans_list(store, plan, teacher, feature_plans, by_digest, lines):
    wide = plan_features(plan, teacher, ["y", "x_hat", "z"])
    before = everything(store)
    fill_here(store, plan, [wide], by_digest)
    with Hold(store, feature_plans, "a sweep"):
        assert prune(store, Choice(source="small"), yes=True, say=lines.append) > 0
    assert everything(store) == before and verify(store, say=lines.append) == 0
    assert any(line.startswith(f"goes: {wide.digest[:12]} (small ") and "; 10 that other" in line for line in lines)


def test_a_plans_age_counts_from_its_last_use(local, feature_plans, lines):
    pixels, teacher = feature_plans
    with Hold(local, feature_plans, "a sweep"):
        pass
    for features in feature_plans:
        make_old(local, features.ledger(), 40)
    for name in local.list(f"holds/{teacher.digest}"):
        make_old(local, name, 31)
    prune(local, Choice(older_than_s=30 * DAY_S), yes=True, say=lines.append)
    assert local.list("ledgers") == [pixels.ledger()] and len(local.list("features")) == SHARDS
    assert len(local.list("holds")) == 1 and len(local.list("shards")) == SHARDS


def test_prune_keeps_what_a_running_sweep_holds(store, feature_plans, lines):
    before = everything(store)
    with Hold(store, feature_plans, "s3://b/run"):
        assert prune(store, ALL, yes=True, say=lines.append) == 0
        assert len([line for line in lines if "s3://b/run holds it" in line]) == 2
        assert everything(store) == before


def test_prune_keeps_a_source_that_is_being_filled(local, plan, teacher, feature_plans, lines):
    begun = plan_features(plan, teacher, ["y", "z"])  # no ledger yet: which of its objects are there is not known
    with Hold(local, [begun], "a sweep"):
        prune(local, replace(ALL, orphans=True), yes=True, say=lines.append)
    assert local.list("ledgers") == [feature_plans[1].ledger()] and len(local.list("features")) == 2 * SHARDS
    assert f"stays: what belongs to no ledger of {begun.source}: a sweep holds it" in "\n".join(lines)


def test_a_shard_that_is_being_filled_stays(local, feature_plans, lines):
    with claimed(local, feature_plans[0].record(2), "somebody"):
        prune(local, Choice(source="pixels"), yes=True, say=lines.append)
        assert local.list("features/pixels") == [feature_plans[0].object("x", 2)]
        assert local.list("shards/pixels") == [feature_plans[0].record(2)]
    assert "stays: 1 shards of pixels that are being filled" in lines


def test_a_hold_that_appears_after_the_ledgers_went(store, plan, feature_plans, monkeypatch, lines):
    """The sweep had seen its ledger, so it gets it back."""
    before, real = everything(store), Store.delete
    with ExitStack() as stack:

        def delete(self: Store, name: str) -> None:
            real(self, name)
            if name == feature_plans[1].ledger():
                stack.enter_context(Hold(store, feature_plans, "a sweep"))

        monkeypatch.setattr(Store, "delete", delete)
        assert prune(store, ALL, yes=True, say=lines.append) == 0
        assert everything(store) == before
        reader = Reader(store.url, plan, feature_plans, rank=0, world=1, batch_size=8, seed=0)
        reader.batch(0)
        reader.close()
    assert len([line for line in lines if "a sweep holds it" in line]) == 2


def test_a_hold_that_appears_while_a_shard_is_taken(store, plan, feature_plans, by_digest, monkeypatch, lines):
    """The sweep had seen the record, so its entries are put back; it writes the ledger itself."""
    before = everything(store)
    held: list[Hold] = []
    with ExitStack() as stack:

        def evict_and_hold(*arguments):
            taken = evict(*arguments)
            if not held:
                held.append(stack.enter_context(Hold(store, feature_plans, "a sweep")))
            return taken

        monkeypatch.setattr(module, "evict", evict_and_hold)
        assert prune(store, ALL, yes=True, say=lines.append) == 0
        assert store.list("ledgers") == []
        refill(store, plan, feature_plans, by_digest)
        assert everything(store) == before


def test_a_sweep_that_starts_after_the_last_look(store, plan, feature_plans, by_digest, monkeypatch, lines):
    """It finds neither entries nor free shards, waits, and makes anew what goes."""
    real = module._Prune._delete
    begun: list[threading.Thread] = []

    def sweep() -> None:
        with Hold(store, feature_plans[:1], "a sweep"):
            refill(store, plan, feature_plans[:1], by_digest)

    def delete(self, taken) -> None:
        if not begun:
            begun.append(threading.Thread(target=sweep))
            begun[0].start()
            time.sleep(0.5)
        real(self, taken)

    monkeypatch.setattr(module._Prune, "_delete", delete)
    assert prune(store, Choice(source="pixels"), yes=True, say=lines.append) > 0
    begun[0].join()
    assert missing(store, feature_plans[0]) == () and verify(store, say=lines.append) == 0


def test_sweeps_that_start_while_others_prune(local, plan, feature_plans, by_digest):
    """Whatever the order of their steps, a sweep that has looked finds what it saw."""
    pixels, errors, over = feature_plans[:1], [], threading.Event()

    def pruning() -> None:
        try:
            while not over.is_set():
                prune(local, replace(ALL, orphans=True), yes=True, say=lambda line: None)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=pruning)
    thread.start()
    made = 0
    try:
        for run in range(25):
            time.sleep(random.Random(run).uniform(0, 0.03))
            with Hold(local, pixels, f"run {run}"):
                made += len(missing(local, pixels[0]))
                refill(local, plan, pixels, by_digest)
                time.sleep(0.1)  # far less than a gang's start: a ledger that went just now is back
                reader = Reader(local.url, plan, pixels, rank=0, world=1, batch_size=8, seed=run)
                for step in range(5):
                    reader.batch(step)
                reader.close()
                assert missing(local, pixels[0]) == ()
    finally:
        over.set()
        thread.join()
    assert errors == [] and made > SHARDS


def test_prune_removes_what_no_ledger_lists(store, plan, teacher, feature_plans, by_digest, lines):
    """A cut-off fill of more taps, an object that no record lists, empty records, a hold of a plan that is gone."""
    before = everything(store)
    wide = plan_features(plan, teacher, ["y", "x_hat", "z"])
    other = plan_features(plan, replace(teacher, kind="fixed-lambda"), ["x_hat"])
    assert other.record(0) == wide.record(0)
    fill_shard(store, ShardWork.of(plan, wide, 1, by_digest))
    store.publish("features/pixels/x/unlisted.safetensors", b"1")
    store.publish("shards/pixels/unlisted.json", ShardRecord().to_json())
    store.publish("shards/0123/alone.json", ShardRecord().to_json())
    with Hold(store, [wide], "a sweep"):
        pass
    prune(store, Choice(orphans=True), say=lines.append)
    assert store.exists(wide.object("z", 1)) and "would go: what belongs to no ledger: 2 objects" in lines[-2]
    assert prune(store, Choice(orphans=True), yes=True, say=lines.append) > 1
    assert everything(store) == before and store.list("holds") == []


def test_an_unlisted_object_may_be_just_published(local, feature_plans, lines):
    local.publish("features/pixels/x/new.safetensors", b"1")
    with claimed(local, "shards/pixels/new.json", "somebody"):
        prune(local, Choice(orphans=True), yes=True, say=lines.append)
    assert local.exists("features/pixels/x/new.safetensors")


def test_a_ledger_that_cannot_be_read_stops_it(local, feature_plans, lines):
    local.replace(feature_plans[0].ledger(), b"torn")
    before = everything(local)
    with pytest.raises(FeatureError, match=r"ledgers/.*\.json: not a ledger of this version .*; nothing is removed"):
        prune(local, ALL, yes=True, say=lines.append)
    assert everything(local) == before
    assert verify(local, say=lines.append) == 1


def test_a_source_that_is_not_in_the_store_is_refused(local, lines):
    for act in (lambda: prune(local, Choice(source="smal"), say=lines.append), lambda: verify(local, source="smal")):
        with pytest.raises(
            FeatureError, match=r"^source: 'smal' is not in the store; there are small [0-9a-f]{16}, pi"
        ):
            act()


@pytest.mark.parametrize("cut_after", [1, 2, 3, 9])
def test_a_prune_that_was_cut_off_leaves_nothing_wrong(local, plan, feature_plans, by_digest, cut_after, monkeypatch):
    left = [cut_after]
    real = Store.delete

    def delete(self: Store, name: str) -> None:
        if not left[0]:
            raise StoreError("away")
        left[0] -= 1
        real(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", delete)
        with pytest.raises(StoreError, match="away"):
            prune(local, ALL, yes=True, say=lambda line: None)
    for name in local.list("shards"):
        make_old(local, name, 1)  # its leases lapse
    refill(local, plan, feature_plans, by_digest)
    assert verify(local) == 0 and all(missing(local, features) == () for features in feature_plans)
    assert Path(local.local_path(feature_plans[0].ledger())).is_file()
