"""CompressAI's entropy bottleneck, without its waits for the device and with half of its kernels in training.

CompressAI 1.2.8 makes the order of dimensions a tensor on the input's device and iterates over it: on a GPU a wait for
each element. And it computes the logits of both ends of a step one after the other.
"""

from __future__ import annotations

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor


class Bottleneck(EntropyBottleneck):
    """An entropy bottleneck with the parameters and the values of CompressAI's.

    In training the two logits come out of one pass over both, whose sums may differ in their last bits. Otherwise, and
    where the range coder's tables are made, every bit is CompressAI's.
    """

    @classmethod
    def adopt(cls, bottleneck: EntropyBottleneck) -> None:
        """Makes an existing bottleneck one of this class: a new one would draw its first weights again."""
        bottleneck.__class__ = cls

    def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """The quantised hyper-latent and its likelihoods, both of the shape of x [B, C, h, w]."""
        training = self.training if training is None else training
        swapped = x.transpose(0, 1).contiguous()
        values = swapped.reshape(swapped.shape[0], 1, -1)
        outputs = self.quantize(values, "noise" if training else "dequantize", self._get_medians())
        likelihood = self._both(outputs) if training else self._likelihood(outputs)[0]
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)
        quantised, likelihoods = (
            tensor.reshape(swapped.shape).transpose(0, 1).contiguous() for tensor in (outputs, likelihood)
        )
        return quantised, likelihoods

    def _both(self, values: Tensor) -> Tensor:
        """`_likelihood`, [C, 1, n], by one pass over the lower and the upper ends of all steps."""
        ends = self._logits_cumulative(torch.cat((values - 0.5, values + 0.5), dim=2), stop_gradient=False)
        lower, upper = ends.sigmoid().chunk(2, dim=2)
        return upper - lower
