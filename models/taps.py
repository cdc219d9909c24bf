"""Outputs of named submodules, caught during a forward pass, and their reductions for losses.

A tap is a dotted module path and a reduction, `g_a.3:spatial`. Teacher and student use the same `reduced`, so stored
features of a teacher can be compared with those of a student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

REDUCTIONS = ("spatial", "channel", "raw")


def reduced(feature: Tensor, reduction: str) -> Tensor:
    """A feature map [B, C, h, w] reduced for a loss, float32.

    `spatial`: the attention map [B, 1, h, w], mean over channels of F^2 (attention transfer, arXiv 1612.03928), which
    networks of different widths share. `channel`: its counterpart [B, C, 1, 1], mean over positions of F^2. `raw`, or
    the name of a latent: unchanged.
    """
    feature = feature.float()
    if reduction == "spatial":
        return feature.square().mean(dim=1, keepdim=True)
    if reduction == "channel":
        return feature.square().mean(dim=(2, 3), keepdim=True)
    return feature


@contextmanager
def tapped(module: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Catches what the submodules at `paths` (dotted, as in `named_modules`) emit inside the block.

    Yields a dict that each forward fills: path -> that submodule's latest output, still attached to the graph.

    Raises:
        AttributeError: a path names no submodule.
    """
    outputs: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            outputs[path] = output

        return hook

    handles = [module.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
