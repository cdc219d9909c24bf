"""Rate ladders: one codec that serves several rate points.

BD-rate needs a curve, so a ladder of rate points is trained and compared, never one network at one lambda. It is either
one variable-rate network, whose latent is multiplied by a gain before it is rounded (CompressAI's `vbr` models,
https://arxiv.org/abs/2402.18930, and our own families), or one network per lambda. The trade-off of rate point i is
`bpp + lambdas[i] * distortion`, with a distortion of 255^2 * MSE or of 1 - MS-SSIM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models import feds, hyperprior, mean_scale, transformer
from models.families import Distortion, Kind
from models.grouped_hyperprior import Compressed, GroupedHyperprior
from models.taps import TapPathError, reduced, tapped

BUILDERS = {
    "hyperprior": hyperprior.build,
    "mean-scale": mean_scale.build,
    "feds-teacher": feds.build_teacher,
    "feds-student": feds.build_student,
    "transformer": transformer.build,
}
MODULES = {"y": "g_a", "z": "h_a"}  # named taps that are outputs of modules
STRIDE = 64  # pixels a side of one element of the hyper-latent z: inputs are multiples of it

LadderOutput = dict[str, Tensor | dict[str, Tensor]]  # tensors by name, and `likelihoods`, which are a dict of tensors


def ladder_gains(kind: str, lambdas: Sequence[float]) -> tuple[float, ...]:
    """Inverse quantisation step of y at each rate point: 1 with one network per lambda, else sqrt(lambda / highest).

    CompressAI's own gains have eight levels up to lambda 0.18. Relative to the highest lambda in use, the highest rate
    point has gain 1, which stage 1 trains at; the optimal quantisation step is proportional to lambda^-1/2.
    """
    if kind == "fixed-lambda":
        return (1.0,) * len(lambdas)
    return tuple(math.sqrt(value / lambdas[-1]) for value in lambdas)


class Transform(nn.Sequential):
    """An analysis or synthesis transform that may run in bf16 while everything around it stays in fp32.

    In bf16 likelihoods have a granularity of 0.002 to 0.004 and integers above 256 are not exact, so quantiser and
    entropy models need fp32 inputs: autocast ends with this module.
    """

    precision: torch.dtype = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """The layers one after the other; the output is float32."""
        if self.precision is torch.float32:
            return super().forward(x)
        with torch.autocast(x.device.type, dtype=self.precision):
            y = super().forward(x)
        return y.float()


class RateLadder(nn.Module):
    """A codec with rate points 0 .. len(lambdas) - 1, the lowest rate first.

    Args:
        family: one of `models.families.FAMILIES`.
        N: channels of the transforms' hidden layers.
        M: channels of the latent y.
        Z: channels of the hyper-latent z and of the hyper-transforms' hidden layers; None: N.
        lambdas: the trade-off of each rate point, rising.
        kind: `variable-rate` or `fixed-lambda`.
        distortion: what the lambdas weigh, for training and evaluation. The network does not depend on it.

    Raises:
        KeyError: no such family.
    """

    networks: Any  # a ModuleList; most of its networks are CompressAI's, whose attributes have no types

    def __init__(
        self,
        *,
        family: str,
        N: int,
        M: int,
        Z: int | None = None,
        lambdas: Sequence[float],
        kind: Kind = "variable-rate",
        distortion: Distortion = "mse",
    ) -> None:
        super().__init__()
        self.family, self.N, self.M, self.Z, self.kind = family, N, M, Z or N, kind
        self.lambdas, self.distortion = tuple(lambdas), distortion
        count = len(self.lambdas) if kind == "fixed-lambda" else 1
        networks: list[Any] = [BUILDERS[family](N=N, M=M, Z=self.Z, kind=kind) for _ in range(count)]
        for network in networks:
            network.g_a, network.g_s = Transform(*network.g_a), Transform(*network.g_s)
        self.networks = nn.ModuleList(networks)
        first = networks[0]  # the only one, if variable-rate
        if kind == "variable-rate" and not isinstance(first, GroupedHyperprior):
            del first.Gain
            first.register_buffer("Gain", torch.tensor(ladder_gains(kind, self.lambdas)), persistent=False)
            first.levels = len(self.lambdas)
            first.lmbda = list(self.lambdas)

    @property
    def gains(self) -> tuple[float, ...]:
        """Inverse quantisation step of y at each rate point; see `ladder_gains`."""
        return ladder_gains(self.kind, self.lambdas)

    def set_precision(self, precision: torch.dtype) -> None:
        """Sets the type that g_a and g_s compute in; their outputs and everything else are fp32."""
        for network in self.networks:
            network.g_a.precision = network.g_s.precision = precision

    def _at(self, rate_point: int | float, stage: int = 2) -> tuple[Any, dict[str, float | Tensor]]:
        """The network of a rate point and the arguments that set it to that rate and stage of training."""
        if self.kind == "fixed-lambda":
            if not isinstance(rate_point, int):
                raise ValueError(
                    f"rate_point {rate_point!r}: a fixed-lambda ladder has no gain between its rate points"
                )
            return self.networks[rate_point], {}
        if isinstance(rate_point, int) and not 0 <= rate_point < len(self.lambdas):
            raise ValueError(f"rate_point {rate_point} is not one of 0 to {len(self.lambdas) - 1}")
        (network,) = self.networks
        if isinstance(network, GroupedHyperprior):
            gain = self.gains[rate_point] if isinstance(rate_point, int) else rate_point
            return network, {"gain": 1.0 if stage == 1 else gain}
        rate = {"s": rate_point} if isinstance(rate_point, int) else {"inputscale": torch.tensor([rate_point])}
        return network, {**rate, "stage": stage}

    def forward(self, x: Tensor, rate_point: int | float, stage: int = 2, taps: Sequence[str] = ()) -> LadderOutput:
        """Codes a batch, with the quantiser's proxy in training and rounding otherwise.

        Args:
            x: [B, 3, H, W] in 0..1, H and W multiples of 64.
            rate_point: an index into `lambdas`, or as a float any gain of a variable-rate network (not in training).
            stage: of a variable-rate network's training; 1 trains at gain 1, 2 at `rate_point`. The input of g_s is
                rounded with straight-through gradients, but in stage 1 of CompressAI's networks the latent with uniform
                noise.
            taps: what else to return: `z`; `entropy` [B, M, 1, 1], the bits per position of each channel of y; or a
                module's path in the rate point's network and a reduction, such as `g_a.3:spatial` (see models/taps.py).

        Returns:
            x_hat [B, 3, H, W]; y [B, M, H/16, W/16], the latent before gain and quantiser; likelihoods of `y` and `z`;
            each of the taps by its name, float32.

        Raises:
            TapPathError: a tap's path leads to no module, or to one that gives no feature map.
            ValueError: no such rate point.
        """
        network, setting = self._at(rate_point, stage)
        paths = {tap: MODULES.get(tap) or tap.rpartition(":")[0] for tap in {"y", *taps} - {"x_hat", "entropy"}}
        with tapped(network, set(paths.values())) as outputs:
            coded = network(x, **setting)
        if "entropy" in taps:
            coded["entropy"] = -coded["likelihoods"]["y"].log2().mean(dim=(2, 3), keepdim=True)
        for tap, path in paths.items():
            feature = outputs.get(path)  # None: the module took no part
            if not isinstance(feature, Tensor) or feature.ndim != 4:
                raise TapPathError(path, "gives no feature map [B, C, h, w]")
            coded[tap] = reduced(feature, tap.rpartition(":")[2])
        return coded

    def update(self) -> None:
        """Rebuilds the range coder's tables from the parameters; to be called before `compress`."""
        for network in self.networks:
            network.update(force=True)

    def compress(self, x: Tensor, rate_point: int | float) -> Compressed:
        """The strings of a batch [B, 3, H, W] in 0..1, H and W multiples of 64. Call `update` before.

        Raises ValueError: no such rate point.
        """
        network, setting = self._at(rate_point)
        return network.compress(x, **setting)

    def decompress(
        self, strings: list[list[bytes]], shape: Sequence[int], rate_point: int | float
    ) -> dict[str, Tensor]:
        """The inverse of `compress`: {"x_hat": [B, 3, H, W] clamped to 0..1}."""
        network, setting = self._at(rate_point)
        return network.decompress(strings, tuple(shape), **setting)

    def quantiles(self) -> list[nn.Parameter]:
        """The entropy bottlenecks' quantiles, which `aux_loss` trains with a separate optimizer."""
        return [parameter for name, parameter in self.named_parameters() if name.endswith(".quantiles")]

    def aux_loss(self) -> Tensor:
        """The distance of the quantiles from the median and the tails of z's learned density, summed over channels."""
        return torch.stack([network.aux_loss() for network in self.networks]).sum()
