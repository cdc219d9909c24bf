"""One shard: what a task needs to compute it, and computing it."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.features.fill.claim import read_record
from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.key import (
    RAW_STRIDES,
    FeatureError,
    FeaturePlan,
    Tap,
    TapError,
    TeacherWeights,
    parted,
)
from orchestrator.features.format.ledger import entry_of
from orchestrator.features.format.recent import Recent
from orchestrator.features.format.tap_file import StoredTap
from orchestrator.photographs.crops import Crop, CropPlan, cut
from orchestrator.photographs.photos import Photograph, load_rgb
from orchestrator.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from models.ladder import RateLadder

FORWARD_CROPS = 16  # crops a forward pass of the teacher


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """One shard of one feature plan: all that a task needs to fill it."""

    teacher: TeacherWeights | None
    rate_point: int
    crops: tuple[Crop, ...]
    photographs: Mapping[str, Photograph]  # those of the crops, by digest
    objects: Mapping[Tap, tuple[str, str]]  # key, name in the store
    record: str
    owner: str  # of the claim
    suspect: bool = False  # check the objects themselves, whatever the record says
    pixels: ShardWork | None = None  # the shard that may hold the crops' pixels already

    @classmethod
    def of(
        cls,
        plan: CropPlan,
        features: FeaturePlan,
        shard: int,
        photographs: Mapping[str, Photograph],
        *,
        fill: str = "",
        suspect: bool = False,
        pixels: FeaturePlan | None = None,
    ) -> ShardWork:
        """The work of one shard of a plan. Raises FeatureError if a photograph is missing.

        Args:
            fill: names the fill in the claim; a random name if empty.
            suspect: see the attribute.
            pixels: the feature plan of the pixels, if the store may have them.
        """
        crops = tuple(plan.crops[index] for index in features.shards[shard])
        found = {crop.photograph: photographs.get(crop.photograph) for crop in crops}
        lacking = [digest for digest, photograph in found.items() if photograph is None]
        if lacking:
            raise FeatureError(f"shard {shard}: the photograph {lacking[0]} is not among those surveyed")
        keys = {tap: features.key(tap, shard) for tap in features.taps}
        return cls(
            teacher=features.teacher,
            rate_point=crops[0].rate_point,
            crops=crops,
            photographs={digest: photograph for digest, photograph in found.items() if photograph is not None},
            objects={tap: (key, features.object_of(tap, key)) for tap, key in keys.items()},
            record=features.record(shard),
            owner=f"{fill or secrets.token_hex(8)}-{features.digest[:16]}-{shard}",
            suspect=suspect,
            pixels=None if pixels is None else cls.of(plan, pixels, shard, photographs),
        )


def whole_rows(tap: Tap, data: bytes, crops: int) -> npt.NDArray[Any]:
    """All crops [n, ...] of a stored object. Raises FeatureError if it cannot be used."""
    stored = StoredTap(tap, MemoryBlob(data))
    if len(stored) != crops:
        raise FeatureError(f"tap {tap}: {len(stored)} crops, {crops} expected")
    return stored.rows()


def pixels_of(work: ShardWork, store: Store | None = None) -> npt.NDArray[np.uint8]:
    """uint8 [n, 3, S, S] of a shard's crops: from the store if they are there, else cut from the photographs.

    Raises FeatureError, PhotographError, StoreError.
    """
    stored = _stored_pixels(store, work.pixels) if store is not None and work.pixels is not None else None
    return _cut_pixels(work) if stored is None else stored


def compute(work: ShardWork, pixels: npt.NDArray[np.uint8], taps: Sequence[Tap]) -> dict[Tap, npt.NDArray[Any]]:
    """Tap -> what `encode` takes, for all crops of a shard: uint8 [n, 3, S, S] or floats [n, C, h, w].

    Args:
        pixels: uint8 [n, 3, S, S].

    Raises FeatureError: the teacher is not the one that was planned; TapError: it has no such tap.
    """
    if work.teacher is None:
        return {"x": pixels}
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)  # a task has one CPU
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32, as the key says
    ladder = _teacher(work.teacher).to(device)
    parts: dict[Tap, list[npt.NDArray[Any]]] = {tap: [] for tap in taps}
    with torch.inference_mode():
        for start in range(0, len(pixels), FORWARD_CROPS):
            x = torch.from_numpy(pixels[start : start + FORWARD_CROPS]).to(device)
            # A third faster than one crop at a time. Always this layout, since in the other one sums run in another
            # order.
            x = x.contiguous(memory_format=torch.channels_last).float().div_(255)
            for tap, values in _forward(ladder, x, work, taps).items():
                if tap.startswith("x_hat"):
                    values = values.mul_(255).round_().clamp_(0, 255).byte()
                elif ":raw" in tap and x.shape[-1] // values.shape[-1] not in RAW_STRIDES:
                    stride = x.shape[-1] // values.shape[-1]
                    raise TapError(f"taps: {tap!r} is not allowed: raw maps at stride 8 or 16; it has {stride}")
                parts[tap].append(values.cpu().numpy())
    return {tap: np.concatenate(values) for tap, values in parts.items()}


def _forward(ladder: RateLadder, x: Tensor, work: ShardWork, taps: Sequence[Tap]) -> dict[Tap, Tensor]:
    """Each tap at the rate point that it names, else at the crops'."""
    from models.taps import TapPathError

    assert work.teacher is not None
    named: dict[int, dict[Tap, Tap]] = {}
    for tap in taps:
        name, rate_point = parted(tap)
        named.setdefault(work.rate_point if rate_point is None else rate_point, {})[tap] = name
    values: dict[Tap, Tensor] = {}
    for rate_point, names in named.items():
        try:
            output = ladder(x, rate_point, taps=tuple({*names.values()}))
        except TapPathError as error:
            raise TapError(f"taps: {list(names)} is not allowed: modules of {work.teacher.name}: {error}") from None
        values |= {tap: output[name] for tap, name in names.items()}
    return values


def _stored_pixels(store: Store, work: ShardWork) -> npt.NDArray[Any] | None:
    """uint8 [n, 3, S, S] from the store; None if they are not there, or damaged."""
    key, name = work.objects["x"]
    entry = read_record(store, work.record).objects.get(key)
    if entry is None:
        return None
    try:
        for checksum in (False, True):  # S3's checksum is not needed; bits that flipped in transfer are read again
            data = store.read(name, checksum=checksum)
            if entry_of(key, data) == entry:
                return whole_rows("x", data, len(work.crops))
    except (FileNotFoundError, FeatureError):
        pass
    return None


def _cut_pixels(work: ShardWork) -> npt.NDArray[np.uint8]:
    """uint8 [n, 3, S, S]; crops of one photograph are cut together, so it is decoded once."""
    rows = {}
    for index in sorted(range(len(work.crops)), key=lambda index: work.crops[index].photograph):
        crop = work.crops[index]
        photograph = work.photographs[crop.photograph]
        rgb = _decoded.get(photograph, functools.partial(load_rgb, photograph))
        rows[index] = cut(rgb, crop).transpose(2, 0, 1)
    return np.stack([rows[index] for index in range(len(work.crops))])


_decoded = Recent(128 * 2**20)  # of this process


@functools.lru_cache(maxsize=2)
def _teacher(teacher: TeacherWeights) -> RateLadder:
    from models.weights import WeightsError, digest, load_ladder

    try:
        actual = digest(teacher.path)
        if actual != teacher.digest:
            raise FeatureError(f"{teacher.path}: digest {actual}, but {teacher.digest} was planned for {teacher.name}")
        ladder = load_ladder(teacher.path).eval()
    except (OSError, WeightsError) as error:
        raise FeatureError(f"teacher {teacher.name}: {error}") from error
    for actual, planned in ((ladder.kind, teacher.kind), (ladder.family, teacher.family)):
        if actual != planned:  # the keys depend on both
            raise FeatureError(f"{teacher.path}: a {actual} ladder, planned as {planned}")
    return ladder
