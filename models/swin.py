"""Swin Transformer V2 blocks (https://arxiv.org/abs/2111.09883) on feature maps [B, C, h, w]."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformerBlockV2

MLP_RATIO = 2.0
HEAD_CHANNELS = 32


class SwinPair(nn.Sequential):
    """A block, and one with shifted windows: [B, channels, h, w] -> the same shape.

    Photographs come in multiples of 64 pixels, so windows of 8 at strides up to 8 and of 4 at stride 16 divide every
    feature map, and attention never meets padding.

    Args:
        channels: in and out; a head has 32 of them, or more where 32 does not divide them.
        window: positions a side.
    """

    def __init__(self, channels: int, window: int) -> None:
        heads = next(count for count in range(max(1, channels // HEAD_CHANNELS), 0, -1) if channels % count == 0)
        blocks = [
            SwinTransformerBlockV2(channels, heads, [window, window], [shift, shift], mlp_ratio=MLP_RATIO)
            for shift in (0, window // 2)
        ]
        for block in blocks:  # begin as the identity: the paper's "res-post-norm", which torchvision leaves out
            nn.init.zeros_(block.norm1.weight)
            nn.init.zeros_(block.norm2.weight)
        super().__init__(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
