"""Family `hyperprior`: a hyperprior of scales (Ballé et al. 2018, https://arxiv.org/abs/1802.01436), CompressAI's
network."""

from __future__ import annotations

from typing import Any

from compressai.models import ScaleHyperprior
from compressai.models.vbr import ScaleHyperpriorVbr
from torch import Tensor

from models.families import Kind


class GainOfDevice:
    """A mixin for CompressAI's variable-rate networks: a gain that is a tensor is taken as it is.

    They ask whether it is 0, for which the host waits for the device.
    """

    Gain: Tensor

    def _get_scale(self, stage: int, s: int, inputscale: Tensor | int) -> Tensor:
        return inputscale if isinstance(inputscale, Tensor) else self.Gain[s].detach()


class VariableRate(GainOfDevice, ScaleHyperpriorVbr):
    """CompressAI's network."""


def build(*, N: int, M: int, Z: int, kind: Kind) -> Any:
    """A network with N hidden channels, M of y, and Z of z and of the hyper-transforms' hidden layers."""
    network = (VariableRate if kind == "variable-rate" else ScaleHyperprior)(N, M)
    return network if Z == N else with_hyper_pair(network, ScaleHyperprior(Z, M))


def with_hyper_pair(network: Any, donor: Any) -> Any:
    """The network with the hyper-analysis, hyper-synthesis and entropy bottleneck of `donor`, which has the same M.

    A student that is to match its teacher's z (PRIM's loss L2, https://arxiv.org/abs/2509.10366) needs the teacher's
    width there. The three parts are replaced together, because their hidden layers are as wide as z.
    """
    for name in ("h_a", "h_s", "entropy_bottleneck"):
        setattr(network, name, getattr(donor, name))
    return network
