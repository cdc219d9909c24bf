"""Which channels of a layer a narrower network keeps.

Three criteria; each gives the channels of a teacher's hidden layer that its student keeps:

- `activation`: the variance of a channel times the squared norm of the weights that read it.
- `sensitivity`: how much the rate-distortion loss would change, to first order, if the channel were replaced by its
  mean: the mean square over crops of sum((a - mean a) dJ/da) (Molchanov et al. 2019, "Importance Estimation for Neural
  Network Pruning", https://arxiv.org/abs/1906.10771).
- `redundancy`: channels are removed one after another, each time the one without which the next layer, whose other
  weights are refitted, changes its outputs least; an output counts by the loss's squared gradient there. This is
  structured Optimal Brain Surgeon (Hassibi and Stork 1992): of two channels that say the same, one goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.ladder import RateLadder
from orchestrator.distill.losses import bits_per_pixel, image_distortion
from orchestrator.distill.refit.least_squares import Convolution, weight_matrix


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What the teacher's loss says of a layer's output, by channel [C].

    Attributes:
        removal: mean square over crops of sum((a - mean a) dJ/da), `sensitivity`.
        error: mean square of dJ/da over crops and positions, times the positions: what a squared error there costs.
    """

    removal: Tensor
    error: Tensor


def sensitivities(
    teacher: RateLadder, batches: Sequence[tuple[Tensor, int]], layers: Sequence[nn.Module], seed: int = 0
) -> dict[nn.Module, Sensitivity]:
    """Of the outputs of some of a teacher's layers.

    The loss is that of training, divided by its value, so that all rate points count alike.

    Args:
        batches: crops [B, 3, H, W] in 0..1, and their rate point.
        seed: of the quantisation noise.
    """
    removal, error = ({layer: torch.zeros(()) for layer in layers} for _ in range(2))
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _kept_outputs(layers) as outputs:
        torch.manual_seed(seed)
        teacher.train()
        for x, rate_point in batches:
            coded = teacher(x, rate_point)
            bits = bits_per_pixel(coded["likelihoods"], x.shape[0] * x.shape[2] * x.shape[3])
            distortion = image_distortion(coded["x_hat"], x, teacher.lambdas[rate_point], teacher.distortion)
            loss = (bits + distortion).log() * len(x)  # the sum over crops
            gradients = torch.autograd.grad(loss, [outputs[layer] for layer in layers])
            for layer, gradient in zip(layers, gradients, strict=True):
                output = outputs[layer].detach()
                centred = output - output.mean(dim=(0, 2, 3), keepdim=True)
                removal[layer] = removal[layer] + (centred * gradient).sum(dim=(2, 3)).square().mean(dim=0)
                error[layer] = error[layer] + gradient.square().sum(dim=(2, 3)).mean(dim=0)
        teacher.eval()
    return {layer: Sensitivity(removal=removal[layer], error=error[layer]) for layer in layers}


def by_activation(outputs: Sequence[Tensor], reader: Convolution) -> Tensor:
    """The score of each channel of a layer's outputs [B, C, h, w], `activation`; [C].

    Args:
        reader: the layer that reads them.
    """
    variance = torch.stack([output.var(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    norms = weight_matrix(reader)[:-1].unflatten(0, (reader.in_channels, -1)).square().sum(dim=(1, 2))
    return variance * norms


def least_redundant(gram: Tensor, weights: Tensor, worth: Tensor, channels: int, keep: int) -> list[int]:
    """The channels that `redundancy` keeps, rising.

    Args:
        gram: of the reader's `NormalEquations` over the teacher's activations, ridged, float64.
        weights: the reader's matrix.
        worth: of each of its outputs [out channels].
        channels: of the layer.
        keep: how many.
    """
    inverse, weights = torch.linalg.inv(gram), weights.double() * worth.double().sqrt()
    size = (len(gram) - 1) // channels
    left = list(range(channels))
    while len(left) > keep:
        places = torch.arange(len(left) * size).view(len(left), size)  # of each channel's weights
        blocks = inverse[places[:, :, None], places[:, None]]
        of_channels = weights[:-1].view(len(left), size, -1)
        removals = torch.linalg.solve(blocks, of_channels)
        least = int((of_channels * removals).sum(dim=(1, 2)).argmin())
        others = torch.cat((places[:least].flatten(), torch.arange((least + 1) * size, len(inverse))))
        column = inverse[others][:, places[least]]
        weights = weights[others] - column @ removals[least]
        inverse = inverse[others][:, others] - column @ torch.linalg.solve(blocks[least], column.T)
        del left[least]
    return left


@contextmanager
def _kept_outputs(layers: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Inside, each forward leaves the layers' outputs in the dict."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs[layer] = output

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
