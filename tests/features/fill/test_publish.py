"""A shard's record lists its objects after they are published, never before: who reads it may use them at once."""

from __future__ import annotations

import pytest

from orchestrator.features.fill.claim import read_record
from orchestrator.features.fill.publish import fill_shards
from orchestrator.features.fill.shard import ShardWork
from orchestrator.features.format.ledger import ShardRecord
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store


@pytest.fixture
def works(plan, feature_plans, by_digest) -> list[ShardWork]:
    return [ShardWork.of(plan, features, shard, by_digest) for features in feature_plans for shard in (0, 1)]


def test_a_record_lists_what_is_published(store, works, monkeypatch):
    names = {key: name for work in works for key, name in work.objects.values()}
    records = {work.record for work in works}
    listed: set[str] = set()
    real = Store.replace_if

    def replace_if(self, name, data, tag):
        if name in records:
            for key in ShardRecord.from_json(data).objects:
                assert self.exists(names[key]), f"{name} lists {names[key]}, which is not there"
                listed.add(key)
        return real(self, name, data, tag)

    monkeypatch.setattr(Store, "replace_if", replace_if)
    assert all(fill_shards(store, works))
    assert listed == set(names)


def test_a_record_lists_nothing_if_publishing_fails(store, works, monkeypatch):
    """Of two taps the second one cannot be written: the record has neither, and frees the shard."""
    work, real = works[-1], Store.publish
    last = [name for _, name in work.objects.values()][-1]
    assert len(work.objects) > 1

    def publish(self, name, data):
        if name == last:
            raise StoreError("full")
        return real(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", publish)
        with pytest.raises(StoreError, match="full"):
            fill_shards(store, [work])
    record = read_record(store, work.record)
    assert record.owner is None and not record.objects
    (filled,) = fill_shards(store, [work])
    assert filled is not None and read_record(store, work.record).objects.keys() == {
        key for key, _ in work.objects.values()
    }
