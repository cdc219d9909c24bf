"""The data of one training step, and how what the store has of it is undone on the device that trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from orchestrator.features.format.form import Form
from orchestrator.features.format.key import Tap


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's share of a step's crops.

    Attributes:
        x: [b, 3, S, S] float32 in 0..1.
        rate_point: the same for all crops and all ranks of the step.
        crops: their ids in the plan.
        targets: the teacher's outputs for these crops by tap (see features/format/key.py), float32: `y`
            [b, M, S/16, S/16], the latent before gain and quantiser; `x_hat` [b, 3, S, S], its reconstruction at the
            rate point, in 0..1. Empty without a teacher.
        stored: of each tap that is still as the store has it, uint8 [b, bytes of a crop]: what its bytes mean. `on`
            undoes these; a reader gives them only where it was asked to.
        noise: [b, values] float32, the crops' quantisation noise of the step, if the reader was asked for it.
    """

    x: Tensor
    rate_point: int
    crops: tuple[int, ...]
    targets: Mapping[Tap, Tensor] = field(default_factory=dict)
    stored: Mapping[Tap, Form] = field(default_factory=dict)
    noise: Tensor | None = None

    def on(self, device: torch.device) -> Batch:
        """The batch on a device, with nothing left as it is stored. Out of pinned memory the host does not wait."""
        tensors = {tap: tensor.to(device, non_blocking=True) for tap, tensor in {"x": self.x, **self.targets}.items()}
        for tap, form in self.stored.items():
            tensors[tap] = undone(form, tensors[tap])
        noise = None if self.noise is None else self.noise.to(device, non_blocking=True)
        return replace(self, x=tensors.pop("x"), targets=tensors, stored={}, noise=noise)


def undone(form: Form, rows: Tensor) -> Tensor:
    """What `format.form.floats` gives, bit for bit, on the rows' device: float32 [b, *form.shape].

    Args:
        rows: uint8 [b, form.row_bytes].
    """
    if form.is_image:
        images = rows.unflatten(1, form.shape)
        if form.codec == "u8":
            images = images.cumsum(2, dtype=torch.uint8).cumsum(3, dtype=torch.uint8)
            images[:, 0] += images[:, 1]
            images[:, 2] += images[:, 1]
        # By a tensor: with a number CUDA multiplies by 1/255, which rounds otherwise for some of the 256 values.
        return images.float().div_(torch.full((), 255.0, device=rows.device))
    if form.codec == "q8":
        head = 2 * form.shape[0]
        # flat first: one row, of an odd number of bytes, counts as contiguous and cannot be seen as float16 even so
        steps = rows[:, :head].reshape(-1).view(torch.float16).float().view(-1, form.shape[0], 1, 1)
        return rows[:, head:].view(torch.int8).unflatten(1, form.shape) * steps
    return rows.view(torch.float16).float().unflatten(1, form.shape)
