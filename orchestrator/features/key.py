"""The content address of what a teacher says of a crop plan: pure, and without torch.

One object holds one tap of one shard, up to 64 crops of one rate point. Its key is the SHA-256 of everything that
changes its bytes and of nothing else: names and places of files, the plan that the crops belong to and the name of the
teacher are not in it. The rate point is in the key of `x_hat`, and in that of `y` if every rate point has a network of
its own: in a variable-rate network `y` lies before gain and quantiser, and is the same at all rate points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

from orchestrator.crops import Crop, CropPlan

Tap = Literal["x", "y", "x_hat"]
CODECS: dict[Tap, str] = {"x": "u8-delta-zstd", "y": "f16-zstd", "x_hat": "u8-delta-zstd"}  # see codec.py
TEACHER_TAPS: tuple[Tap, ...] = ("y", "x_hat")
FORWARD_VERSION = 1  # raise it when models/ computes other values from the same weights
CUT_VERSION = 1  # raise it when crops.cut gives other pixels for the same crop
SHARD_CROPS = 64


class FeatureError(RuntimeError):
    """Features that are missing, damaged or cannot be made: one line, with tap, shard and key where they are known."""


@dataclass(frozen=True, kw_only=True)
class TeacherWeights:
    name: str  # for messages only
    path: str  # a weights file that every node sees
    digest: str  # sha256 hex of that file
    kind: Literal["variable-rate", "fixed-lambda"] = "variable-rate"  # of its metadata; a fill refuses another


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """The objects that hold some taps of all crops of a plan. Without a teacher they are the crops' own pixels, `x`."""

    teacher: TeacherWeights | None
    taps: tuple[Tap, ...]
    shards: tuple[tuple[int, ...], ...]  # crop ids; the crops of a shard share their rate point
    keys: tuple[tuple[str, ...], ...]  # [tap][shard]

    @cached_property
    def digest(self) -> str:
        """sha256 hex of the keys: what is stored, whatever the teacher is called."""
        return hashlib.sha256(json.dumps([self.taps, self.keys]).encode()).hexdigest()

    @property
    def title(self) -> str:
        return f"teacher {self.teacher.name}" if self.teacher else "pixels"

    @property
    def ledger(self) -> str:
        """Name in the store of the list of objects; it is written when all of them are there."""
        return f"ledgers/{self.digest}.json"

    def folder(self, tap: Tap) -> str:
        return f"features/{self.teacher.digest[:16] if self.teacher else 'pixels'}/{tap}"

    def object(self, tap: Tap, shard: int) -> str:
        """Name in the store of one tap of one shard."""
        return f"{self.folder(tap)}/{self.keys[self.taps.index(tap)][shard]}.safetensors.zst"


def plan_features(
    plan: CropPlan, teacher: TeacherWeights | None = None, taps: Sequence[Tap] | None = None
) -> FeaturePlan:
    """What to store for a crop plan: the teacher's taps (both, if not said), or without a teacher the pixels."""
    chosen = tuple(taps) if taps is not None else TEACHER_TAPS if teacher else ("x",)
    allowed = TEACHER_TAPS if teacher else ("x",)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(allowed):
        raise FeatureError(
            f"taps {list(chosen)}: {'a teacher has' if teacher else 'without a teacher there is'} {allowed}"
        )
    shards = tuple(
        pool[start : start + SHARD_CROPS] for pool in plan.pools for start in range(0, len(pool), SHARD_CROPS)
    )
    keys = tuple(
        tuple(shard_key(tap, teacher, [plan.crops[index] for index in shard]) for shard in shards) for tap in chosen
    )
    return FeaturePlan(teacher=teacher, taps=chosen, shards=shards, keys=keys)


def shard_key(tap: Tap, teacher: TeacherWeights | None, crops: Sequence[Crop]) -> str:
    """sha256 hex of the canonical JSON of what decides the bytes of one tap of these crops."""
    content: dict[str, Any] = {
        "tap": tap,
        "codec": CODECS[tap],
        "crops": [crop.pixels for crop in crops],
        "cut": CUT_VERSION,
    }
    if any(crop.side != crop.size for crop in crops):
        content["pillow"] = version("pillow")  # its resampling makes these pixels
    if teacher is not None:
        content["teacher"] = teacher.digest
        content["forward"] = [FORWARD_VERSION, "float32", version("torch"), version("compressai")]
    if tap == "x_hat" or (teacher is not None and teacher.kind == "fixed-lambda"):
        content["rate_points"] = [crop.rate_point for crop in crops]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
