"""The functions of the loss terms, and their weighted sum. Which term has which function: orchestrator/spec/terms.py.

The units are chosen so that weights compare. A distortion of the image counts as in the rate-distortion loss, lambda *
255^2 * MSE or lambda * (1 - MS-SSIM). A distortion of a latent counts in squared quantisation steps (y times its gain;
z has a step of 1), so that variable-rate and fixed-lambda networks compare. Attention is compared by unit vectors.

Each function takes a student's tensor and a teacher's of the same shape: where the networks differ in channels,
`learner.Learner` has mapped the student's to the teacher's.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from models.families import Distortion
from orchestrator.distill.targets import Pair
from orchestrator.spec.loss import LossWeights
from orchestrator.spec.terms import TERMS, Argument


def bits_per_pixel(likelihoods: Mapping[str, Tensor], pixels: int) -> Tensor:
    """sum over all latents of -log2(likelihood) / pixels, with `pixels` = B * H * W."""
    return torch.stack([value.log().sum() for value in likelihoods.values()]).sum() / (-math.log(2) * pixels)


def image_distortion(x_hat: Tensor, x: Tensor, lmbda: float, distortion: Distortion = "mse") -> Tensor:
    """lambda * 255^2 * MSE of two batches [B, 3, H, W] in 0..1; or lambda * (1 - MS-SSIM), the mean over images.

    MS-SSIM (Wang et al., 2003) is pytorch-msssim's, as CompressAI trains with it: H and W above 160.

    PRIM (arXiv 2509.10366) compares student and teacher by the plain MSE, thousands of times weaker than its
    rate-distortion loss.
    """
    if distortion == "mse":
        return lmbda * 255**2 * F.mse_loss(x_hat, x)
    from pytorch_msssim import ms_ssim

    similarity: Tensor = ms_ssim(x_hat, x, data_range=1.0)
    return lmbda * (1 - similarity)


def latent_distortion(y: Tensor, y_teacher: Tensor, gain: float = 1.0, teacher_gain: float = 1.0) -> Tensor:
    """MSE of two unquantised latents [B, M, h, w] in squared quantisation steps: mean((gain y - gain_t y_t)^2).

    PRIM compares the student's noisy y_hat with the teacher's rounded one, whose difference has a floor of 1/12; the
    unquantised latents have none.
    """
    return F.mse_loss(gain * y, teacher_gain * y_teacher)


def latent_divergence(y: Tensor, y_teacher: Tensor, gain: float = 1.0, teacher_gain: float = 1.0) -> Tensor:
    """KL(softmax(gain_t y_t) || softmax(gain y)) over the channels of each position, in nats, the mean over positions.

    PRIM's other latent term. It divides by the channels too and takes the quantised latents.
    """
    student, teacher = F.log_softmax(gain * y, dim=1), F.log_softmax(teacher_gain * y_teacher, dim=1)
    return (teacher.exp() * (teacher - student)).sum(dim=1).mean()


def weighted_latent_distortion(
    y: Tensor, y_teacher: Tensor, channel_weights: Tensor, gain: float = 1.0, teacher_gain: float = 1.0
) -> Tensor:
    """sum_c w_c MSE(gain y_c, gain_t y_t,c), in squared quantisation steps; FEDS (arXiv 2503.06399), as read.

    Args:
        channel_weights: [M], each channel's share of the teacher's bits, w_c = H_c / sum H: they sum to 1. With all of
            them 1/M this is `latent_distortion`.
    """
    squares = (gain * y - teacher_gain * y_teacher).square().mean(dim=(0, 2, 3))
    return (channel_weights * squares).sum()


def attention_distance(attention: Tensor, attention_teacher: Tensor) -> Tensor:
    """||a / ||a|| - a_t / ||a_t|| ||^2 of two attention maps or vectors per crop, the mean over crops; 0 to 2.

    Attention transfer (arXiv 1612.03928) by the squared norm. FEDS, as read, compares where features are strong
    ([B, 1, h, w], the mean over channels of F^2) and which are strong ([B, C, 1, 1], the mean over positions of F^2).
    """
    student, teacher = (F.normalize(values.flatten(1), dim=1) for values in (attention, attention_teacher))
    return (student - teacher).square().sum(dim=1).mean()


@cache
def function_of(term: str) -> Callable[..., Tensor]:
    """The function that a term's row names. Raises KeyError, ImportError or AttributeError if there is none."""
    function: Callable[..., Tensor] = pkgutil.resolve_name(TERMS[term].function)
    return function


def distillation_terms(
    output: Mapping[str, Tensor | Mapping[str, Tensor]],
    x: Tensor,
    targets: Mapping[str, Tensor],
    *,
    lmbda: float,
    gain: float,
    teacher_gains: Mapping[str, float],
    distortion: Distortion = "mse",
    weights: LossWeights,
    pairs: Sequence[Pair],
    channel_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms that have a weight, and their weighted sum.

    loss = rate_distortion * (bpp + image_distortion(x_hat, x)) + the sum over terms of weight * term. In a phase of
    modules apart there is no bpp, as the rate is the teacher's, and nothing of a transform that did not run.

    Args:
        output: what `Learner.forward` returned for `x`.
        x: [B, 3, H, W] in 0..1.
        targets: the teacher's outputs for these crops by tap, at least those that terms with a weight read.
        lmbda, gain: of the student's rate point.
        teacher_gains: term -> gain of the rate point that its target is of.
        distortion: what lambda weighs.
        weights: of this phase.
        pairs: what each term compares; a term of several pairs is their sum.
        channel_weights: see `weighted_latent_distortion`.

    Returns:
        Scalars: `bpp` if there are likelihoods, `distortion` if there is an image, those terms of `TERMS` that have a
        weight, and `loss`.

    Raises:
        KeyError: a target is missing.
        ValueError: a term with a weight has no pair, or needs channel weights and there are none.
    """
    student: Mapping[str, Tensor] = output  # type: ignore[assignment] # all but the likelihoods are tensors
    terms = {"distortion": image_distortion(student["x_hat"], x, lmbda, distortion)} if "x_hat" in student else {}
    if "likelihoods" in output:
        likelihoods: Mapping[str, Tensor] = output["likelihoods"]  # type: ignore[assignment]
        terms = {"bpp": bits_per_pixel(likelihoods, x.shape[0] * x.shape[2] * x.shape[3]), **terms}
    loss = weights.rate_distortion * torch.stack([*terms.values()]).sum() if terms else x.new_zeros(())
    shared: dict[Argument, object] = {"gain": gain, "channel_weights": channel_weights}
    shared |= {"lmbda": lmbda, "distortion": distortion}
    for pair in pairs:
        weight = weights.of_teacher.get(pair.term)
        if weight is None:
            continue
        available = {**shared, "teacher_gain": teacher_gains[pair.term]}
        value = _term_value(pair, student[pair.student], targets[pair.teacher], available)
        terms[pair.term] = terms[pair.term] + value if pair.term in terms else value
        loss = loss + weight * value
    not_run = {"y", "x_hat"} - output.keys()
    without_pair = sorted({name for name in weights.of_teacher if TERMS[name].reads not in not_run} - terms.keys())
    if without_pair:
        raise ValueError(f"nothing to compare for {', '.join(without_pair)}, which has a weight")
    return {**terms, "loss": loss}


def _term_value(pair: Pair, student: Tensor, target: Tensor, available: Mapping[Argument, object]) -> Tensor:
    """A term's value for one pair, a scalar; of the arguments that are available its function gets those it takes.

    Raises:
        ValueError: the function takes channel weights and there are none.
    """
    arguments = {name: available[name] for name in TERMS[pair.term].takes}
    if "channel_weights" in arguments and arguments["channel_weights"] is None:
        raise ValueError(f"{pair.term} needs channel_weights")
    return function_of(pair.term)(student, target, **arguments)
