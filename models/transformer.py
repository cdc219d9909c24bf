"""Family `transformer`: analysis and synthesis of Swin-V2 stages around a mean-scale hyperprior.

After SwinT-ChARM (Zhu et al. 2022, https://openreview.net/forum?id=IDwN6xjHnK8), made small: one width and one pair of
blocks at each stride, without blocks after the last merging and without channel groups.
"""

from __future__ import annotations

from typing import Any

from compressai.layers import subpel_conv3x3
from torch import nn

from models.families import Kind
from models.grouped_hyperprior import GroupedHyperprior
from models.swin import SwinPair


def build(*, N: int, M: int, Z: int, kind: Kind) -> Any:
    """N hidden channels, M of y, Z of z and of the hyper-transforms; `kind` changes nothing."""
    g_a = nn.Sequential(
        nn.Sequential(_merge(3, N), SwinPair(N, window=8)),
        nn.Sequential(_merge(N, N), SwinPair(N, window=8)),
        nn.Sequential(_merge(N, N), SwinPair(N, window=8)),
        nn.Sequential(_merge(N, M)),
    )
    g_s = nn.Sequential(
        nn.Sequential(_split(M, N), SwinPair(N, window=8)),
        nn.Sequential(_split(N, N), SwinPair(N, window=8)),
        nn.Sequential(_split(N, N), SwinPair(N, window=8)),
        nn.Sequential(subpel_conv3x3(N, 3, r=2)),  # 3x3, not 1x1: no later layer could smooth the seams of patches
    )
    return GroupedHyperprior(g_a=g_a, g_s=g_s, Z=Z, groups=(M,))


def _merge(channels: int, out: int) -> nn.Module:
    """Merges 2x2 positions into one by a linear map: [B, channels, h, w] -> [B, out, h/2, w/2]."""
    return nn.Conv2d(channels, out, kernel_size=2, stride=2)


def _split(channels: int, out: int) -> nn.Module:
    """Splits each position into 2x2 by a linear map: [B, channels, h, w] -> [B, out, 2h, 2w]."""
    return nn.ConvTranspose2d(channels, out, kernel_size=2, stride=2)
