"""Crop plans: deterministic, even over rate points, the same for every number of ranks."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from orchestrator.photographs.crops import (
    CropError,
    batch_at,
    crop_at,
    cut,
    fit_for,
    minimum_side,
    plan_crops,
    validation_crops,
)
from orchestrator.photographs.passes import SHARD_CROPS, WINDOW_SHARDS
from orchestrator.photographs.photos import Photograph, load_rgb
from orchestrator.spec.sections import Crops, Validation

MADE_UP = tuple(
    Photograph(path=f"/{index}.png", digest=hashlib.sha256(bytes([index])).hexdigest(), width=300 + index, height=200)
    for index in range(7)
)


@pytest.fixture(scope="module")
def plan():
    return plan_crops(MADE_UP, Crops(count=203, size=64, downscale=(0.6, 0.9)), 5, seed=3)


def test_the_plan_is_the_pinned_one(plan):
    """Pinned: another Python, machine or edit that changed the plan would make every stored feature useless."""
    assert plan.digest == "8319d7b62567955ed50732196f770488870019b0d7ae17ccc387b71c27b9bf91"
    assert batch_at(plan, 7, 8, seed=1) == (1, (71, 91, 136, 146, 166, 51, 56, 121))


def test_boxes_lie_in_their_photographs(plan):
    sizes = {photograph.digest: (photograph.width, photograph.height) for photograph in MADE_UP}
    for crop in plan.crops:
        width, height = sizes[crop.photograph]
        assert 0 <= crop.left <= width - crop.side and 0 <= crop.top <= height - crop.side
        assert 71 <= crop.side <= 107  # 64/0.9 to 64/0.6
    assert {crop.photograph for crop in plan.crops} == set(sizes)
    assert 60 < sum(crop.flip for crop in plan.crops) < 143
    assert Counter(crop.rate_point for crop in plan.crops) == {0: 41, 1: 41, 2: 41, 3: 40, 4: 40}


def test_unscaled_boxes_reach_every_corner():
    crops = Crops(count=4000, size=64)
    small = [replace(MADE_UP[0], width=66, height=65)]
    boxes = {(crop.left, crop.top, crop.side) for crop in plan_crops(small, crops, 5, seed=0).crops}
    assert boxes == {(left, top, 64) for left in range(3) for top in range(2)}


def test_no_flip_when_not_asked_for():
    without = plan_crops(MADE_UP, Crops(count=50, size=64, flip=False), 5, seed=0)
    with_flips = plan_crops(MADE_UP, Crops(count=50, size=64), 5, seed=0)
    assert not any(crop.flip for crop in without.crops)
    assert [replace(crop, flip=False) for crop in with_flips.crops] == list(without.crops)


def test_names_and_order_of_photographs_do_not_matter(plan):
    renamed = [replace(photograph, path=f"/z{-index}.jpg") for index, photograph in enumerate(reversed(MADE_UP))]
    assert plan_crops(renamed, Crops(count=203, size=64, downscale=(0.6, 0.9)), 5, seed=3).digest == plan.digest


def test_the_endless_plan_starts_with_the_finite_one(plan):
    crops = Crops(count=203, size=64, downscale=(0.6, 0.9))
    assert tuple(crop_at(fit_for(MADE_UP, crops), crops, 5, 3, index) for index in range(203)) == tuple(plan.crops)
    assert crop_at(fit_for(MADE_UP, crops), crops, 5, 3, 10**9).size == 64


@pytest.mark.parametrize("change", [{"seed": 4}, {"rate_points": 6}, {"downscale": (0.6, 0.8)}, {}])
def test_other_crops_have_another_digest(plan, change):
    seed, rate_points = change.pop("seed", 3), change.pop("rate_points", 5)
    crops = Crops(count=203, size=64, downscale=(0.6, 0.9)).model_copy(update=change)
    again = plan_crops(MADE_UP, crops, rate_points, seed)
    changed = change or (seed, rate_points) != (3, 5)
    assert (again.digest != plan.digest) == bool(changed)
    assert plan_crops(MADE_UP[1:], Crops(count=203, size=64, downscale=(0.6, 0.9)), 5, 3).digest != plan.digest


@pytest.fixture(scope="module")
def rgb(train_photographs):
    return load_rgb(train_photographs[0])


@pytest.mark.parametrize("side", [64, 90], ids=["copied", "resized"])
def test_a_pixel_or_a_flip_makes_another_crop(rgb, side):
    crop = plan_crops(MADE_UP, Crops(count=8, size=64), 1, seed=0).crops[0]
    crop = replace(crop, left=40, top=30, side=side, flip=False)
    pixels = cut(rgb, crop)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    for other in (
        replace(crop, left=41),
        replace(crop, top=31),
        replace(crop, flip=True),
        replace(crop, side=side + 1),
    ):
        assert (cut(rgb, other) != pixels).mean() > 0.1
    np.testing.assert_array_equal(cut(rgb, replace(crop, flip=True)), pixels[:, ::-1])
    np.testing.assert_array_equal(cut(rgb, replace(crop, rate_point=0)), pixels)


def test_cut_takes_the_very_pixels(rgb):
    crop = replace(plan_crops(MADE_UP, Crops(count=8, size=64), 1, seed=0).crops[0], left=12, top=20, flip=False)
    np.testing.assert_array_equal(cut(rgb, crop), rgb[20:84, 12:76])
    scaled = replace(crop, side=96)
    reference = Image.fromarray(rgb).crop((12, 20, 108, 116)).resize((64, 64), Image.Resampling.BICUBIC)
    inner = (slice(4, -4), slice(4, -4))  # the filter of the one-step resize also sees beyond the box's edge
    difference = cut(rgb, scaled)[inner].astype(int) - np.asarray(reference)[inner]
    assert np.abs(difference).max() <= 1


def test_a_box_outside_is_refused(rgb):
    crop = replace(plan_crops(MADE_UP, Crops(count=8, size=64), 1, seed=0).crops[0], left=rgb.shape[1] - 63)
    with pytest.raises(CropError, match="does not lie in"):
        cut(rgb, crop)


def test_steps_visit_all_rate_points_and_pools_use_up_their_crops(plan):
    batch_size, seed = 8, 11
    for cycle in range(6):
        rate_points = [batch_at(plan, 5 * cycle + place, batch_size, seed)[0] for place in range(5)]
        assert sorted(rate_points) == [0, 1, 2, 3, 4]
    drawn: dict[int, list[int]] = {rate_point: [] for rate_point in range(5)}
    for step in range(5 * 41):
        rate_point, ids = batch_at(plan, step, batch_size, seed)
        assert len(ids) == batch_size and all(plan.crops[index].rate_point == rate_point for index in ids)
        drawn[rate_point] += ids
    for rate_point, pool in enumerate(plan.pools):
        passes = [drawn[rate_point][start : start + len(pool)] for start in range(0, 8 * len(pool), len(pool))]
        assert all(sorted(crops) == list(pool) for crops in passes)
        assert len({tuple(crops) for crops in passes}) == len(passes)  # shuffled anew


def test_a_pass_over_a_large_pool_needs_a_window_of_its_shards_at_a_time():
    plan = plan_crops(MADE_UP, Crops(count=2 * 20 * SHARD_CROPS, size=64), 2, seed=0)
    places = {crop: number for number, shard in enumerate(plan.shards) for crop in shard}
    assert [len(shard) for shard in plan.shards] == 40 * [SHARD_CROPS]
    steps = [batch_at(plan, step, 1, 3) for step in range(2 * len(plan.pools[1]))]
    drawn = [crop for rate_point, crops in steps for crop in crops if rate_point == 1]
    assert sorted(drawn) == list(plan.pools[1])
    size = WINDOW_SHARDS * SHARD_CROPS
    spans = [{places[crop] for crop in drawn[start : start + size]} for start in range(0, len(drawn), size)]
    assert [len(span) for span in spans] == [8, 8, 4]
    assert {places[crop] for crop in drawn[:64]} == spans[0]  # and within a window they are mixed
    assert spans[0] != set(range(20, 28))


def test_batches_depend_on_the_seed_and_the_step_alone(plan):
    forwards = [batch_at(plan, step, 8, 0) for step in range(50)]
    backwards = [batch_at(plan, step, 8, 0) for step in reversed(range(50))]
    assert forwards == backwards[::-1]
    assert forwards != [batch_at(plan, step, 8, 1) for step in range(50)]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_any_number_of_ranks_sees_the_same_batch(plan, world):
    for step in range(20):
        _, whole = batch_at(plan, step, 8, 0)
        shares = [batch_at(plan, step, 8, 0)[1][rank::world] for rank in range(world)]
        assert sorted(index for share in shares for index in share) == sorted(whole)


def test_impossible_plans_are_one_line():
    with pytest.raises(CropError, match="no photographs"):
        plan_crops((), Crops(), 5, seed=0)
    with pytest.raises(CropError, match=r"/0\.png: 300x200 pixels; both sides need at least 256"):
        plan_crops(MADE_UP[:1], Crops(size=256), 5, seed=0)
    with pytest.raises(CropError, match=r"crops\.count: 8 crops are fewer than the 9 rate points"):
        plan_crops(MADE_UP, Crops(count=8), 9, seed=0)
    assert minimum_side(Crops(size=128, downscale=(0.6, 0.9))) == 214


def test_validation_takes_each_photograph_once_and_its_centre():
    chosen = validation_crops(MADE_UP, Validation(crops=7, size=64))
    assert len({photograph.digest for photograph, _ in chosen}) == 7
    for photograph, crop in chosen:
        assert crop.photograph == photograph.digest
        assert (crop.left, crop.top) == ((photograph.width - 64) // 2, 68)
        assert (crop.side, crop.size, crop.flip) == (64, 64, False)
    assert len(validation_crops(MADE_UP, Validation(crops=3, size=64))) == 3


def test_validation_takes_disjoint_boxes_of_few_photographs():
    chosen = validation_crops(MADE_UP[:2], Validation(crops=11, size=64))
    assert sorted(Counter(photograph.digest for photograph, _ in chosen).values()) == [5, 6]
    for digest in {crop.photograph for _, crop in chosen}:
        boxes = [crop for _, crop in chosen if crop.photograph == digest]
        covered = {(x, y) for c in boxes for x in range(c.left, c.left + 64) for y in range(c.top, c.top + 64)}
        assert len(covered) == 64 * 64 * len(boxes)
    with pytest.raises(CropError, match=r"validation\.crops: 30 boxes of 64x64 asked for, .* hold 24"):
        validation_crops(MADE_UP[:2], Validation(crops=30, size=64))


def test_the_quickstart_validates_on_six_crops(validation_photographs):
    assert len(validation_crops(validation_photographs, Validation())) == 6
