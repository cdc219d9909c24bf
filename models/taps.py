"""Outputs of named submodules, caught while a forward runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def tapped(module: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
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
