"""Multiply-accumulates per pixel, counted with torch's FlopCounterMode on tensors that hold no data."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.grouped_hyperprior import GroupedHyperprior
from models.ladder import RateLadder

SIDE = 256  # pixels; every stride and window divides it, so the figures are the same at every multiple of 64


@dataclass(frozen=True, kw_only=True)
class Macs:
    """MACs per pixel of the photograph for each part of a network: convolutions (also GDN's), linear layers, attention.

    Swin-V2's position bias is included, less than 20 MACs per pixel and block: it depends only on the weights, but is
    computed in every forward pass.
    """

    g_a: float
    h_a: float
    h_s: float
    channel_groups: float  # the networks behind the entropy model's scales and means; 0 where h_s gives these
    g_s: float

    @property
    def encoder(self) -> float:
        """MACs per pixel; the encoder computes the entropy model's parameters too."""
        return self.g_a + self.h_a + self.h_s + self.channel_groups

    @property
    def decoder(self) -> float:
        """MACs per pixel."""
        return self.h_s + self.channel_groups + self.g_s

    @property
    def total(self) -> float:
        """MACs per pixel, each part once."""
        return self.g_a + self.h_a + self.h_s + self.channel_groups + self.g_s


def count(ladder: RateLadder) -> Macs:
    """The MACs of coding and decoding one photograph at one rate point.

    The networks of a fixed-lambda ladder are equally large, and a photograph uses one of them.
    """
    network = copy.deepcopy(ladder.networks[0]).to("meta")

    def of(part: str, *shapes: tuple[int, int]) -> float:
        inputs = [torch.empty(1, channels, side, side, device="meta") for channels, side in shapes]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.get_submodule(part)(*inputs)
        return counter.get_total_flops() / 2 / SIDE**2

    y, z, hyper = (ladder.M, SIDE // 16), (ladder.Z, SIDE // 64), (2 * ladder.M, SIDE // 16)
    return Macs(
        g_a=of("g_a", (3, SIDE)),
        h_a=of("h_a", y),
        h_s=of("h_s", z),
        channel_groups=of("channel_groups", hyper, y) if isinstance(network, GroupedHyperprior) else 0.0,
        g_s=of("g_s", y),
    )
