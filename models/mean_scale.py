"""Family `mean-scale`: a hyperprior of means and scales, without a context model (Minnen et al. 2018,
https://arxiv.org/abs/1809.02736), CompressAI's network."""

from __future__ import annotations

from typing import Any

from compressai.models import MeanScaleHyperprior
from compressai.models.vbr import MeanScaleHyperpriorVbr

from models.families import Kind
from models.hyperprior import GainOfDevice, with_hyper_pair


class VariableRate(GainOfDevice, MeanScaleHyperpriorVbr):
    """CompressAI's network."""


def build(*, N: int, M: int, Z: int, kind: Kind) -> Any:
    """A network with N hidden channels, M of y, and Z of z and of the hyper-transforms' hidden layers."""
    network = (VariableRate if kind == "variable-rate" else MeanScaleHyperprior)(N, M)
    return network if Z == N else with_hyper_pair(network, MeanScaleHyperprior(Z, M))
