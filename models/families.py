"""The families of networks, without torch, for processes that only plan.

Each family has a module of its own with the network; `models.ladder` combines the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Distortion = Literal["mse", "ms-ssim"]  # what a ladder's lambdas weigh: 255^2 * MSE, or 1 - MS-SSIM
LEAST_SIDE = 161  # pixels: MS-SSIM halves an image four times and then compares windows of 11 pixels
Kind = Literal["variable-rate", "fixed-lambda"]  # of a rate ladder: one network with gains, or one network per lambda

# An output of a transform, named by the pixels a side of one of its elements. Outputs at one stage have the same height
# and width in all families, so they can be compared.
Stage = Literal["analysis-2", "analysis-4", "analysis-8", "synthesis-8", "synthesis-4", "synthesis-2"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of networks with N hidden channels, M channels of y and Z of z.

    Attributes:
        stages: stage -> path of the submodule with this output; each has N channels.
        least_M: the least number of channels of y: one for each group.
        gain_before_z: whether a variable-rate network's z depends on the rate point (its y never does).
        forward_version: raise it when the same weights give other values than before.
        least_side: pixels; smaller photographs are padded to it before coding. Where a side is a single window,
            Swin-V2 blocks do not shift it, and would be another network.
    """

    stages: Mapping[Stage, str]
    least_M: int = 1
    gain_before_z: bool = False
    forward_version: int = 1
    least_side: int = 64


# g_a and g_s are convolution, GDN, convolution, GDN, convolution, GDN, convolution
_LAYERS: Mapping[Stage, str] = {
    "analysis-2": "g_a.1",
    "analysis-4": "g_a.3",
    "analysis-8": "g_a.5",
    "synthesis-8": "g_s.1",
    "synthesis-4": "g_s.3",
    "synthesis-2": "g_s.5",
}

# g_a and g_s are four blocks each, all of stride 2
_BLOCKS: Mapping[Stage, str] = {
    "analysis-2": "g_a.0",
    "analysis-4": "g_a.1",
    "analysis-8": "g_a.2",
    "synthesis-8": "g_s.0",
    "synthesis-4": "g_s.1",
    "synthesis-2": "g_s.2",
}

FAMILIES: Mapping[str, Family] = {
    "hyperprior": Family(stages=_LAYERS),
    "mean-scale": Family(stages=_LAYERS),
    "feds-teacher": Family(stages=_BLOCKS, least_M=5, gain_before_z=True, least_side=128),
    "feds-student": Family(stages=_BLOCKS, least_M=5, gain_before_z=True, least_side=128),
    "transformer": Family(stages=_BLOCKS, gain_before_z=True, least_side=128),
}
