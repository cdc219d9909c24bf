"""At most one holds a shard; a holder that is silent for too long loses it; on a folder and on a real S3 server."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.features.fill import claim as module
from orchestrator.features.fill.claim import claim, read_record
from orchestrator.features.format.key import FeatureError
from orchestrator.features.format.ledger import Entry, ShardRecord
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store
from tests.features.claims import claimed

NAME = "shards/pixels/0.json"
ENTRY = {"k": Entry(key="k", sha256="0" * 64, bytes=3)}


def test_one_of_many_fillers_gets_the_claim(store):
    with ThreadPoolExecutor(8) as pool:
        for race in range(10):
            claims = list(pool.map(lambda i, race=race: claim(store, f"{race}.json", f"owner {i}", 60), range(8)))
            assert sum(held is not None for held in claims) == 1


def test_the_next_holder_reads_what_the_last_one_recorded(store):
    with claimed(store, NAME, "a", 60) as held:
        assert held.fresh and held.before == ShardRecord()
        assert claim(store, NAME, "b", 60) is None
        assert read_record(store, NAME).owner == "a"
        assert held.finish(ENTRY)
    assert read_record(store, NAME) == ShardRecord(objects=ENTRY)
    again = claim(store, NAME, "b", 60)
    assert again is not None and not again.fresh and again.before.objects == ENTRY


def test_an_exception_frees_the_claim_at_once(store):
    with pytest.raises(ZeroDivisionError), claimed(store, NAME, "a", 60):
        _ = 1 / 0
    assert read_record(store, NAME).owner is None
    assert claim(store, NAME, "b", 60) is not None


def test_a_claim_is_renewed_as_long_as_it_is_held(store):
    with claimed(store, NAME, "a", 2) as held:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert claim(store, NAME, "b", 2) is None
            time.sleep(0.2)
        assert read_record(store, NAME).beat >= 4
        assert held.finish(ENTRY)


def test_a_silent_holder_loses_the_claim_and_is_told(store, monkeypatch):
    monkeypatch.setattr(module.Claim, "_renew", lambda self: None)  # as if the process were stopped
    held = claimed(store, NAME, "a", 2)
    with held:
        time.sleep(1)
        assert claim(store, NAME, "b", 2) is None
        time.sleep(2.5)  # S3 tells time in whole seconds
        other = claim(store, NAME, "b", 2)
        assert other is not None
        assert not held.finish(ENTRY) and held.lost
        assert read_record(store, NAME).owner == "b"  # and nothing of the other's is touched
    with other:
        assert other.finish({})
    assert read_record(store, NAME) == ShardRecord()


def test_a_task_that_is_tried_again_goes_on_at_once(store):
    first = claim(store, NAME, "a", 60)
    second = claim(store, NAME, "a", 60)
    assert first is not None and second is not None
    with second:
        assert second.finish(ENTRY)
    with first:
        assert not first.finish({})
    assert read_record(store, NAME).objects == ENTRY


def test_a_lost_answer_is_not_a_lost_claim(store, monkeypatch):
    real = Store.replace_if

    def lose_the_answer(self, name, data, tag):
        real(self, name, data, tag)
        return real(self, name, data, tag) if self.url.startswith("s3") else None  # what a repeated request gets

    with claimed(store, NAME, "a", 60) as held:
        monkeypatch.setattr(Store, "replace_if", lose_the_answer)
        assert held.finish(ENTRY) and not held.lost
    assert read_record(store, NAME).objects == ENTRY


def test_a_store_that_is_away_for_a_while_does_not_end_a_claim(store, monkeypatch):
    real, away = Store.replace_if, threading.Event()

    def maybe(self, name, data, tag):
        if away.is_set():
            raise StoreError("away")
        return real(self, name, data, tag)

    monkeypatch.setattr(Store, "replace_if", maybe)
    with claimed(store, NAME, "a", 3) as held:
        away.set()
        time.sleep(1.5)
        away.clear()
        time.sleep(3)
        assert claim(store, NAME, "b", 3) is None
        assert held.finish(ENTRY)


@pytest.mark.parametrize("junk", [b"", b"[]", b"{}", b'{"format": 2, "objects": 3, "lease": null}'])
def test_a_damaged_record_counts_as_no_record(store, junk):
    store.replace(NAME, junk)
    assert read_record(store, NAME) == ShardRecord()
    held = claimed(store, NAME, "a", 60)
    assert held is not None and not held.fresh  # objects may be there


def test_a_record_of_another_format_is_left_alone(store):
    store.replace(NAME, b'{"format": 3}')
    with pytest.raises(FeatureError, match="a shard's record of format 3: this version knows 2"):
        claim(store, NAME, "a", 60)
    assert store.read(NAME) == b'{"format": 3}'
