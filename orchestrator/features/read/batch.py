"""The data of one training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's share of a step's crops.

    Attributes:
        x: [b, 3, S, S] float32 in 0..1.
        rate_point: the same for all crops and all ranks of the step.
        crops: their ids in the plan.
        targets: the teacher's outputs for these crops by tap (see features/format/key.py), float32: `y`
            [b, M, S/16, S/16], the latent before gain and quantiser; `x_hat` [b, 3, S, S], its reconstruction at the
            rate point, in 0..1. Empty without a teacher.
    """

    x: Tensor
    rate_point: int
    crops: tuple[int, ...]
    targets: Mapping[str, Tensor] = field(default_factory=dict)
