"""The engine of a rank by itself: torch's means alone, and nothing in a step that the host waits for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ladder import LadderOutput
from orchestrator.distill.engine import Engine
from orchestrator.distill.optimizers import soap
from orchestrator.distill.segment import EngineState
from orchestrator.spec.sections import Training

FILE = "rank.pt"


class PlainState(EngineState):
    """What its file holds."""

    weights: dict[str, Tensor]
    optimizer: Any  # torch's


class PlainEngine(Engine):
    """One rank at ZeRO 0 or 1, which part nothing there; see `Engine`. With SOAP the host waits once a step.

    DeepSpeed's machinery takes twice the host's time for the same step (benchmarks/engine/step.py).
    """

    def _prepare(self, training: Training) -> None:
        self.device = own_device()
        self.learner.to(self.device).train()
        parameters = [parameter for own in self._groups.values() for parameter in own]
        self._waits = training.optimizer == "soap"
        self._optimizer: torch.optim.Optimizer = (
            soap(parameters, training.learning_rate)
            if self._waits
            else torch.optim.Adam(parameters, lr=training.learning_rate, fused=True)
        )
        self._clip_norm = training.clip_norm

    def _forward(self, last: bool, *arguments: Any) -> LadderOutput:
        if not self.ladder.training:  # after a validation; to tell every module takes milliseconds
            self.learner.train()
        output: LadderOutput = self.learner(*arguments)
        return output

    def _backward(self, loss: Tensor) -> None:
        if trained := self._trained():  # a phase may freeze all
            (loss / self._micro_batches if self._micro_batches > 1 else loss).backward(inputs=trained)

    def _take_step(self, learning_rate: float) -> Tensor:
        gradients = self._gradients()
        if not gradients:
            return self._loss_finite
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        finite = norm.isfinite() & self._loss_finite
        torch._foreach_mul_(gradients, (self._clip_norm / (norm + 1e-6)).clamp(max=1.0))
        (group,) = self._optimizer.param_groups
        group["lr"] = learning_rate
        if self._waits:
            if finite:  # the host waits for the device
                self._optimizer.step()
        else:
            # As GradScaler does: with 1 the fused kernel changes nothing, and does not count the step.
            self._optimizer.found_inf = finite.logical_not().to(torch.float32)  # type: ignore[attr-defined]
            self._optimizer.step()
        self._optimizer.zero_grad()
        return finite

    def _gradients(self) -> list[Tensor]:
        """Of the step, all of its micro-batches together.

        What took no part in it (a map, in some phases) has one of 0, as DeepSpeed gives it: Adam counts the step, and
        its momentum moves on.
        """
        for parameter in self._trained():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._trained() if parameter.grad is not None]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """See `Engine.whole`: this rank has all of them."""
        yield

    def _write(self, folder: Path, state: EngineState) -> None:
        weights = {name: parameter.detach() for name, parameter in self.learner.named_parameters()}
        torch.save({**state, "weights": weights, "optimizer": self._optimizer.state_dict()}, folder / FILE)

    def _read(self, folder: Path) -> EngineState:
        state: PlainState = torch.load(folder / FILE, map_location=self.device, weights_only=True)
        with torch.no_grad():
            for name, parameter in self.learner.named_parameters():
                parameter.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        return state

    def close(self) -> None:
        """See `Engine.close`."""
        del self._optimizer
        super().close()


def own_device() -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
