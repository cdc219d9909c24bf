"""One shard: what it takes to fill it, and filling it."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.features.fill.claim import LEASE_S, Claim, claim, read_record
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
from orchestrator.features.format.ledger import Entry, entry_of
from orchestrator.features.format.recent import Recent
from orchestrator.features.format.tap_file import StoredTap, encode
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
    suspect: bool = False  # look at the objects themselves, whatever the record says of them
    pixels: ShardWork | None = None  # where the crops' pixels may be found already

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
        """Of a plan's shard, for the fill of this name. Raises FeatureError if a photograph is missing."""
        crops = tuple(plan.crops[index] for index in features.shards[shard])
        lacking = [crop.photograph for crop in crops if crop.photograph not in photographs]
        if lacking:
            raise FeatureError(f"shard {shard}: the photograph {lacking[0]} is not among those surveyed")
        return cls(
            teacher=features.teacher,
            rate_point=crops[0].rate_point,
            crops=crops,
            photographs={crop.photograph: photographs[crop.photograph] for crop in crops},
            objects={tap: (features.key(tap, shard), features.object(tap, shard)) for tap in features.taps},
            record=features.record(shard),
            owner=f"{fill or secrets.token_hex(8)}-{features.digest[:16]}-{shard}",
            suspect=suspect,
            pixels=None if pixels is None else cls.of(plan, pixels, shard, photographs),
        )


@dataclass(frozen=True, kw_only=True)
class Filled:
    """One shard, as a task leaves it."""

    entries: dict[Tap, Entry]
    computed: bool
    bytes: int  # published
    duplicated: bool  # the claim was lost meanwhile: what the shard's record says counts, not `entries`
    findings: tuple[str, ...]  # damaged objects that were made anew


def fill_shard(store: Store, work: ShardWork, lease_s: float = LEASE_S) -> Filled | None:
    """`fill_shards` of a single one."""
    (filled,) = fill_shards(store, [work], lease_s)
    return filled


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A shard that is claimed, with all that computing it takes."""

    work: ShardWork
    held: Claim
    entries: dict[Tap, Entry]  # what is there already
    damaged: dict[Tap, tuple[str, str]]
    pixels: npt.NDArray[np.uint8] | None  # None: nothing is to be computed

    def made(self) -> dict[Tap, bytes]:
        """The objects that are not there."""
        if self.pixels is None:
            return {}
        taps = [tap for tap in self.work.objects if tap not in self.entries]
        return {tap: encode(tap, values) for tap, values in compute(self.work, self.pixels, taps).items()}


def fill_shards(store: Store, works: Sequence[ShardWork], lease_s: float = LEASE_S) -> list[Filled | None]:
    """Publishes what the store lacks of some shards. While one of them is computed, the one before it is published, and
    the next one is claimed and its pixels are fetched.

    An object that is there but not in its shard's record is taken as it is, once it decodes; one that does not, or is
    not what the record says, is named in `findings` and made anew, unless somebody else does meanwhile.

    Returns:
        One entry a shard; None of one that somebody else is filling.
    """
    filled: list[Filled | Future[Filled] | None] = []
    with (
        ExitStack() as claims,  # left when both threads have ended: gives free what was not published
        ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher,
        ThreadPoolExecutor(1, thread_name_prefix="begin") as beginner,
    ):
        coming = (beginner.submit(_begin, store, work, lease_s, claims) for work in works)
        ahead = next(coming, None)
        while ahead is not None:
            begun, ahead = ahead.result(), next(coming, None)
            filled.append(
                publisher.submit(_publish, store, begun, begun.made()) if isinstance(begun, _Begun) else begun
            )
        return [each.result() if isinstance(each, Future) else each for each in filled]


def _begin(store: Store, work: ShardWork, lease_s: float, claims: ExitStack) -> _Begun | Filled | None:
    record = read_record(store, work.record)
    if not work.suspect and all(key in record.objects for key, _ in work.objects.values()):
        entries = {tap: record.objects[key] for tap, (key, _) in work.objects.items()}
        return Filled(entries=entries, computed=False, bytes=0, duplicated=False, findings=())
    held = claim(store, work.record, work.owner, lease_s)
    if held is None:
        return None
    claims.enter_context(held)
    entries, damaged = _present(store, work, {} if held.fresh else held.found.objects, fresh=held.fresh)
    pixels = None if entries.keys() >= work.objects.keys() else pixels_of(work, store)
    return _Begun(work=work, held=held, entries=entries, damaged=damaged, pixels=pixels)


def _publish(store: Store, begun: _Begun, made: Mapping[Tap, bytes]) -> Filled:
    """Ends the claim, whatever happens."""
    work, held, damaged = begun.work, begun.held, begun.damaged
    published, now = 0, dict(begun.entries)
    with ExitStack() as claimed:
        claimed.push(held)
        for tap, data in made.items():
            key, name = work.objects[tap]
            tag = store.replace_if(name, data, damaged[tap][1]) if tap in damaged else store.publish(name, data)
            there = store.read(name) if tag is None else data
            published += len(there)
            now[tap] = entry_of(key, there)
        finished = held.finish({**held.found.objects, **{entry.key: entry for entry in now.values()}})
    return Filled(
        entries=now,
        computed=bool(made),
        bytes=published,
        duplicated=not finished,
        findings=tuple(finding for finding, _ in damaged.values()),
    )


def _present(
    store: Store, work: ShardWork, recorded: Mapping[str, Entry], *, fresh: bool
) -> tuple[dict[Tap, Entry], dict[Tap, tuple[str, str]]]:
    """What of a shard is there and can be used; what is there and cannot: why, and its tag."""
    entries: dict[Tap, Entry] = {}
    damaged: dict[Tap, tuple[str, str]] = {}
    for tap, (key, name) in work.objects.items():
        entry = recorded.get(key)
        if fresh or (entry is not None and not work.suspect):
            entries |= {} if entry is None else {tap: entry}
            continue
        try:
            there = store.read_stamped(name)
        except FileNotFoundError:
            continue
        found = entry_of(key, there.data)
        try:
            if entry is not None and found != entry:
                raise FeatureError(f"tap {tap}: {found.bytes} bytes whose digest is not the recorded one")
            _whole(tap, there.data, len(work.crops))
            entries[tap] = found
        except FeatureError as error:
            damaged[tap] = f"{store.url}/{name}: {error}", there.tag
    return entries, damaged


def _whole(tap: Tap, data: bytes, crops: int) -> npt.NDArray[Any]:
    """All crops of an object. Raises FeatureError if it cannot be used."""
    stored = StoredTap(tap, MemoryBlob(data))
    if len(stored) != crops:
        raise FeatureError(f"tap {tap}: {len(stored)} crops, {crops} expected")
    return stored.rows()


def pixels_of(work: ShardWork, store: Store | None = None) -> npt.NDArray[np.uint8]:
    """uint8 [n, 3, S, S] of a shard's crops: from the store if they are there, else cut anew.

    Raises FeatureError, PhotographError, StoreError.
    """
    stored = _stored_pixels(store, work.pixels) if store is not None and work.pixels is not None else None
    return _cut_pixels(work) if stored is None else stored


def compute(work: ShardWork, pixels: npt.NDArray[np.uint8], taps: Sequence[Tap]) -> dict[Tap, npt.NDArray[Any]]:
    """What `encode` takes, of all crops. Raises FeatureError."""
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
            # By a third faster than [3, S, S] crops one after the other; and one layout, whatever the pixels came in,
            # since sums run in another order in the other one.
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
            raise TapError(f"taps: {list(names)} is not allowed: in {work.teacher.name}, {error}") from None
        values |= {tap: output[name] for tap, name in names.items()}
    return values


def _stored_pixels(store: Store, work: ShardWork) -> npt.NDArray[Any] | None:
    """uint8 [n, 3, S, S] as the store has them; None if it does not, or not whole."""
    key, name = work.objects["x"]
    entry = read_record(store, work.record).objects.get(key)
    if entry is None:
        return None
    try:
        for checksum in (False, True):  # the digest says as much; what was flipped on the way is read again
            data = store.read(name, checksum=checksum)
            if entry_of(key, data) == entry:
                return _whole("x", data, len(work.crops))
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
        found = digest(teacher.path)
        if found != teacher.digest:
            raise FeatureError(f"{teacher.path}: digest {found}, but {teacher.digest} was planned for {teacher.name}")
        ladder = load_ladder(teacher.path).eval()
    except (OSError, WeightsError) as error:
        raise FeatureError(f"teacher {teacher.name}: {error}") from error
    for found, planned in ((ladder.kind, teacher.kind), (ladder.family, teacher.family)):
        if found != planned:  # the keys depend on both
            raise FeatureError(f"{teacher.path}: a {found} ladder, planned as {planned}")
    return ladder
