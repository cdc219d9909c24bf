"""Terms of the distillation loss, as pure functions.

Units, so that weights compare: a distortion of the image is lambda * 255^2 * MSE, as in the rate-distortion loss
beside it, and a distortion of the latent is counted in quantisation steps (y times its gain), so that variable-rate
and fixed-lambda networks compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestrator.spec import LossWeights


def bits_per_pixel(likelihoods: Mapping[str, Tensor], pixels: int) -> Tensor:
    """sum over all latents of -log2(likelihood) / pixels, with `pixels` = B * H * W."""
    return torch.stack([value.log().sum() for value in likelihoods.values()]).sum() / (-math.log(2) * pixels)


def image_distortion(x_hat: Tensor, x: Tensor, lmbda: float) -> Tensor:
    """lambda * 255^2 * MSE of two batches [B, 3, H, W] in 0..1."""
    return lmbda * 255**2 * F.mse_loss(x_hat, x)


def latent_distortion(y: Tensor, y_teacher: Tensor, gain: float, teacher_gain: float) -> Tensor:
    """MSE of two unquantised latents [B, M, h, w] in squared quantisation steps: mean((gain y - gain_t y_t)^2).

    PRIM (arXiv 2509.10366) compares the student's noisy y_hat with the teacher's rounded one, whose difference has a
    floor of 1/12; the unquantised latents have none.
    """
    return F.mse_loss(gain * y, teacher_gain * y_teacher)


def distillation_terms(
    output: Mapping[str, Tensor],
    x: Tensor,
    targets: Mapping[str, Tensor],
    *,
    lmbda: float,
    gain: float,
    teacher_gain: float,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """The terms of PRIM's L1 (arXiv 2509.10366) that have a weight, and their weighted sum.

    L1 = rate_distortion * (bpp + lambda 255^2 MSE(x_hat, x)) + latent * MSE(gain y, gain_t y_t)
         + reconstruction * lambda 255^2 MSE(x_hat, x_hat_t)

    Args:
        output: what `RateLadder.forward` returned for `x`.
        x: [B, 3, H, W] in 0..1.
        targets: the teacher's `y` and `x_hat` for these crops at this rate point, as far as the weights need them.
        lmbda, gain, teacher_gain: of the rate point.

    Returns:
        Scalars `bpp`, `distortion`, then `latent` and `reconstruction` where they have a weight, and `loss`.
    """
    terms = {
        "bpp": bits_per_pixel(output["likelihoods"], x.shape[0] * x.shape[2] * x.shape[3]),  # type: ignore[arg-type]
        "distortion": image_distortion(output["x_hat"], x, lmbda),
    }
    loss = weights.rate_distortion * (terms["bpp"] + terms["distortion"])
    if weights.latent:
        terms["latent"] = latent_distortion(output["y"], targets["y"], gain, teacher_gain)
        loss = loss + weights.latent * terms["latent"]
    if weights.reconstruction:
        terms["reconstruction"] = image_distortion(output["x_hat"], targets["x_hat"], lmbda)
        loss = loss + weights.reconstruction * terms["reconstruction"]
    return {**terms, "loss": loss}
