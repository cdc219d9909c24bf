"""A plan of more than `LISTED_CROPS` crops: nothing is drawn ahead, and each part has a ledger of its own."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from orchestrator.features.fill.fill import mend
from orchestrator.features.fill.missing import missing
from orchestrator.features.format import key
from orchestrator.features.format.key import FeatureError, FeaturePlan, plan_features
from orchestrator.features.format.ledger import Ledgers, publish_ledger
from orchestrator.features.keep.holds import Hold
from orchestrator.features.keep.listing import ls, table
from orchestrator.features.keep.verify import verify
from orchestrator.features.read.reader import Reader
from orchestrator.photographs import crops as crop_plans
from orchestrator.photographs.crops import CropError, CropPlan, plan_crops
from orchestrator.photographs.tensors import cut_tensor
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store
from tests.features.conftest import fill_here


@pytest.fixture
def large(monkeypatch) -> None:
    """What is small in these tests counts as large."""
    monkeypatch.setattr(crop_plans, "LISTED_CROPS", 100)
    monkeypatch.setattr(key, "SHARDS_A_PART", 2)


@pytest.fixture
def parted(large, plan: CropPlan) -> FeaturePlan:
    return plan_features(plan)


def test_it_is_named_by_what_its_crops_are_drawn_from(large, monkeypatch, plan, teacher):
    monkeypatch.setattr(crop_plans, "crop_at", lambda *drawn: pytest.fail("a crop was drawn"))
    fresh = replace(plan)
    digests = {plan_features(fresh).digest, plan_features(fresh, teacher).digest}
    digests |= {plan_features(fresh, teacher, taps).digest for taps in (["y"], ["x_hat", "y"], ["y@1"])}
    digests |= {plan_features(fresh, replace(teacher, kind="fixed-lambda")).digest}
    for change in ({"seed": 1}, {"count": 167}, {"rate_points": 4}, {"settings": Crops(size=64)}):
        digests.add(plan_features(replace(plan, **change)).digest)
    assert len(digests) == 10
    assert plan_features(replace(plan), replace(teacher, name="b", path="/b")).digest in digests


def test_other_photographs_are_another_plan(large, train_photographs):
    settings = Crops(count=166, size=64)
    whole, most = (plan_crops(part, settings, 5, seed=0) for part in (train_photographs, train_photographs[1:]))
    assert whole.digest != most.digest
    assert whole.digest == plan_crops([*reversed(train_photographs)], settings, 5, seed=0).digest


def test_its_objects_are_those_of_a_small_one(plan, feature_plans, parted):
    assert parted.digest != feature_plans[0].digest
    assert [parted.object("x", shard) for shard in range(5)] == [feature_plans[0].object("x", at) for at in range(5)]


def test_parts_are_listed_read_and_held_by_themselves(tmp_path, plan, parted, by_digest):
    store = Store(tmp_path)
    fill_here(store, plan, [parted], by_digest)
    assert parted.parts == (range(2), range(2, 4), range(4, 5))
    assert store.list("ledgers") == [f"ledgers/{parted.digest}-{part:05}.json" for part in range(3)]
    assert verify(store, say=lambda line: None) == 0 and missing(store, parted) == ()
    with Hold(store, [parted], "a sweep"):
        rows, loose = ls(store)
    assert sorted(row.crops for row in rows) == [33, 66, 67] and loose.objects == 0
    assert {row.state for row in rows} == {"complete"} and all(row.held_by for row in rows)
    assert f"{parted.digest[:12]}-00002" in "\n".join(table(rows, loose))


def test_a_part_without_a_ledger_is_missing_alone(tmp_path, plan, parted, by_digest):
    store = Store(tmp_path)
    fill_here(store, plan, [parted], by_digest)
    store.delete(parted.ledger(1))
    assert missing(store, parted) == (2, 3)
    ledgers = Ledgers(store, parted.ordering)
    assert ledgers.entry("x", 4).key == parted.key("x", 4)
    with pytest.raises(FeatureError, match=f"pixels is not filled in \\({parted.ledger(1)} is missing\\)"):
        ledgers.entry("x", 2)
    store.delete(parted.object("x", 4))
    assert missing(store, parted) == (2, 3, 4)


def test_a_reader_needs_no_photographs_and_a_damaged_object_is_made_again(
    tmp_path, plan, parted, by_digest, train_photographs
):
    store = Store(tmp_path)
    fill_here(store, plan, [parted], by_digest)
    sent: tuple[CropPlan, FeaturePlan] = pickle.loads(pickle.dumps((plan.ordering, parted.ordering)))  # noqa: S301
    with pytest.raises(AssertionError, match="only the order"):
        sent[0].crops[0]
    name = parted.object("x", 3)
    store.replace(name, b"damaged")
    assert mend(store, sent[1], 3, (plan, train_photographs))[0].startswith(f"{store.url}/{name}: ")
    reader = Reader(store.url, sent[0], [sent[1]], rank=0, world=1, batch_size=8, seed=0)
    for step in range(12):
        batch = reader.batch(step)
        for x, crop in zip(batch.x, (plan.crops[index] for index in batch.crops), strict=True):
            assert x.equal(cut_tensor(by_digest[crop.photograph], crop))
    reader.close()


def test_a_ledger_of_another_number_of_shards_is_refused(tmp_path, plan, parted, by_digest):
    store = Store(tmp_path)
    fill_here(store, plan, [parted], by_digest)
    store.replace(parted.ledger(2), store.read(parted.ledger(0)))
    with pytest.raises(FeatureError, match="not the ledger of pixels \\(another number of shards\\)"):
        Ledgers(store, parted).entry("x", 4)


def test_nothing_is_written_for_nothing(tmp_path, parted):
    publish_ledger(Store(tmp_path), parted, {})
    assert Store(tmp_path).list() == []


def test_crops_are_needed_for_every_rate_point(train_photographs):
    with pytest.raises(CropError, match="8 crops are fewer than the 9 rate points"):
        plan_crops(train_photographs, Crops(count=8, size=64), 9, seed=0)
