"""Deterministic crop plans: which crops exist, and which of them a step trains on. Pure; `cut` makes the pixels.

A plan is finite, so a teacher's outputs for its crops can be computed once and stored. Everything random here is a
function of (photographs, seed, index), and does not depend on file names, the number of ranks or what ran before.
So a plan holds no crops but what they are drawn from: a crop is drawn when it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np
from PIL import Image

from models.one_line import OneLineError
from orchestrator.photographs.columns import PhotographTable, Sizes
from orchestrator.photographs.passes import SHARD_CROPS, place_in_pass, shuffled
from orchestrator.photographs.photos import Photograph
from orchestrator.photographs.picture import Pixels
from orchestrator.spec.sections import CROPS_A_PHOTOGRAPH, Crops, Validation

# Up to so many crops a plan's digest is of the crops, one by one; a larger plan's is of what they are drawn from, which
# takes no time. The crops, and the names of what is stored for them, are the same in both.
LISTED_CROPS = 2**16
FORMAT = 2  # of the digest of a larger plan


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


class Shards(Sequence[range]):
    """Ids of the crops of each shard: `SHARD_CROPS` or fewer of one rate point, rising; the rate points one by one."""

    def __init__(self, pools: Sequence[range]) -> None:
        self._pools = pools
        self._first = [0]  # shard of each rate point, and how many there are
        for pool in pools:
            self._first.append(self._first[-1] + math.ceil(len(pool) / SHARD_CROPS))

    def __len__(self) -> int:
        return self._first[-1]

    @overload
    def __getitem__(self, index: int) -> range: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[range, ...]: ...
    def __getitem__(self, index: int | slice) -> range | tuple[range, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(len(self))[index])
        shard = range(len(self))[index]
        rate_point = bisect_right(self._first, shard) - 1
        return self._pools[rate_point][(shard - self._first[rate_point]) * SHARD_CROPS :][:SHARD_CROPS]

    def place(self, crop: int) -> tuple[int, int]:
        """A crop's shard, and its row there."""
        position, rate_point = divmod(crop, len(self._pools))
        shard, row = divmod(position, SHARD_CROPS)
        return self._first[rate_point] + shard, row


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """Crops by id, which is their index."""

    count: int  # of crops
    rate_points: int  # how many there are; each has crops
    seed: int
    settings: Crops
    photographs: Sizes | None  # None: in `ordering`, from which no crops can be drawn

    @property
    def crops(self) -> Sequence[Crop]:
        """All crops; each is drawn when it is asked for, which takes some 10 microseconds."""
        assert self.photographs is not None, "this plan has only the order of its crops"
        return _Drawn(self, self.photographs)

    @property
    def listed(self) -> bool:
        """Whether digests are of all crops, one by one; see `LISTED_CROPS`."""
        return self.count <= LISTED_CROPS

    @cached_property
    def digest(self) -> str:
        """sha256 hex of the crops, in order; of a larger plan of all that they are drawn from."""
        if self.listed:
            content: list[object] = [self.rate_points, [[*crop.pixels, crop.rate_point] for crop in self.crops]]
        else:
            assert self.photographs is not None
            settings = self.settings.model_dump(mode="json", exclude={"count"})
            content = [FORMAT, self.photographs.digest, settings, self.count, self.rate_points, self.seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def pools(self) -> tuple[range, ...]:
        """Ids of the crops of each rate point, rising."""
        return tuple(range(first, self.count, self.rate_points) for first in range(self.rate_points))

    @cached_property
    def shards(self) -> Shards:
        """Ids of the crops of each shard."""
        return Shards(self.pools)

    @property
    def ordering(self) -> CropPlan:
        """What a trial needs: which crops there are, and when they are used; some hundred bytes when it is sent."""
        return replace(self, photographs=None)


class _Drawn(Sequence[Crop]):
    def __init__(self, plan: CropPlan, photographs: Sizes) -> None:
        self._plan, self._photographs = plan, photographs

    def __len__(self) -> int:
        return self._plan.count

    @overload
    def __getitem__(self, index: int) -> Crop: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Crop, ...]: ...
    def __getitem__(self, index: int | slice) -> Crop | tuple[Crop, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(len(self))[index])
        plan = self._plan
        return crop_at(self._photographs, plan.settings, plan.rate_points, plan.seed, range(len(self))[index])


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
    return CropPlan(count=count, rate_points=rate_points, seed=seed, settings=crops, photographs=ordered)


def fit_for(photographs: Sequence[Photograph], crops: Crops) -> Sizes:
    """What crops are drawn from: sorted by digest, so that renaming a file does not change a plan.

    Raises CropError: there are no photographs, or one is smaller than a box.
    """
    return _checked(photographs, minimum_side(crops)).sizes


def crop_at(photographs: Sizes, crops: Crops, rate_points: int, seed: int, index: int) -> Crop:
    """Crop `index` of the endless plan of photographs from `fit_for`; the first `crops.count` are `plan_crops`'s."""
    # random() seeded by a string gives the same values in every Python 3 and on every machine. NumPy's generators do
    # not promise that across versions.
    draw = random.Random(f"crop {seed} {index}").random
    photograph = int(draw() * len(photographs))
    width, height = int(photographs.widths[photograph]), int(photographs.heights[photograph])
    low, high = min(crops.downscale), max(crops.downscale)
    side = round(crops.size / (low + (high - low) * draw()))
    left = int(draw() * (width - side + 1))
    top = int(draw() * (height - side + 1))
    flip = draw() < 0.5 and crops.flip
    return Crop(
        photograph=photographs.digests[photograph].tobytes().hex(),
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
    passes: each pass uses every crop once, some shards at a time (`place_in_pass`), so a reader whose disk is smaller
    than the plan needs only a window of it. A function of the arguments only, so a trial resumes at the next crop, and
    any number of ranks sees the same batches.
    """
    cycle, place = divmod(step, plan.rate_points)
    rate_point = int(shuffled(plan.rate_points, f"rate points {seed} {cycle}")[place])
    pool, ids = plan.pools[rate_point], []
    for position in range(cycle * batch_size, (cycle + 1) * batch_size):
        completed, offset = divmod(position, len(pool))
        ids.append(pool[place_in_pass(len(pool), f"{seed} {rate_point} {completed}", offset)])
    return rate_point, tuple(ids)


def validation_crops(photographs: Sequence[Photograph], validation: Validation) -> tuple[tuple[Photograph, Crop], ...]:
    """`validation.crops` unscaled boxes, spread evenly over the photographs; a single box is a photograph's centre.

    Several boxes of one photograph are disjoint, the most central first. Their rate point is 0 and not used: validation
    runs at all of them. Raises CropError if the photographs have no room for so many.
    """
    size = validation.size
    ordered = sorted(_checked(photographs, size), key=lambda photograph: photograph.digest)
    boxes = [(photograph, _central_boxes(photograph, size)) for photograph in ordered]
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


def _checked(photographs: Sequence[Photograph], side: int) -> PhotographTable:
    if not photographs:
        raise CropError("no photographs to cut crops from")
    columns = PhotographTable.of(photographs)
    too_small = columns.smaller_than(side)
    if too_small is not None:
        pixels = f"{too_small.width}x{too_small.height} pixels"
        raise CropError(f"{too_small.path}: {pixels}; both sides need at least {side}")
    return columns


def _central_boxes(photograph: Photograph, size: int) -> list[tuple[int, int]]:
    """(left, top) of the disjoint tiles of a grid centred in the photograph, the most central first."""
    columns, rows = photograph.width // size, photograph.height // size
    left, top = (photograph.width - columns * size) // 2, (photograph.height - rows * size) // 2
    tiles = [(left + column * size, top + row * size) for row in range(rows) for column in range(columns)]
    middle = ((photograph.width - size) / 2, (photograph.height - size) / 2)
    return sorted(tiles, key=lambda tile: (math.dist(tile, middle), tile))
