"""Rate ladders: one codec that serves several rate points.

BD-rate needs a curve, so a ladder of rate points is trained and compared, never one network at one lambda. It is either
one variable-rate network, whose latent is multiplied by a gain before it is rounded (CompressAI's `vbr` models,
https://arxiv.org/abs/2402.18930, and our own families), or one network per lambda. The trade-off of rate point i is
`bpp + lambdas[i] * distortion`, with a distortion of 255^2 * MSE or of 1 - MS-SSIM.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models import feds, hyperprior, mean_scale, transformer
from models.bottleneck import Bottleneck
from models.families import Distortion, Kind
from models.grouped_hyperprior import Compressed, GroupedHyperprior
from models.plain_number import Numeric, plain_number, shown, whole_number
from models.taps import TapPathError, reduced, tapped
from models.transform import Transform

BUILDERS = {
    "hyperprior": hyperprior.build,
    "mean-scale": mean_scale.build,
    "feds-teacher": feds.build_teacher,
    "feds-student": feds.build_student,
    "transformer": transformer.build,
}
MODULES = {"y": "g_a", "z": "h_a", "y_hat": "g_s<"}  # named taps that are outputs of modules, or (<) what one reads
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


class RateLadder(nn.Module):
    """A codec with rate points 0 .. len(lambdas) - 1, the lowest rate first.

    Args:
        family: one of `models.families.FAMILIES`.
        N: channels of the transforms' hidden layers.
        M: channels of the latent y.
        Z: channels of the hyper-latent z and of the hyper-transforms' hidden layers; None: N.
        encoder_N: channels of g_a's hidden layers; None: N.
        lambdas: the trade-off of each rate point, rising.
        kind: `variable-rate` or `fixed-lambda`.
        distortion: what the lambdas weigh, for training and evaluation. The network does not depend on it.

    Numbers may be those of any library (`models.plain_number`); they are kept as Python's.

    Raises:
        KeyError: no such family.
        ValueError: what should be a number is none, or N, M or Z is not whole.
    """

    networks: Any  # a ModuleList; most of its networks are CompressAI's, whose attributes have no types

    def __init__(
        self,
        *,
        family: str,
        N: int,
        M: int,
        Z: int | None = None,
        encoder_N: int | None = None,
        lambdas: Iterable[Numeric],
        kind: Kind = "variable-rate",
        distortion: Distortion = "mse",
    ) -> None:
        super().__init__()
        N, M, Z = whole_number(N, "N"), whole_number(M, "M"), whole_number(N if Z is None else Z, "Z")
        self.family, self.N, self.M, self.Z, self.kind = family, N, M, Z, kind
        self.lambdas, self.distortion = tuple(plain_number(value) for value in lambdas), distortion
        count = len(self.lambdas) if kind == "fixed-lambda" else 1
        networks: list[Any] = [BUILDERS[family](N=N, M=M, Z=Z, kind=kind) for _ in range(count)]
        self.encoder_N = N if encoder_N is None else whole_number(encoder_N, "encoder_N")
        for network in networks if self.encoder_N != N else ():
            network.g_a = BUILDERS[family](N=self.encoder_N, M=M, Z=Z, kind=kind).g_a
        for network in networks:
            network.g_a, network.g_s = Transform(*network.g_a), Transform(*network.g_s)
            Bottleneck.adopt(network.entropy_bottleneck)
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

    def compile_transforms(self, backend: str = "inductor") -> None:
        """From now on g_a and g_s are compiled when they are trained; that takes a C++ compiler, and up to minutes.

        A forward with taps inside them runs uncompiled. The weights' names stay as they are.

        Args:
            backend: torch.compile's.
        """
        for network in self.networks:
            network.g_a.compiler = network.g_s.compiler = backend

    def rate_point(self, value: Numeric) -> int | float:
        """A rate point of this ladder, as Python's own number.

        Args:
            value: any library's whole number is an index into `lambdas`, any other real number a gain above 0, which a
                variable-rate ladder alone has.

        Raises:
            ValueError: it is neither; one line.
        """
        last = len(self.lambdas) - 1
        try:
            number = plain_number(value)
        except ValueError as error:
            gain = "" if self.kind == "fixed-lambda" else ", or a gain"
            raise ValueError(f"rate point {error}: a whole number from 0 to {last}{gain}") from None
        if isinstance(number, int):
            if not 0 <= number <= last:
                raise ValueError(f"rate point {shown(number)} is not one of 0 to {last}")
        elif self.kind == "fixed-lambda":
            raise ValueError(f"gain {number}: a rate point of a fixed-lambda ladder is a whole number from 0 to {last}")
        elif not 0 < number < math.inf:
            raise ValueError(f"gain {number} is not a number above 0")
        return number

    def network_of(self, rate_point: int | float) -> int:
        """The index in `networks` of the one that serves a rate point, as `rate_point` returns it."""
        return int(rate_point) if self.kind == "fixed-lambda" else 0

    def _at(self, rate_point: Numeric, stage: int = 2) -> tuple[Any, dict[str, float | Tensor]]:
        """The network of a rate point and the arguments that set it to that rate and stage of training."""
        rate_point = self.rate_point(rate_point)
        network = self.networks[self.network_of(rate_point)]
        if self.kind == "fixed-lambda":
            return network, {}
        if isinstance(network, GroupedHyperprior):
            gain = self.gains[rate_point] if isinstance(rate_point, int) else rate_point
            return network, {"gain": 1.0 if stage == 1 else gain}
        rate = (
            {"s": rate_point} if isinstance(rate_point, int) else {"inputscale": network.Gain.new_tensor([rate_point])}
        )
        return network, {**rate, "stage": stage}

    def forward(self, x: Tensor, rate_point: Numeric, stage: int = 2, taps: Sequence[str] = ()) -> LadderOutput:
        """Codes a batch, with the quantiser's proxy in training and rounding otherwise.

        Args:
            x: [B, 3, H, W] in 0..1, H and W multiples of 64.
            rate_point: see the method of this name (no gain in training).
            stage: of a variable-rate network's training; 1 trains at gain 1, 2 at `rate_point`. The input of g_s is
                rounded with straight-through gradients, but in stage 1 of CompressAI's networks the latent with uniform
                noise.
            taps: what else to return: `z`; `y_hat`, the quantised latent that g_s reads; `entropy` [B, M, 1, 1], the
                bits per position of each channel of y; or a module's path in the rate point's network and a reduction,
                such as `g_a.3:spatial` (see models/taps.py).

        Returns:
            x_hat [B, 3, H, W]; y [B, M, H/16, W/16], the latent before gain and quantiser; likelihoods of `y` and `z`;
            each of the taps by its name, float32.

        Raises:
            TapPathError: a tap's path leads to no module, or to one that gives no feature map.
            ValueError: no such rate point.
        """
        network, setting = self._at(rate_point, stage)
        paths = {tap: MODULES.get(tap) or tap.rpartition(":")[0] for tap in {"y", *taps} - {"x_hat", "entropy"}}
        read = {path.removesuffix("<") for path in paths.values() if path.endswith("<")}
        with tapped(network, {path for path in paths.values() if not path.endswith("<")}, read) as outputs:
            coded = network(x, **setting)
        if "entropy" in taps:
            coded["entropy"] = -coded["likelihoods"]["y"].log2().mean(dim=(2, 3), keepdim=True)
        for tap, path in paths.items():
            feature = outputs.get(path)  # None: the module took no part
            if not isinstance(feature, Tensor) or feature.ndim != 4:
                raise TapPathError(path, "gives no feature map [B, C, h, w]")
            coded[tap] = reduced(feature, tap.rpartition(":")[2])
        return coded

    def apart(
        self, x: Tensor | None, latent: Tensor | None, rate_point: Numeric, parts: Collection[str] = ("g_a", "g_s")
    ) -> LadderOutput:
        """The transforms by themselves: the analysis of a batch, and the synthesis of another network's latent.

        Args:
            x: [B, 3, H, W] in 0..1, H and W multiples of 64; None: g_a does not run.
            latent: [B, M, H/16, W/16], quantised, as a network of this kind reads it (the tap `y_hat`); None: g_s does
                not run.
            rate_point: see the method of this name.
            parts: which of the two run.

        Returns:
            y [B, M, H/16, W/16] of g_a; x_hat [B, 3, H, W] of g_s, from `latent`. No likelihoods: no entropy model
            takes part.

        Raises ValueError: no such rate point.
        """
        network, _ = self._at(rate_point)
        output: LadderOutput = {"y": network.g_a(x)} if "g_a" in parts else {}
        return output | ({"x_hat": network.g_s(latent)} if "g_s" in parts else {})

    def update(self) -> None:
        """Rebuilds the range coder's tables from the parameters; to be called before `compress`."""
        for network in self.networks:
            network.update(force=True)

    def compress(self, x: Tensor, rate_point: Numeric) -> Compressed:
        """The strings of a batch [B, 3, H, W] in 0..1, H and W multiples of 64. Call `update` before.

        Raises ValueError: no such rate point.
        """
        network, setting = self._at(rate_point)
        return network.compress(x, **setting)

    def decompress(self, strings: list[list[bytes]], shape: Sequence[int], rate_point: Numeric) -> dict[str, Tensor]:
        """The inverse of `compress`: {"x_hat": [B, 3, H, W] clamped to 0..1}."""
        network, setting = self._at(rate_point)
        return network.decompress(strings, tuple(shape), **setting)

    def quantiles(self) -> list[nn.Parameter]:
        """The quantiles of each network's entropy bottleneck, which `aux_loss` trains with a separate optimizer."""
        return [network.entropy_bottleneck.quantiles for network in self.networks]

    def aux_loss(self, network: int) -> Tensor:
        """The distance of a network's quantiles from the median and the tails of z's learned density, summed over
        channels."""
        loss: Tensor = self.networks[network].entropy_bottleneck.loss()
        return loss


def joined(encoder: RateLadder, decoder: RateLadder) -> RateLadder:
    """The analysis of one ladder before the entropy model and the synthesis of another, whose latent space it shares.

    Args:
        encoder: g_a is taken from.
        decoder: all else is taken from.

    Raises:
        ValueError: they differ in family, M, Z or rate points.
    """
    form = ("family", "M", "Z", "lambdas", "kind", "distortion")
    for name in form:
        own, other = getattr(encoder, name), getattr(decoder, name)
        if own != other:
            raise ValueError(f"an encoder of {name} {shown(own)} and a decoder of {name} {shown(other)} do not fit")
    pair = RateLadder(N=decoder.N, encoder_N=encoder.encoder_N, **{name: getattr(decoder, name) for name in form})
    of_encoder, of_decoder = dict(encoder.named_parameters()), dict(decoder.named_parameters())
    for name, parameter in pair.named_parameters():
        parameter.data.copy_((of_encoder if ".g_a." in name else of_decoder)[name].detach())
    return pair
