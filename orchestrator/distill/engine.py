"""The only DeepSpeed module: one training step with two optimizers, and checkpoints that all ranks write and read."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor

from models.ladder import RateLadder
from orchestrator.spec import Training


def join_process_group(rank: int, world: int, address: str, port: int) -> None:
    """Makes this process rank `rank` of `world`: nccl where there is a GPU, else gloo."""
    # DeepSpeed reads these and asks for mpi4py where one is missing.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": os.environ.get("LOCAL_RANK", "0"),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
    deepspeed.init_distributed("nccl" if torch.cuda.is_available() else "gloo", verbose=False)


class Engine:
    """DeepSpeed over a ladder's weights, a plain Adam over its quantiles.

    Args:
        ladder: the network to train; it is moved to this rank's device.
        training: optimizers, ZeRO stage and precision.
        world: ranks that share a batch.
    """

    def __init__(self, ladder: RateLadder, training: Training, world: int) -> None:
        quantiles = ladder.quantiles()
        for parameter in quantiles:  # hidden from DeepSpeed: they belong to the second optimizer
            parameter.requires_grad_(False)
        ladder.set_precision(torch.bfloat16 if training.precision == "bf16" else torch.float32)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=ladder,
            model_parameters=[parameter for parameter in ladder.parameters() if parameter.requires_grad],
            config={
                "train_micro_batch_size_per_gpu": training.batch_size // world,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": training.clip_norm,
                "zero_optimization": {"stage": training.zero_stage},
                "zero_allow_untested_optimizer": True,
                # torch_adam: DeepSpeed's own CPU Adam is compiled on first use
                "optimizer": {
                    "type": "Adam",
                    "params": {"lr": training.learning_rate, "torch_adam": True, "adam_w_mode": False},
                },
                "steps_per_print": 10**9,
            },
        )
        for parameter in quantiles:
            parameter.requires_grad_(True)
        self._sharded = training.zero_stage == 3
        self._quantiles = quantiles
        self._aux_optimizer = torch.optim.Adam(quantiles, lr=training.aux_learning_rate)
        self.ladder = ladder
        self.device = self._engine.device

    def forward(self, x: Tensor, rate_point: int, stage: int = 2) -> dict[str, Any]:
        """`RateLadder.forward` in training mode, through DeepSpeed."""
        self._engine.train()
        return self._engine(x, rate_point, stage)

    def step(self, loss: Tensor, learning_rate: float | None = None) -> None:
        """Backward, gradients averaged over the ranks and clipped, both optimizers stepped.

        Args:
            loss: scalar, the mean over this rank's share of the batch.
            learning_rate: of this step, where it follows a schedule.
        """
        if learning_rate is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
        self._engine.backward(loss)
        self._engine.step()
        # The quantiles' gradients depend on the weights alone: the same on every rank, no reduction needed.
        bottlenecks = [value for name, value in self.ladder.named_parameters() if ".entropy_bottleneck." in name]
        with deepspeed.zero.GatheredParameters(bottlenecks, modifier_rank=0, enabled=self._sharded):
            gradients = torch.autograd.grad(self.ladder.aux_loss(), self._quantiles)
            for parameter, gradient in zip(self._quantiles, gradients, strict=True):
                parameter.grad = gradient
            self._aux_optimizer.step()
            self._aux_optimizer.zero_grad()

    def save(self, folder: Path, images_seen: int) -> None:
        """Writes a checkpoint of both optimizers into an empty folder. Every rank calls it: one alone would wait on."""
        state = {"aux_optimizer": self._aux_optimizer.state_dict(), "images_seen": images_seen}
        self._engine.save_checkpoint(str(folder), tag="state", client_state=state)

    def load(self, folder: Path) -> int:
        """Reads what `save` wrote; every rank must call it. Returns images_seen."""
        path, state = self._engine.load_checkpoint(str(folder), tag="state")
        if path is None:
            raise FileNotFoundError(f"{folder}: no checkpoint")
        self._aux_optimizer.load_state_dict(state["aux_optimizer"])
        return int(state["images_seen"])

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the ranks, the same on all of them."""
        total = values.to(self.device)
        if dist.get_world_size() > 1:
            dist.all_reduce(total)
        return total / dist.get_world_size()

    def close(self) -> None:
        """Drops the engine so that the next trial of this process finds its memory free."""
        self._engine.destroy()
        del self._engine, self._optimizer, self._aux_optimizer, self.ladder
        gc.collect()
