"""Outputs of named submodules, caught during a forward pass, and their reductions for losses.

A tap is a dotted module path and a reduction, `g_a.3:spatial`. Teacher and student use the same `reduced`, so stored
features of a teacher can be compared with those of a student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

REDUCTIONS = ("spatial", "channel", "raw")


class TapPathError(LookupError):
    """A tap's path that leads to no module, or to one that gives no feature map."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path


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
def tapped(module: nn.Module, paths: Iterable[str], inputs: Iterable[str] = ()) -> Iterator[dict[str, Tensor]]:
    """Catches the outputs of the submodules at `paths` (dotted, as in `named_modules`) inside the block.

    Yields a dict that each forward fills: path -> that submodule's latest output, still attached to the graph; for each
    path of `inputs`, under `PATH<`, the first argument that the submodule was called with.

    Raises:
        TapPathError: a path leads to no submodule; raised before the block is entered.
    """
    outputs: dict[str, Tensor] = {}
    submodules = {path: _submodule(module, path) for path in paths}
    readers = {path: _submodule(module, path) for path in inputs}

    def keep(path: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            outputs[path] = output

        return hook

    def keep_input(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            outputs[f"{path}<"] = arguments[0]

        return hook

    handles = [submodule.register_forward_hook(keep(path)) for path, submodule in submodules.items()]
    handles += [submodule.register_forward_pre_hook(keep_input(path)) for path, submodule in readers.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _submodule(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise TapPathError(path, "is no module") from None
