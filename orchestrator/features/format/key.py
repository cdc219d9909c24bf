"""The content address of a teacher's outputs for a crop plan: pure, and without torch.

One object holds one tap of one shard, up to 64 crops of one rate point. Its key is the SHA-256 of everything that
changes its bytes and of nothing else. Paths of files, the plan that the crops belong to and the teacher's name are not
in it. The rate point is in the key of every tap after the quantiser, and of every tap if every rate point has its
own network: in a variable-rate network `y` and `z` come before gain and quantiser, so they are the same at all rate
points.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

from models.families import FAMILIES
from models.one_line import OneLineError
from orchestrator.photographs.crops import Crop, CropPlan, Shards

# x (pixels), y, y_hat (quantised), z, x_hat, entropy (bits per position of each channel of y), or a module's path and
# the reduction of its output (models/taps.py): g_a.3:spatial. A suffix @k means the teacher's rate point k, whatever
# the crop's is.
Tap = str

TEACHER_TAPS: tuple[Tap, ...] = ("y", "x_hat")  # what PRIM's L1 reads
NAMED_TAPS = ("y", "y_hat", "z", "x_hat", "entropy")
MODULE_TAP = re.compile(r"^(g_a|g_s|h_a|h_s)(\.\w+)*:(spatial|channel|raw)$")
RAW_STRIDES = (8, 16)  # pixels a side of an element; a finer map takes megabytes per crop

SHARDS_A_PART = 8192  # of a large plan: about 1.5 MB of ledger a tap

CUT_VERSION = 1  # raise it when crops.cut gives other pixels for the same crop


class FeatureError(OneLineError, RuntimeError):
    """Features that are missing, damaged or cannot be made: one line, with tap, shard and key if known."""


class TapError(FeatureError):
    """A tap that is not allowed: one line with the tap and what is allowed."""


class DamagedObject(FeatureError):
    """A stored object is not what its ledger says. `fill.mend` makes it again."""

    def __init__(self, message: str, plan: str, tap: Tap, shard: int) -> None:
        super().__init__(message)
        self.plan, self.tap, self.shard = plan, tap, shard  # digest of the feature plan

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedObject, (str(self), self.plan, self.tap, self.shard)


def parted(tap: Tap) -> tuple[Tap, int | None]:
    """A tap split into its name and its rate point: `y@4` is ("y", 4), `y` is ("y", None)."""
    name, _, rate_point = tap.partition("@")
    return name, int(rate_point) if rate_point else None


def codec_of(tap: Tap) -> str:
    """How a tap is stored: `u8`, `q8` or `f16`, with its version; see tap_file.py."""
    tap, _ = parted(tap)
    if tap in ("x", "x_hat"):
        return "u8/1"
    return "f16/1" if tap.endswith(":channel") or tap in ("entropy", "y_hat") else "q8/1"


@dataclass(frozen=True, kw_only=True)
class TeacherWeights:
    """A teacher as feature plans know it."""

    name: str  # for messages only
    path: str  # of the weights file, which every node sees
    digest: str  # sha256 hex of that file
    kind: Literal["variable-rate", "fixed-lambda"] = "variable-rate"  # of its metadata; a fill refuses another
    family: str = "hyperprior"  # of its metadata; a fill refuses another


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where in a store some taps of a teacher are. Without a teacher the only tap is the pixels, `x`."""

    teacher: TeacherWeights | None
    taps: tuple[Tap, ...]

    @property
    def title(self) -> str:
        """For messages."""
        return f"teacher {self.teacher.name}" if self.teacher else "pixels"

    @property
    def source(self) -> str:
        """Name of the folder for everything that one teacher computed."""
        return self.teacher.digest[:16] if self.teacher else "pixels"

    def folder(self, tap: Tap) -> str:
        """Name in the store of the folder of a tap's objects."""
        return f"features/{self.source}/{parted(tap)[0].replace(':', '-')}"

    def object_of(self, tap: Tap, key: str) -> str:
        """Name in the store of the object with this key."""
        return f"{self.folder(tap)}/{key}.safetensors"

    def record_of(self, unit: str) -> str:
        """Name in the store of a shard's record: who fills it, which objects exist; see ledger.py."""
        return f"shards/{self.source}/{unit}.json"


@dataclass(frozen=True, kw_only=True)
class FeaturePlan(Source):
    """The objects that hold some taps of all crops of a plan."""

    crops: CropPlan
    digest: str  # sha256 hex of what is stored, whatever the teacher is called

    @property
    def shards(self) -> Shards:
        """Crop ids; the crops of a shard share their rate point."""
        return self.crops.shards

    @property
    def parts(self) -> tuple[range, ...]:
        """Shards whose objects are listed together: all of them in a plan whose crops are listed."""
        most = len(self.shards) if self.crops.listed else SHARDS_A_PART
        return tuple(range(len(self.shards))[first : first + most] for first in range(0, len(self.shards), most))

    def part_digest(self, part: int) -> str:
        """What the ledger of a part, and the holds on it, are named by: of a plan of one part its digest."""
        return self.digest if self.crops.listed else f"{self.digest}-{part:05}"

    def ledger(self, part: int = 0) -> str:
        """Name in the store of the list of a part's objects; it is written when all of them exist."""
        return f"ledgers/{self.part_digest(part)}.json"

    def key(self, tap: Tap, shard: int) -> str:
        """sha256 hex of what decides the object's bytes; see `shard_key`."""
        return shard_key(tap, self.teacher, self._crops_of(shard))

    def object(self, tap: Tap, shard: int) -> str:
        """Name in the store of one tap of one shard."""
        return self.object_of(tap, self.key(tap, shard))

    def unit(self, shard: int) -> str:
        """Names the shard's record, which is the same for all taps."""
        crops = self._crops_of(shard)
        return _digest({**_content(self.teacher, crops), "rate_points": [crop.rate_point for crop in crops]})

    def record(self, shard: int) -> str:
        """Name in the store of the shard's record."""
        return self.record_of(self.unit(shard))

    @property
    def ordering(self) -> FeaturePlan:
        """What a reader needs: keys are in the ledgers, so the crops need not be drawn."""
        return replace(self, crops=self.crops.ordering)

    def _crops_of(self, shard: int) -> tuple[Crop, ...]:
        return _crops_of(self.crops, shard)


def plan_digest(taps: Sequence[Tap], keys: Sequence[Sequence[str]]) -> str:
    """What a plan whose crops are listed is named by.

    Args:
        keys: [tap][shard].
    """
    return hashlib.sha256(json.dumps([taps, keys]).encode()).hexdigest()


def plan_features(
    plan: CropPlan, teacher: TeacherWeights | None = None, taps: Sequence[Tap] | None = None
) -> FeaturePlan:
    """What to store for a crop plan: a teacher's taps (`y` and `x_hat` by default), or without a teacher the pixels.

    Raises TapError if something is not a tap, or occurs twice.
    """
    chosen = tuple(taps) if taps is not None else TEACHER_TAPS if teacher else ("x",)
    for tap in chosen:
        name, at, rate_point = tap.partition("@")
        of_teacher = name in NAMED_TAPS or MODULE_TAP.match(name)
        at_one = not at or (rate_point.isdecimal() and int(rate_point) < plan.rate_points)
        if (of_teacher and at_one) if teacher else tap == "x":
            continue
        modules = "MODULE:spatial, :channel or :raw such as g_a.3:spatial"
        allowed = f"{', '.join(NAMED_TAPS)}, or {modules}, each perhaps with @ and a rate point" if teacher else "x"
        raise TapError(f"taps: {tap!r} is not allowed: {allowed}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise TapError(f"taps: {list(chosen)} is not allowed: at least one, each once")
    return FeaturePlan(teacher=teacher, taps=chosen, crops=plan, digest=_digest_of(plan, teacher, chosen))


def _digest_of(plan: CropPlan, teacher: TeacherWeights | None, taps: tuple[Tap, ...]) -> str:
    """Of all keys; of a plan that is too large for that, of all that they are made from."""
    if plan.listed:
        shards = [_crops_of(plan, shard) for shard in range(len(plan.shards))]
        return plan_digest(taps, [[shard_key(tap, teacher, crops) for crops in shards] for tap in taps])
    content = _content(teacher, ())
    if plan.settings.downscale != (1.0, 1.0):
        content["pillow"] = version("pillow")
    kind = teacher and (teacher.kind, _before_quantiser(teacher.family).pattern)
    codecs = [[tap, codec_of(tap)] for tap in taps]
    return _digest({**content, "crops": plan.digest, "taps": codecs, "kind": kind})


@lru_cache(maxsize=4)
def _crops_of(plan: CropPlan, shard: int) -> tuple[Crop, ...]:
    return tuple(plan.crops[index] for index in plan.shards[shard])


def shard_key(tap: Tap, teacher: TeacherWeights | None, crops: Sequence[Crop]) -> str:
    """sha256 hex of the canonical JSON of everything that decides the bytes of one tap of these crops."""
    name, rate_point = parted(tap)
    same_at_all = (
        teacher is not None and teacher.kind == "variable-rate" and bool(_before_quantiser(teacher.family).match(name))
    )
    content = _content(teacher, crops)
    if tap != "x" and not same_at_all:
        content["rate_points"] = [crop.rate_point if rate_point is None else rate_point for crop in crops]
    return _digest({**content, "tap": name, "codec": codec_of(tap)})


def _before_quantiser(family: str) -> re.Pattern[str]:
    """Matches the taps before the gain and the quantiser."""
    return re.compile(r"^(y|g_a\b.*)$" if FAMILIES[family].gain_before_z else r"^(y|z|(g_a|h_a)\b.*)$")


def _content(teacher: TeacherWeights | None, crops: Sequence[Crop]) -> dict[str, object]:
    content: dict[str, object] = {"crops": [crop.pixels for crop in crops], "cut": CUT_VERSION}
    if any(crop.side != crop.size for crop in crops):
        content["pillow"] = version("pillow")  # its resampling makes these pixels
    if teacher is not None:
        content["teacher"] = teacher.digest
        forward_version = FAMILIES[teacher.family].forward_version
        content["forward"] = [forward_version, "float32", version("torch"), version("compressai")]
    return content


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
