"""Families `feds-teacher` and `feds-student`, after FEDS (https://arxiv.org/abs/2503.06399). Its networks are not
public, so these follow its text and are not a reproduction.

The text describes the teacher: Swin-V2 attention, more residual blocks and a wider latent than the student, an entropy
model without a scan over positions. Widths, the number of blocks and their places are ours; residual blocks are those
of Cheng et al. 2020 (https://arxiv.org/abs/2001.01568). There are none at stride 2, since one there would cost half as
much as all the rest. The student has none, since those at stride 4 took half of the analysis' time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compressai.layers import GDN, ResidualBlock, ResidualBlockWithStride, conv3x3
from compressai.models.utils import conv, deconv
from torch import nn

from models.families import Kind
from models.grouped_hyperprior import GroupedHyperprior
from models.swin import SwinPair

SHARES = (20, 20, 10, 5)  # 1/20, 1/20, 1/10 and 1/5 of the channels, then the rest: ELIC's 16, 16, 32, 64, 192 of 320


@dataclass(frozen=True, kw_only=True)
class Depth:
    """The blocks of g_a, and of g_s."""

    residual_down: bool  # to strides 4 and 8 by residual blocks, else by convolutions
    residual_4: int  # residual blocks at stride 4
    residual_8: int
    attention_8: int  # pairs of Swin-V2 blocks at stride 8
    attention_16: int  # on y itself


TEACHER = Depth(residual_down=True, residual_4=1, residual_8=2, attention_8=1, attention_16=1)
STUDENT = Depth(residual_down=False, residual_4=0, residual_8=0, attention_8=1, attention_16=0)


def build_teacher(*, N: int, M: int, Z: int, kind: Kind) -> Any:
    """N hidden channels, M of y (at least 5), Z of z and of the hyper-transforms; `kind` changes nothing."""
    return _network(N, M, Z, TEACHER)


def build_student(*, N: int, M: int, Z: int, kind: Kind) -> Any:
    """The student: the teacher's design with fewer blocks; see `build_teacher`."""
    return _network(N, M, Z, STUDENT)


def group_sizes(M: int) -> tuple[int, ...]:
    """Channels of y's five groups. The first are small: the later ones are predicted from them."""
    first = [max(1, M // share) for share in SHARES]
    return (*first, M - sum(first))


def _network(N: int, M: int, Z: int, depth: Depth) -> GroupedHyperprior:
    def down() -> list[nn.Module]:
        return [ResidualBlockWithStride(N, N)] if depth.residual_down else [conv3x3(N, N, stride=2), GDN(N)]

    def residual(count: int) -> list[nn.Module]:
        return [ResidualBlock(N, N) for _ in range(count)]

    def attention(count: int, channels: int, window: int) -> list[nn.Module]:
        return [SwinPair(channels, window) for _ in range(count)]

    g_a = nn.Sequential(
        nn.Sequential(conv(3, N), GDN(N)),
        nn.Sequential(*down(), *residual(depth.residual_4)),
        nn.Sequential(*down(), *residual(depth.residual_8), *attention(depth.attention_8, N, window=8)),
        nn.Sequential(conv3x3(N, M, stride=2), *attention(depth.attention_16, M, window=4)),
    )
    g_s = nn.Sequential(
        nn.Sequential(
            *attention(depth.attention_16, M, window=4),
            deconv(M, N),
            GDN(N, inverse=True),
            *residual(depth.residual_8),
            *attention(depth.attention_8, N, window=8),
        ),
        nn.Sequential(deconv(N, N), GDN(N, inverse=True), *residual(depth.residual_4)),
        nn.Sequential(deconv(N, N), GDN(N, inverse=True)),
        nn.Sequential(deconv(N, 3)),
    )
    return GroupedHyperprior(g_a=g_a, g_s=g_s, Z=Z, groups=group_sizes(M))
