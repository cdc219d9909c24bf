"""Analysis and synthesis transforms: what they compute in, and whether they are compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn

COMPILED_FORMS = 256  # at most, of a process: widths, precisions, and which parameters are trained


class Transform(nn.Sequential):
    """An analysis or synthesis transform that may run in bf16 while everything around it stays in fp32.

    In bf16 likelihoods have a granularity of 0.002 to 0.004 and integers above 256 are not exact, so quantiser and
    entropy models need fp32 inputs: autocast ends with this module.
    """

    precision: torch.dtype = torch.float32
    compiler: str | None = None  # torch.compile's backend for the layers in training; None: they are not compiled

    def forward(self, x: Tensor) -> Tensor:
        """The layers one after the other; the output is float32."""
        if self.precision is torch.float32:
            return self._layers(x)
        with torch.autocast(x.device.type, dtype=self.precision):
            y = self._layers(x)
        return y.float()

    def _layers(self, x: Tensor) -> Tensor:
        # Validation has other shapes, and compiled code does not call the hooks that read inside: see models/taps.py.
        compiled = self.compiler is not None and self.training and torch.is_grad_enabled() and not self._read_inside
        return compiled_layers(self.compiler)(self, x) if compiled else _run(self, x)

    @property
    def _read_inside(self) -> bool:
        """Whether somebody reads what a module within puts out or gets."""
        within = (module for module in self.modules() if module is not self)
        return any(module._forward_hooks or module._forward_pre_hooks for module in within)


def _run(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


@cache
def compiled_layers(backend: str | None) -> Callable[[Transform, Tensor], Tensor]:
    """`_run` by torch.compile: one function for all transforms, so that weights keep their names, and a transform of
    a form that was compiled before need not be compiled again."""
    torch._dynamo.config.recompile_limit = COMPILED_FORMS
    # fullgraph: without it torch would leave out what it cannot compile, and not say so
    compiled: Callable[[Transform, Tensor], Tensor] = torch.compile(
        _run, backend=backend or "inductor", fullgraph=True, dynamic=False
    )
    return compiled
