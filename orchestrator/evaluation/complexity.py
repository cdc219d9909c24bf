"""What a network costs: parameters, and multiply-accumulates a pixel. Deterministic, so it can be an axis of the front.

Needs torch when called, so a driver calls it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SIDE = 256  # pixels; every stride divides it, so the figures are the same at every multiple of 64


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """MACs are those of the transforms' convolutions, GDN's included; the entropy coder's tables cost none."""

    params: int  # of the whole ladder: all its networks
    macs_per_pixel: float  # of coding and decoding one photograph at one rate point: g_a + h_a + h_s + g_s
    encoder_macs_per_pixel: float  # g_a + h_a + h_s
    decoder_macs_per_pixel: float  # h_s + g_s


def complexity(
    *, family: str, N: int, M: int, lambdas: Sequence[float], kind: Literal["variable-rate", "fixed-lambda"]
) -> Complexity:
    """Counts with torch's FlopCounterMode on tensors that hold no data; arguments as of `models.ladder.RateLadder`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from models.ladder import RateLadder

    ladder = RateLadder(family=family, N=N, M=M, lambdas=lambdas, kind=kind).to("meta")
    network = ladder.networks[0]  # the others of a fixed-lambda ladder are as large, and a photograph passes one
    inputs = {
        "g_a": (3, SIDE),
        "h_a": (M, SIDE // 16),
        "h_s": (N, SIDE // 64),
        "g_s": (M, SIDE // 16),
    }
    macs = {}
    for name, (channels, side) in inputs.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.get_submodule(name)(torch.empty(1, channels, side, side, device="meta"))
        macs[name] = counter.get_total_flops() / 2 / SIDE**2
    return Complexity(
        params=sum(parameter.numel() for parameter in ladder.parameters()),
        macs_per_pixel=sum(macs.values()),
        encoder_macs_per_pixel=macs["g_a"] + macs["h_a"] + macs["h_s"],
        decoder_macs_per_pixel=macs["h_s"] + macs["g_s"],
    )
