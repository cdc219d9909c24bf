"""DeepSpeed: one training step with two optimizers, and checkpoints that all ranks write and read."""

from __future__ import annotations

import gc
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, get_args

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.ladder import LadderOutput
from orchestrator.distill.learner import Learner
from orchestrator.distill.noise import CropNoise
from orchestrator.distill.process_group import compile_nothing
from orchestrator.spec.sections import Part, Training

PATIENCE = 20  # steps in a row that may be skipped
PARTS: tuple[Part, ...] = get_args(Part)


class Diverged(RuntimeError):
    """Too many steps in a row had a loss or a gradient that is not finite. All ranks raise it at the same step."""


class Segment(TypedDict, total=False):
    """What a checkpoint holds of a segment that is not finished; the same on every rank. Empty: none of it."""

    sums: dict[str, float]  # of each loss term over the segment's steps, the mean over the ranks
    counts: dict[str, int]  # steps that had the term
    skipped_before: int  # steps that were skipped before the segment


def part_of(name: str) -> str:
    """The part of a student that a parameter of `Learner` belongs to: one of `PARTS`, or `maps`."""
    path = name.split(".")
    return "maps" if path[0] == "maps" else next((part for part in PARTS if part in path), "entropy")


class Engine:
    """DeepSpeed over a learner's weights, a plain Adam over the ladder's quantiles.

    Args:
        learner: what to train; it is moved to this rank's device.
        training: optimizers, ZeRO stage, precision and averaging.
        world: ranks that share a batch.
        seed: of the quantisation noise.
    """

    def __init__(self, learner: Learner, training: Training, world: int, *, seed: int) -> None:
        compile_nothing()  # Ray Train makes the process group by itself, and DeepSpeed then joins it here
        ladder = learner.ladder
        quantiles = ladder.quantiles()
        for parameter in quantiles:  # hidden from DeepSpeed: they belong to the second optimizer
            parameter.requires_grad_(False)
        ladder.set_precision(torch.bfloat16 if training.settled_precision == "bf16" else torch.float32)
        self._noise = CropNoise(ladder, seed)
        share = training.batch_size // world
        micro = min(share, training.micro_batch_size or share)
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in learner.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(part_of(name), []).append(parameter)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=learner,
            model_parameters=[{"params": parameters, "part": part} for part, parameters in groups.items()],
            config={
                "train_micro_batch_size_per_gpu": micro,
                "gradient_accumulation_steps": share // micro,
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
        self._frozen: Collection[str] = ()
        for part, parameters in groups.items():
            for parameter in parameters:
                parameter.register_hook(partial(self._unless_frozen, part))
        self._engine.basic_optimizer.register_step_pre_hook(self._leave_frozen)
        for parameter in quantiles:
            parameter.requires_grad_(True)
        self._zero_stage, self._ema = training.zero_stage, training.ema
        self._quantiles = quantiles
        self._aux_optimizer = torch.optim.Adam(quantiles, lr=training.aux_learning_rate)
        self.ladder, self.micro_batch_size = ladder, micro
        self.device = self._engine.device
        self._finite = torch.tensor(True, device=self.device)  # whether all losses of the step so far are finite
        self._average = None if self._ema is None else [parameter.detach().clone() for parameter in ladder.parameters()]
        self._step = self._applied = self._skipped_in_a_row = self.skipped_steps = 0

    def forward(
        self,
        x: Tensor,
        rate_point: int,
        stage: int = 2,
        *,
        taps: Sequence[str] = (),
        parts: Collection[Part] | None = None,
        latent: Tensor | None = None,
        crops: Sequence[int],
        step: int,
        last: bool = True,
    ) -> LadderOutput:
        """`Learner.forward` in training mode, through DeepSpeed, for `micro_batch_size` crops of a step's share.

        `accumulate` follows for each of them but the last, `step` for that.

        Args:
            x, rate_point, stage, taps, parts, latent: see `Learner.forward`.
            crops: ids of this rank's crops, in the order of `x`.
            step: counted from 0; with the crops it determines the quantisation noise.
            last: whether this is the last of the step's micro-batches.
        """
        self._engine.train()
        self._engine.set_gradient_accumulation_boundary(last)
        self._noise.begin(crops, step)
        self._step = step
        output: LadderOutput = self._engine(x, rate_point, stage, taps, parts, latent)
        return output

    def accumulate(self, loss: Tensor, frozen: Collection[str] = ()) -> None:
        """Backward of a micro-batch: DeepSpeed adds up a step's gradients and takes their mean.

        Args:
            loss, frozen: see `step`.
        """
        self._frozen = frozen
        finite = loss.detach().isfinite()
        self._finite = self._finite & finite
        # A loss that is infinite may have finite gradients. NaN reaches all ranks with the averaged gradients, so they
        # agree without a reduction of their own.
        self._engine.backward(loss * torch.where(finite, 1.0, math.nan))

    def step(self, loss: Tensor, learning_rate: float, frozen: Collection[str] = ()) -> bool:
        """Backward, gradients averaged over the ranks and clipped, both optimizers stepped.

        A step whose loss or gradient is not finite on any rank is skipped on all of them: weights, moments and
        averages stay as they are.

        Args:
            loss: scalar, the mean over this rank's share of the batch, or over its last micro-batch.
            learning_rate: of all weights but the quantiles.
            frozen: of `PARTS`: their parameters and moments are left as they are, and clipping does not see them.

        Returns:
            False if the step was skipped.

        Raises:
            Diverged: too many steps in a row were skipped.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self.accumulate(loss, frozen)
        finite, self._finite = self._finite, torch.ones_like(self._finite)
        if not self._take_step():
            self.skipped_steps += 1
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row > PATIENCE:
                raise Diverged(self._diagnosis(finite))
            return False
        self._skipped_in_a_row = 0
        self._applied += 1
        if "entropy" not in frozen:
            self._step_quantiles()
        if self._average is not None and self._ema is not None:
            # The first averages would be of the initial weights: the decay starts low, as in TensorFlow's
            # ExponentialMovingAverage(num_updates).
            decay = min(self._ema, (1 + self._applied) / (10 + self._applied))
            raw = [parameter.detach() for parameter in self.ladder.parameters()]
            torch._foreach_lerp_(self._average, raw, 1 - decay)
        return True

    def _unless_frozen(self, part: str, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient) if part in self._frozen else gradient

    def _leave_frozen(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Adam leaves parameters without a gradient alone; with a gradient of 0 its momentum would move them on."""
        for group in optimizer.param_groups:
            if group["part"] in self._frozen:
                for parameter in group["params"]:
                    parameter.grad = None

    def _take_step(self) -> bool:
        """False where gradients are not finite. ZeRO's optimizers look for that by themselves, stage 0 does not."""
        if self._zero_stage == 0:
            gradients = [parameter.grad for parameter in self._engine.module.parameters() if parameter.grad is not None]
            if not torch.nn.utils.get_total_norm(gradients).isfinite():
                self._engine.zero_grad()
                return False
        self._engine.step()
        return bool(self._engine.was_step_applied())

    def _step_quantiles(self) -> None:
        # Their gradients depend on the weights alone: the same on every rank, no reduction needed.
        with self._bottlenecks():
            gradients = torch.autograd.grad(self.ladder.aux_loss(), self._quantiles)
            for parameter, gradient in zip(self._quantiles, gradients, strict=True):
                parameter.grad = gradient
            self._aux_optimizer.step()
            self._aux_optimizer.zero_grad()

    def _bottlenecks(self) -> Any:
        """A context in which every rank has all of the entropy bottlenecks, and changes of the quantiles stay."""
        parameters = [value for name, value in self.ladder.named_parameters() if ".entropy_bottleneck." in name]
        return deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=self._zero_stage == 3)

    def _diagnosis(self, finite: Tensor) -> str:
        """The line on a skipped step, the same on all ranks; every rank calls it."""
        bad = torch.zeros(dist.get_world_size(), device=self.device)
        bad[dist.get_rank()] = ~finite
        dist.all_reduce(bad)
        ranks = ", ".join(str(rank) for rank in bad.nonzero().flatten().tolist())
        cause = f"the loss of rank {ranks}" if ranks else "a gradient"
        return f"step {self._step}: {cause} is not finite, as in the {PATIENCE} steps before it, which were skipped"

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the ladder has its averaged weights, if `training.ema` asks for them; the raw ones then come back."""
        if self._average is None:
            yield
            return
        parameters = [parameter.detach() for parameter in self.ladder.parameters()]
        raw = [parameter.clone() for parameter in parameters]
        torch._foreach_copy_(parameters, self._average)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, raw)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, every rank has all of the ladder's weights, which ZeRO 3 keeps in parts; every rank enters."""
        with deepspeed.zero.GatheredParameters(list(self.ladder.parameters()), enabled=self._zero_stage == 3):
            yield

    def save(self, folder: Path, images_seen: int, segment: Segment | None = None) -> None:
        """Writes a checkpoint of both optimizers into an empty folder. Every rank must call it: one alone would wait.

        Args:
            folder: an empty one, the same for all ranks.
            images_seen: so far, over all ranks.
            segment: what `load` gives back.
        """
        with self._bottlenecks():  # ZeRO 3 saves what it optimizes, and nothing else
            quantiles = [parameter.detach().clone() for parameter in self._quantiles]
        state = {
            "aux_optimizer": self._aux_optimizer.state_dict(),
            "quantiles": quantiles,
            "average": self._average,
            "counts": (self._applied, self._skipped_in_a_row, self.skipped_steps),
            "images_seen": images_seen,
            "segment": segment or {},
        }
        self._engine.save_checkpoint(str(folder), tag="state", client_state=state)

    def load(self, folder: Path) -> tuple[int, Segment]:
        """Reads what `save` wrote; every rank calls it.

        Returns:
            `images_seen` and `segment`, as `save` was given them.

        Raises:
            FileNotFoundError: the folder holds no checkpoint.
        """
        path, state = self._engine.load_checkpoint(str(folder), tag="state")
        if path is None:
            raise FileNotFoundError(f"{folder}: no checkpoint")
        with self._bottlenecks():
            torch._foreach_copy_([parameter.detach() for parameter in self._quantiles], state["quantiles"])
        self._aux_optimizer.load_state_dict(state["aux_optimizer"])
        if self._average is not None:
            torch._foreach_copy_(self._average, state["average"])
        self._applied, self._skipped_in_a_row, self.skipped_steps = state["counts"]
        segment: Segment = state.get("segment", {})
        return int(state["images_seen"]), segment

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the ranks, the same on all of them."""
        total = values.to(self.device)
        if dist.get_world_size() > 1:
            dist.all_reduce(total)
        return total / dist.get_world_size()

    def close(self) -> None:
        """Drops the engine so that the next trial of this process finds its memory free."""
        self._engine.destroy()
        del self._engine, self._optimizer, self._aux_optimizer, self._average, self._noise, self.ladder
        gc.collect()
