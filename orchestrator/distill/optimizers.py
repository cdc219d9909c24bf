"""The optimizers of `training.optimizer`, over all weights but the quantiles."""

from __future__ import annotations

from typing import Any

import torch


def soap(parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, https://arxiv.org/abs/2409.11321).

    Each side of a weight has a basis of its own, so a layer of 64x64x5x5 takes matrices of 64x64 and 5x5. The first
    step of all moves nothing: it makes the bases. Sides above 256 are left as they are: on a CPU their bases would take
    longer than the rest of the step. Its authors' betas, without weight decay. For learned image codecs:
    Zhang and Zhu 2026, https://arxiv.org/abs/2601.20769.

    Args:
        parameters: or groups of them, as torch takes them. What has no gradient in a step stays as it is.
        learning_rate: of the first step.
    """
    from pytorch_optimizer import SOAP

    return SOAP(
        parameters,
        lr=learning_rate,
        betas=(0.95, 0.95),
        weight_decay=0.0,
        precondition_frequency=10,
        max_precondition_dim=256,
    )
