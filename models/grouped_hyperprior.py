"""A codec whose latent is coded in groups of channels; the FEDS and transformer families use it.

Scales and means of a group come from the hyperprior and from the groups before it (Minnen and Singh 2020,
https://arxiv.org/abs/2007.08739; groups of rising size as in ELIC, https://arxiv.org/abs/2203.10886). Within a group
all positions and channels are coded at once, so a decoder takes as many steps as there are groups, whatever the size of
the photograph.

Variable rate: y is multiplied by a gain before the hyper-analysis, and y_hat divided by it before g_s. The hyperprior
and the groups' networks always see the latent in quantisation steps, the unit of their scales and means. So one set of
weights serves all gains, and z takes fewer bits at low rates. (CompressAI's variable-rate networks have no groups to
condition on; they take y without its gain and multiply their scales by it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from compressai.ans import RansDecoder, RansEncoder
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import conv3x3
from compressai.models import CompressionModel
from compressai.models.utils import conv, deconv
from torch import Tensor, nn


class Output(TypedDict):
    """What `GroupedHyperprior.forward` returns, and CompressAI's networks at least."""

    x_hat: Tensor  # [B, 3, H, W]
    likelihoods: dict[str, Tensor]  # of `y` [B, M, H/16, W/16] and `z` [B, Z, H/64, W/64]


class Compressed(TypedDict):
    """What CompressAI's networks return for a compressed batch, and ours too."""

    strings: list[list[bytes]]  # B strings of y, then B strings of z
    shape: Sequence[int]  # height and width of z


class ChannelGroups(nn.Module):
    """Scales and means of y, one group after another.

    Args:
        sizes: channels of each group; with one group they are the hyperprior's M scales and M means.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        M = sum(sizes)
        hidden = M // 2
        self.networks = nn.ModuleList()
        for index, size in enumerate(self.sizes if len(self.sizes) > 1 else ()):
            self.networks.append(
                nn.Sequential(
                    conv3x3(2 * M + sum(self.sizes[:index]), hidden),
                    nn.LeakyReLU(inplace=True),
                    conv3x3(hidden, hidden),
                    nn.LeakyReLU(inplace=True),
                    nn.Conv2d(hidden, 2 * size, kernel_size=1),
                )
            )

    def parameters_of(self, hyper: Tensor, before: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scales and means, [B, size, h, w] each, of the next group.

        Args:
            hyper: [B, 2 * M, h, w], the hyper-synthesis' output.
            before: the groups before it, quantised.
        """
        seen = torch.cat((hyper, *before), dim=1)
        scales, means = (self.networks[len(before)](seen) if self.networks else seen).chunk(2, dim=1)
        return scales, means

    def forward(self, hyper: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means, [B, M, h, w] each, of all groups of a quantised latent [B, M, h, w]."""
        before = y_hat.split(self.sizes, dim=1)
        groups = [self.parameters_of(hyper, before[:index]) for index in range(len(self.sizes))]
        scales, means = zip(*groups, strict=True)
        return torch.cat(scales, dim=1), torch.cat(means, dim=1)


class GroupedHyperprior(CompressionModel):
    """Transforms of stride 16 around a hyperprior of stride 64 and channel groups.

    Args:
        g_a: [B, 3, H, W] in 0..1 -> y [B, M, H/16, W/16].
        g_s: its counterpart, y_hat -> x_hat.
        Z: channels of the hyper-latent.
        groups: channels of each group of y; they sum to M.
    """

    def __init__(self, *, g_a: nn.Sequential, g_s: nn.Sequential, Z: int, groups: Sequence[int]) -> None:
        super().__init__()
        M = sum(groups)
        self.g_a, self.g_s = g_a, g_s
        self.h_a = nn.Sequential(
            conv3x3(M, Z), nn.LeakyReLU(inplace=True), conv(Z, Z), nn.LeakyReLU(inplace=True), conv(Z, Z)
        )
        self.h_s = nn.Sequential(
            deconv(Z, Z), nn.LeakyReLU(inplace=True), deconv(Z, M), nn.LeakyReLU(inplace=True), conv3x3(M, 2 * M)
        )
        self.entropy_bottleneck = EntropyBottleneck(Z)
        self.gaussian_conditional = GaussianConditional(None)
        self.channel_groups = ChannelGroups(groups)

    def forward(self, x: Tensor, gain: float = 1.0) -> Output:
        """Codes a batch.

        In training the likelihoods are of a latent with uniform noise, and g_s and the groups' networks get rounded
        values with straight-through gradients.

        Args:
            x: [B, 3, H, W] in 0..1, H and W multiples of 64.
            gain: inverse quantisation step of y.
        """
        y = self.g_a(x) * gain
        z = self.h_a(y)
        _, z_likelihoods = self.entropy_bottleneck(z)
        hyper = self.h_s(self._rounded(z, self.entropy_bottleneck._get_medians()))
        y_hat: list[Tensor] = []
        parameters = []
        for group in y.split(self.channel_groups.sizes, dim=1):
            parameters.append(self.channel_groups.parameters_of(hyper, y_hat))
            y_hat.append(self._rounded(group, parameters[-1][1]))
        scales, means = (torch.cat(groups, dim=1) for groups in zip(*parameters, strict=True))
        _, y_likelihoods = self.gaussian_conditional(y, scales, means=means)
        x_hat = self.g_s(torch.cat(y_hat, dim=1) / gain)
        return {"x_hat": x_hat, "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}

    def _rounded(self, values: Tensor, centre: Tensor) -> Tensor:
        """Rounds to whole steps from `centre`; in training with the gradient of the values before rounding."""
        whole = (values - centre).round() + centre
        return values + (whole - values).detach() if self.training else whole

    def compress(self, x: Tensor, gain: float = 1.0) -> Compressed:
        """The strings of a batch [B, 3, H, W] in 0..1, H and W multiples of 64. Call `update` before."""
        y = self.g_a(x) * gain
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        shape = z.shape[-2:]
        hyper = self.h_s(self.entropy_bottleneck.decompress(z_strings, shape))
        symbols, indexes = [], []
        y_hat: list[Tensor] = []
        for group in y.split(self.channel_groups.sizes, dim=1):
            scales, means = self.channel_groups.parameters_of(hyper, y_hat)
            symbols.append((group - means).round())
            indexes.append(self._indexes(scales))
            y_hat.append(symbols[-1] + means)
        tables = self._tables()
        y_strings = [
            RansEncoder().encode_with_indexes(*lists, *tables)
            for lists in zip(_lists(torch.cat(symbols, dim=1)), _lists(torch.cat(indexes, dim=1)), strict=True)
        ]
        return {"strings": [y_strings, z_strings], "shape": shape}

    def decompress(self, strings: list[list[bytes]], shape: Sequence[int], gain: float = 1.0) -> dict[str, Tensor]:
        """The inverse of `compress`: {"x_hat": [B, 3, H, W] clamped to 0..1}."""
        hyper = self.h_s(self.entropy_bottleneck.decompress(strings[1], shape))
        tables = self._tables()
        decoders = []
        for string in strings[0]:
            decoders.append(RansDecoder())
            decoders[-1].set_stream(string)
        y_hat: list[Tensor] = []
        for _ in self.channel_groups.sizes:
            scales, means = self.channel_groups.parameters_of(hyper, y_hat)
            symbols = [
                decoder.decode_stream(indexes, *tables)
                for decoder, indexes in zip(decoders, _lists(self._indexes(scales)), strict=True)
            ]
            y_hat.append(means.new_tensor(symbols).view_as(means) + means)
        return {"x_hat": self.g_s(torch.cat(y_hat, dim=1) / gain).clamp(0, 1)}

    def _indexes(self, scales: Tensor) -> Tensor:
        """The index of the cumulative distribution for each scale."""
        gaussian = self.gaussian_conditional
        return torch.bucketize(gaussian.lower_bound_scale(scales), gaussian.scale_table[:-1])

    def _tables(self) -> tuple[list[list[int]], list[int], list[int]]:
        """Cumulative distributions, their lengths and offsets, for the range coder.

        Without the padding, which is six sevenths of the entries: the range coder copies them in every call.
        """
        gaussian = self.gaussian_conditional
        lengths = gaussian.cdf_length.tolist()
        rows = [row[:length].tolist() for row, length in zip(gaussian.quantized_cdf, lengths, strict=True)]
        return rows, lengths, gaussian.offset.tolist()


def _lists(values: Tensor) -> list[list[int]]:
    return values.flatten(start_dim=1).int().tolist()
