"""Pixels as networks read them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orchestrator.photographs.crops import Crop, cut
from orchestrator.photographs.photos import Photograph, load_rgb


def to_tensor(rgb: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in 0..1."""
    return torch.tensor(rgb).permute(2, 0, 1).float().div(255)


def cut_tensor(photograph: Photograph, crop: Crop) -> Tensor:
    """A crop of a photograph, float32 [3, size, size] in 0..1. Raises PhotographError."""
    return to_tensor(cut(load_rgb(photograph), crop))
