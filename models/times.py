"""Milliseconds of a network's transforms on this machine's processor, by one thread."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from models.grouped_hyperprior import GroupedHyperprior
from models.ladder import RateLadder

SIDE = 256  # pixels
RUNS = 7  # the fastest counts: other work on the machine only ever adds to a run


def measure(ladder: RateLadder) -> tuple[float, float]:
    """Encoding (all but g_s) and decoding (all but g_a and h_a) at one rate point, each in ms per 10^6 pixels.

    In float32, without the range coder, whose time is the same for all students of a latent space. Values do not
    matter.
    """
    network = ladder.networks[0]
    pixels, y = torch.rand(1, 3, SIDE, SIDE), torch.rand(1, ladder.M, SIDE // 16, SIDE // 16)
    z, hyper = torch.rand(1, ladder.Z, SIDE // 64, SIDE // 64), torch.rand(1, 2 * ladder.M, SIDE // 16, SIDE // 16)

    def entropy_parameters() -> None:
        network.h_s(z)
        if isinstance(network, GroupedHyperprior):
            network.channel_groups(hyper, y)

    def encode() -> None:
        network.g_a(pixels)
        network.h_a(y)
        entropy_parameters()

    def decode() -> None:
        entropy_parameters()
        network.g_s(y)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _fastest(encode), _fastest(decode)
    finally:
        torch.set_num_threads(threads)


def _fastest(run: Callable[[], None]) -> float:
    seconds = []
    for _ in range(1 + RUNS):  # the first one warms up
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return 1e3 * min(seconds[1:]) / (SIDE**2 / 1e6)
