"""Deterministic crop plans: which crops exist, and which of them a step trains on. Pure; `cut` makes the pixels.

A plan is finite, so a teacher's outputs for its crops can be computed once and stored. Everything random here is a
function of (photographs, seed, index), and does not depend on file names, the number of ranks or what ran before.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from PIL import Image

from models.one_line import OneLineError
from orchestrator.photographs.photos import Photograph
from orchestrator.photographs.picture import Pixels
from orchestrator.spec.sections import CROPS_A_PHOTOGRAPH, Crops, Validation

SHARD_CROPS = 64  # crops that are stored together
WINDOW_SHARDS = 8  # shards whose crops are shuffled together


class CropError(OneLineError, ValueError):
    """A plan that these photographs do not allow: one line."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square box of a photograph, resized to `size` pixels a side and mirrored if `flip`."""

    photograph: str  # digest
    left: int  # pixels of the upright photograph
    top: int
    side: int
    size: int
    flip: bool  # mirrored left to right
    rate_point: int  # index into the rate ladder; the crop is trained on at this rate point only

    @property
    def pixels(self) -> tuple[str, int, int, int, int, bool]:
        """Everything that decides the crop's pixels, which is all but its rate point."""
        return self.photograph, self.left, self.top, self.side, self.size, self.flip


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """Crops by id, which is their index."""

    crops: tuple[Crop, ...]
    rate_points: int  # how many there are; each has crops
    seed: int

    @cached_property
    def digest(self) -> str:
        """sha256 hex of the crops, in order."""
        rows = [[*crop.pixels, crop.rate_point] for crop in self.crops]
        return hashlib.sha256(json.dumps([self.rate_points, rows]).encode()).hexdigest()

    @cached_property
    def pools(self) -> tuple[tuple[int, ...], ...]:
        """Ids of the crops of each rate point, rising."""
        pools: list[list[int]] = [[] for _ in range(self.rate_points)]
        for index, crop in enumerate(self.crops):
            pools[crop.rate_point].append(index)
        return tuple(map(tuple, pools))

    @cached_property
    def shards(self) -> tuple[tuple[int, ...], ...]:
        """Ids of the crops of each shard: `SHARD_CROPS` or fewer of one rate point, rising."""
        return tuple(
            pool[start : start + SHARD_CROPS] for pool in self.pools for start in range(0, len(pool), SHARD_CROPS)
        )


def minimum_side(crops: Crops) -> int:
    """The side in pixels that a photograph needs for every box that may be drawn."""
    return math.ceil(crops.size / min(crops.downscale))


def plan_crops(photographs: Sequence[Photograph], crops: Crops, rate_points: int, seed: int) -> CropPlan:
    """The finite plan: `crops.count` crops (None: 16 a photograph), spread evenly over the rate points.

    Raises CropError if there are no photographs, a photograph is smaller than a box, or a rate point would get no crop.
    """
    ordered = fit_for(photographs, crops)
    count = CROPS_A_PHOTOGRAPH * len(ordered) if crops.count is None else crops.count
    if count < rate_points:
        raise CropError(f"crops.count: {count} crops are fewer than the {rate_points} rate points")
    planned = tuple(crop_at(ordered, crops, rate_points, seed, index) for index in range(count))
    return CropPlan(crops=planned, rate_points=rate_points, seed=seed)


def fit_for(photographs: Sequence[Photograph], crops: Crops) -> list[Photograph]:
    """The photographs sorted by digest, so that renaming a file does not change a plan.

    Raises CropError: there are none, or one is smaller than a box.
    """
    return _ordered(photographs, minimum_side(crops))


def crop_at(ordered: Sequence[Photograph], crops: Crops, rate_points: int, seed: int, index: int) -> Crop:
    """Crop `index` of the endless plan of photographs from `fit_for`; the first `crops.count` are `plan_crops`'s."""
    # random() seeded by a string gives the same values in every Python 3 and on every machine. NumPy's generators do
    # not promise that across versions.
    draw = random.Random(f"crop {seed} {index}").random
    photograph = ordered[int(draw() * len(ordered))]
    low, high = min(crops.downscale), max(crops.downscale)
    side = round(crops.size / (low + (high - low) * draw()))
    left = int(draw() * (photograph.width - side + 1))
    top = int(draw() * (photograph.height - side + 1))
    flip = draw() < 0.5 and crops.flip
    return Crop(
        photograph=photograph.digest,
        left=left,
        top=top,
        side=side,
        size=crops.size,
        flip=flip,
        rate_point=index % rate_points,
    )


def cut(rgb: Pixels, crop: Crop) -> Pixels:
    """The crop's pixels, uint8 [size, size, 3], from its photograph's uint8 [H, W, 3].

    A box of the crop's own size is copied exactly; another is resized once, by Pillow's antialiased bicubic filter.
    Raises CropError: the box does not lie in the photograph.
    """
    box = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
    if box[0] < 0 or box[1] < 0 or box[2] > rgb.shape[1] or box[3] > rgb.shape[0]:
        raise CropError(f"box {box} does not lie in a photograph of {rgb.shape[1]}x{rgb.shape[0]} pixels")
    if crop.side == crop.size:
        pixels = rgb[box[1] : box[3], box[0] : box[2]]
    else:
        size = (crop.size, crop.size)
        pixels = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC, box=box))
    return np.ascontiguousarray(pixels[:, ::-1] if crop.flip else pixels)


def batch_at(plan: CropPlan, step: int, batch_size: int, seed: int) -> tuple[int, tuple[int, ...]]:
    """The rate point of a step and the ids of its crops, all of that rate point; rank r of a gang takes ids[r::world].

    Every `rate_points` steps visit each rate point once, in a new random order. The crops of a rate point are used in
    passes: each pass uses every crop once. It takes shards in random order, `WINDOW_SHARDS` at a time, and the crops of
    these in random order, so a reader whose disk is smaller than the plan needs only a window of it. A function of the
    arguments only, so a trial resumes at the next crop, and any number of ranks sees the same batches.
    """
    cycle, place = divmod(step, plan.rate_points)
    rate_point = _shuffled(plan.rate_points, f"rate points {seed} {cycle}")[place]
    pool, ids = plan.pools[rate_point], []
    for position in range(cycle * batch_size, (cycle + 1) * batch_size):
        completed, offset = divmod(position, len(pool))
        ids.append(pool[_windowed(len(pool), f"{seed} {rate_point} {completed}")[offset]])
    return rate_point, tuple(ids)


def validation_crops(photographs: Sequence[Photograph], validation: Validation) -> tuple[tuple[Photograph, Crop], ...]:
    """`validation.crops` unscaled boxes, spread evenly over the photographs; a single box is a photograph's centre.

    Several boxes of one photograph are disjoint, the most central first. Their rate point is 0 and not used: validation
    runs at all of them. Raises CropError if the photographs have no room for so many.
    """
    size = validation.size
    boxes = [(photograph, _central_boxes(photograph, size)) for photograph in _ordered(photographs, size)]
    wanted = dict.fromkeys((photograph.digest for photograph, _ in boxes), 0)
    room = {photograph.digest: len(tiles) for photograph, tiles in boxes}
    if sum(room.values()) < validation.crops:
        raise CropError(
            f"validation.crops: {validation.crops} boxes of {size}x{size} asked for, the {len(boxes)} validation "
            f"photographs hold {sum(room.values())}"
        )
    while sum(wanted.values()) < validation.crops:
        for digest in wanted:
            if wanted[digest] < room[digest] and sum(wanted.values()) < validation.crops:
                wanted[digest] += 1
    chosen = []
    for photograph, tiles in boxes:
        centre = [((photograph.width - size) // 2, (photograph.height - size) // 2)]
        for left, top in centre if wanted[photograph.digest] == 1 else tiles[: wanted[photograph.digest]]:
            crop = Crop(
                photograph=photograph.digest, left=left, top=top, side=size, size=size, flip=False, rate_point=0
            )
            chosen.append((photograph, crop))
    return tuple(chosen)


def _ordered(photographs: Sequence[Photograph], side: int) -> list[Photograph]:
    if not photographs:
        raise CropError("no photographs to cut crops from")
    for photograph in photographs:
        if min(photograph.width, photograph.height) < side:
            raise CropError(
                f"{photograph.path}: {photograph.width}x{photograph.height} pixels; both sides need at least {side}"
            )
    return sorted(photographs, key=lambda photograph: photograph.digest)


def _central_boxes(photograph: Photograph, size: int) -> list[tuple[int, int]]:
    """(left, top) of the disjoint tiles of a grid centred in the photograph, the most central first."""
    columns, rows = photograph.width // size, photograph.height // size
    left, top = (photograph.width - columns * size) // 2, (photograph.height - rows * size) // 2
    tiles = [(left + column * size, top + row * size) for row in range(rows) for column in range(columns)]
    middle = ((photograph.width - size) / 2, (photograph.height - size) / 2)
    return sorted(tiles, key=lambda tile: (math.dist(tile, middle), tile))


@lru_cache(maxsize=32)
def _windowed(count: int, seed: str) -> tuple[int, ...]:
    """The order of a pass over `count` crops; see `batch_at`."""
    starts = _shuffled(math.ceil(count / SHARD_CROPS), f"shards {seed}")
    order: list[int] = []
    for first in range(0, len(starts), WINDOW_SHARDS):
        shards = sorted(starts[first : first + WINDOW_SHARDS])
        window = [i for shard in shards for i in range(count)[shard * SHARD_CROPS :][:SHARD_CROPS]]
        order += [window[place] for place in _shuffled(len(window), f"crops {seed} {first}")]
    return tuple(order)


@lru_cache(maxsize=256)
def _shuffled(count: int, seed: str) -> tuple[int, ...]:
    draw = random.Random(seed).random  # of the module's methods only random() is promised never to change
    keys = [draw() for _ in range(count)]
    return tuple(sorted(range(count), key=keys.__getitem__))
