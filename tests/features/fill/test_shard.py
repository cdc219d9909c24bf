"""What a shard's pixels are taken from: the store where it holds the very bytes that were recorded, else the files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.features.fill.claim import read_record
from orchestrator.features.fill.publish import fill_shard
from orchestrator.features.fill.shard import ShardWork, pixels_of, whole_rows
from orchestrator.features.format.key import FeaturePlan
from orchestrator.features.format.ledger import entry_of
from orchestrator.features.format.tap_file import encode
from orchestrator.photographs.crops import CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.store.store import Store

SHARD = 1


@pytest.fixture
def copied(tmp_path: Path, filled: Store) -> Store:
    assert filled.folder is not None
    shutil.copytree(filled.folder, tmp_path / "copy")
    return Store(tmp_path / "copy")


@pytest.fixture
def work(
    plan: CropPlan, feature_plans: tuple[FeaturePlan, FeaturePlan], by_digest: Mapping[str, Photograph]
) -> ShardWork:
    pixels, features = feature_plans
    return ShardWork.of(plan, features, SHARD, by_digest, pixels=pixels)


def test_stored_pixels_are_those_of_the_photographs(copied: Store, work: ShardWork) -> None:
    assert work.pixels is not None
    _, name = work.pixels.objects["x"]
    stored = whole_rows("x", copied.read(name), len(work.crops))
    np.testing.assert_array_equal(pixels_of(work, copied), stored)
    np.testing.assert_array_equal(pixels_of(work), stored)


def test_a_whole_shard_of_other_pixels_is_not_taken(copied: Store, work: ShardWork) -> None:
    """It decodes, it has the right number of crops of the right size: its digest alone is not the recorded one."""
    assert work.pixels is not None
    _, name = work.pixels.objects["x"]
    right = pixels_of(work)
    copied.replace(name, encode("x", 255 - right))
    np.testing.assert_array_equal(whole_rows("x", copied.read(name), len(work.crops)), 255 - right)
    np.testing.assert_array_equal(pixels_of(work, copied), right)


def test_features_are_not_computed_from_other_pixels(copied: Store, filled: Store, work: ShardWork) -> None:
    """The teacher's outputs are made anew from the photographs, to the same bytes as before."""
    assert work.pixels is not None
    copied.replace(work.pixels.objects["x"][1], encode("x", 255 - pixels_of(work)))
    for _, name in work.objects.values():
        copied.delete(name)
    copied.delete(work.record)
    done = fill_shard(copied, work)
    assert done is not None and done.computed
    for _, name in work.objects.values():
        assert copied.read(name) == filled.read(name)


def test_a_suspect_object_of_other_values_is_made_again(copied: Store, filled: Store, work: ShardWork) -> None:
    """A shard that is whole but holds another shard's values, under a record that lists the right digest."""
    tap, (key, name) = next(iter(work.objects.items()))
    rows = whole_rows(tap, copied.read(name), len(work.crops))
    copied.replace(name, encode(tap, rows[::-1]))
    recorded = read_record(copied, work.record).objects[key]
    assert entry_of(key, copied.read(name)) != recorded
    done = fill_shard(copied, replace(work, suspect=True))
    assert done is not None and len(done.findings) == 1 and "whose digest is not the recorded one" in done.findings[0]
    assert copied.read(name) == filled.read(name)
