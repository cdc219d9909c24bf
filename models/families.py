"""The families of networks, as far as a driver must know them: nothing here imports torch.

Each family has a module of its own with the network itself; `models.ladder` puts the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Distortion = Literal["mse", "ms-ssim"]  # what a ladder's lambdas weigh: 255^2 * MSE, or 1 - MS-SSIM
# MS-SSIM halves an image four times and compares windows of 11 pixels in what is left.
LEAST_SIDE = 161
Kind = Literal["variable-rate", "fixed-lambda"]  # of a rate ladder: one network with gains, or one network a lambda

# Of the transforms' outputs, by the pixels a side of one of their elements, so that networks of any two families can
# be compared: what lies at one stage has the same height and width.
Stage = Literal["analysis-2", "analysis-4", "analysis-8", "synthesis-8", "synthesis-4", "synthesis-2"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of networks with N hidden channels, M channels of y and Z of z.

    Attributes:
        stages: `Stage` -> path of the submodule whose output it is; each has N channels.
        least_M: channels of y that it needs: one for each of its groups.
        gain_before_z: whether a variable-rate network's z, unlike its y, depends on the rate point.
        forward_version: raise it when the same weights give other values than before.
    """

    stages: Mapping[Stage, str]
    least_M: int = 1
    gain_before_z: bool = False
    forward_version: int = 1


# g_a and g_s are convolution, GDN, convolution, GDN, convolution, GDN, convolution
_LAYERS: Mapping[Stage, str] = {
    "analysis-2": "g_a.1",
    "analysis-4": "g_a.3",
    "analysis-8": "g_a.5",
    "synthesis-8": "g_s.1",
    "synthesis-4": "g_s.3",
    "synthesis-2": "g_s.5",
}

# g_a and g_s are four blocks each, of one stride
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
    "feds-teacher": Family(stages=_BLOCKS, least_M=5, gain_before_z=True),
    "feds-student": Family(stages=_BLOCKS, least_M=5, gain_before_z=True),
    "transformer": Family(stages=_BLOCKS, gain_before_z=True),
}
