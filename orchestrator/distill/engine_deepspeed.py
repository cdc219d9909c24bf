"""The engine of ranks that share a trial: DeepSpeed, whose ZeRO parts optimizer, gradients or weights among them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor

from models.ladder import LadderOutput
from orchestrator.distill.engine import Engine, Group
from orchestrator.distill.optimizers import soap
from orchestrator.distill.process_group import compile_nothing
from orchestrator.distill.segment import EngineState
from orchestrator.spec.sections import Training


class DeepSpeedEngine(Engine):
    """DeepSpeed over a learner's weights, at any number of ranks and any ZeRO stage; see `Engine`."""

    def _prepare(self, training: Training) -> None:
        compile_nothing()  # Ray Train makes the process group by itself, and DeepSpeed then joins it here
        for parameter in self._quantiles:  # hidden from DeepSpeed
            parameter.requires_grad_(False)
        count = sum(parameter.numel() for own in self._groups.values() for parameter in own)
        groups = [{"params": parameters, **asdict(group)} for group, parameters in self._groups.items()]
        # torch_adam: DeepSpeed's own CPU Adam is compiled on first use
        adam = {
            "type": "Adam",
            "params": {"lr": training.learning_rate, "torch_adam": True, "adam_w_mode": False},
        }
        given = soap(groups, training.learning_rate) if training.optimizer == "soap" else None
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=self.learner,
            optimizer=given,
            model_parameters=groups,
            config={
                "train_micro_batch_size_per_gpu": self.micro_batch_size,
                "gradient_accumulation_steps": self._micro_batches,
                "gradient_clipping": training.clip_norm,
                # The default bucket has 5e8 elements: 2 GB of memory, whatever the size of the network.
                "zero_optimization": {"stage": training.zero_stage, "reduce_bucket_size": count},
                "zero_allow_untested_optimizer": True,
                **({} if given else {"optimizer": adam}),
                "steps_per_print": 10**9,
            },
        )
        for group, parameters in self._groups.items():
            for parameter in parameters:
                parameter.register_hook(partial(self._unless_idle, group))
        self._engine.basic_optimizer.register_step_pre_hook(self._leave_idle)
        for parameter in self._quantiles:
            parameter.requires_grad_(True)
        self._zero_stage, self.device = training.zero_stage, self._engine.device

    def _forward(self, last: bool, *arguments: Any) -> LadderOutput:
        self._engine.train()
        self._engine.set_gradient_accumulation_boundary(last)
        output: LadderOutput = self._engine(*arguments)
        return output

    def _backward(self, loss: Tensor) -> None:
        # A loss that is infinite may have finite gradients. NaN reaches all ranks with the averaged gradients, so they
        # agree without a reduction of their own.
        self._engine.backward(loss * torch.where(self._loss_finite, 1.0, math.nan))

    def _take_step(self, learning_rate: float) -> Tensor:
        """See `Engine`. ZeRO's optimizers look for gradients that are not finite by themselves, stage 0 does not."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if self._zero_stage == 0:
            gradients = [parameter.grad for parameter in self._engine.module.parameters() if parameter.grad is not None]
            if not torch.nn.utils.get_total_norm(gradients).isfinite():
                self._engine.zero_grad()
                return torch.full((), False, device=self.device)
        if self._zero_stage == 3:
            self._forget_idle()
        self._engine.step()
        return torch.full((), bool(self._engine.was_step_applied()), device=self.device)

    def _unless_idle(self, group: Group, gradient: Tensor) -> Tensor:
        return gradient if self._trains(group) else torch.zeros_like(gradient)

    def _leave_idle(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Adam leaves parameters without a gradient alone; with a gradient of 0 its momentum would move them on."""
        for group in optimizer.param_groups:
            if not self._trains(_of(group)):
                for parameter in group["params"]:
                    parameter.grad = None

    def _forget_idle(self) -> None:
        """ZeRO 3 keeps the gradients of parameters that took no part, from the last step in which they did."""
        for index, group in self._optimizer.sub_group_to_group_id.items():
            if not self._trains(_of(self._engine.basic_optimizer.param_groups[group])):
                torch._foreach_zero_(self._optimizer.averaged_gradients[index])

    def _bottlenecks(self) -> AbstractContextManager[Any]:
        names = (value for name, value in self.ladder.named_parameters() if ".entropy_bottleneck." in name)
        return self._gathered(list(names), modifier_rank=0)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """See `Engine.whole`."""
        with self._gathered(list(self.ladder.parameters())):
            yield

    def _gathered(self, parameters: list[torch.nn.Parameter], **options: Any) -> Any:
        return deepspeed.zero.GatheredParameters(parameters, enabled=self._zero_stage == 3, **options)

    def _write(self, folder: Path, state: EngineState) -> None:
        self._engine.save_checkpoint(str(folder), tag="state", client_state=state)

    def _read(self, folder: Path) -> EngineState:
        _, state = self._engine.load_checkpoint(str(folder), tag="state")
        found: EngineState = state
        return found

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.destroy()
        del self._engine, self._optimizer
        super().close()


def _of(group: Any) -> Group:
    """The group that one of an optimizer's is of."""
    return Group(network=group["network"], part=group["part"])
