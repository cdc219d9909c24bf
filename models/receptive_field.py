"""How far around itself a transform looks, found by differentiating it."""

from __future__ import annotations

import copy

import torch
from torch import nn

REACH = 5  # blocks that are looked at on each side
LARGEST = 4  # blocks that a transform may look beyond its own


def margin(transform: nn.Module, channels: int, unit: int) -> int:
    """Blocks of 64 pixels beside its own that a block of the output depends on.

    Args:
        transform: g_a or g_s of a ladder.
        channels: of its input.
        unit: elements of its input a block and side.

    Raises:
        ValueError: it depends on more than 4; such a transform has to be computed at once.
    """
    blocks = 2 * REACH + 1
    torch.manual_seed(0)
    x = torch.rand(1, channels, blocks * unit, blocks * unit, requires_grad=True)
    y = copy.deepcopy(transform).cpu().float().eval().requires_grad_(False)(x)
    size = y.shape[-1] // blocks
    own = slice(REACH * size, (REACH + 1) * size)
    core = y[:, :, own, own]
    (gradient,) = torch.autograd.grad((core * torch.rand_like(core)).sum(), x)
    seen = gradient[0].abs().sum(dim=0).view(blocks, unit, blocks, unit).sum(dim=(1, 3)).nonzero()
    reach = int((seen - REACH).abs().max())
    if reach > LARGEST:
        raise ValueError(f"a block of its output depends on more than {LARGEST} blocks around it")
    return reach
