"""One training step with two optimizers, and checkpoints that all ranks write and read: what all engines share.

Whether a step is skipped is decided on the device, so that the host need not wait for it. `engines.engine_for` chooses:
a rank by itself trains with torch's means alone (engine_plain.py), ranks that share a trial through DeepSpeed, whose
own waits remain (engine_deepspeed.py).
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.ladder import LadderOutput
from models.one_line import OneLineError
from orchestrator.distill.averages import Averages
from orchestrator.distill.learner import Learner
from orchestrator.distill.noise import CropNoise
from orchestrator.distill.patience import Patience
from orchestrator.distill.segment import EngineState, Segment
from orchestrator.spec.sections import Part, Training

MARK = "format.txt"  # of a checkpoint: what wrote it
CHECKPOINT_FORMAT = 2  # of `Engine.save`; 1 was DeepSpeed's for every run, without a mark
PARTS: tuple[Part, ...] = get_args(Part)


class OtherCheckpoint(OneLineError, ValueError):
    """A checkpoint of another format, or of another engine; one line."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters of `Learner` that a step trains all together or not at all.

    Attributes:
        network: index in the ladder's networks; None: of no network, so of every step.
        part: one of `PARTS`, or `maps`.
    """

    network: int | None
    part: str

    @classmethod
    def of(cls, name: str) -> Group:
        """The group of a parameter."""
        path = name.split(".")
        if path[0] == "maps":
            return cls(network=None, part="maps")
        return cls(network=int(path[2]), part=next((part for part in PARTS if part in path), "entropy"))


class Engine(ABC):
    """A learner's weights, which a subclass optimizes, and a plain Adam over the ladder's quantiles.

    Args:
        learner: what to train; it is moved to this rank's device.
        training: optimizers, ZeRO stage, precision and averaging.
        world: ranks that share a batch.
        seed: of the quantisation noise.

    Attributes:
        ladder: the learner's.
        device: where it is.
        micro_batch_size: crops of a forward.
    """

    device: torch.device

    def __init__(self, learner: Learner, training: Training, world: int, *, seed: int) -> None:
        self.learner, self.ladder = learner, learner.ladder
        self.ladder.set_precision(torch.bfloat16 if training.settled_precision == "bf16" else torch.float32)
        self._noise = CropNoise(self.ladder, seed)
        share = training.batch_size // world
        self.micro_batch_size = min(share, training.micro_batch_size or share)
        self._micro_batches = share // self.micro_batch_size
        self._quantiles = self.ladder.quantiles()
        hidden = {id(parameter) for parameter in self._quantiles}  # they belong to the second optimizer
        self._groups: dict[Group, list[nn.Parameter]] = {}
        for name, parameter in learner.named_parameters():
            if id(parameter) not in hidden:
                self._groups.setdefault(Group.of(name), []).append(parameter)
        self._used, self._frozen = 0, frozenset[str]()  # the step's network; its parts that are not trained
        self._step = 0
        self._prepare(training)
        self._aux_optimizer = torch.optim.Adam(self._quantiles, lr=training.aux_learning_rate, fused=True)
        self._averages = None if training.ema is None else Averages(self.ladder, training.ema)
        self._patience = Patience(self.device)
        self._loss_finite = torch.ones((), dtype=torch.bool, device=self.device)  # all losses of the step so far

    @abstractmethod
    def _prepare(self, training: Training) -> None:
        """Moves the learner to its device and makes the optimizer of all weights but the quantiles."""

    @abstractmethod
    def _forward(self, last: bool, *arguments: Any) -> LadderOutput:
        """The learner's forward of a micro-batch, the step's last or another."""

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Adds a micro-batch's gradients to those of the step so far."""

    @abstractmethod
    def _take_step(self, learning_rate: float) -> Tensor:
        """Steps the optimizer, unless a loss or a gradient is not finite on any rank; whether it did, a bool tensor."""

    @abstractmethod
    def whole(self) -> AbstractContextManager[None]:
        """Inside, every rank has all of the ladder's weights, which ZeRO 3 keeps in parts; every rank enters."""

    @abstractmethod
    def _write(self, folder: Path, state: EngineState) -> None:
        """Writes weights, moments and a state that is the same on all ranks."""

    @abstractmethod
    def _read(self, folder: Path) -> EngineState:
        """Reads what `_write` wrote."""

    def _bottlenecks(self) -> AbstractContextManager[Any]:
        """A context in which every rank has all of the entropy bottlenecks, and changes of the quantiles stay."""
        return nullcontext()

    @property
    def _mark(self) -> str:
        return f"format {CHECKPOINT_FORMAT}, {type(self).__name__}"

    @property
    def skipped_steps(self) -> int:
        """Steps that were skipped so far; the host waits for the device."""
        return self._patience.skipped

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
        noise: Tensor | None = None,
    ) -> LadderOutput:
        """`Learner.forward` in training mode for `micro_batch_size` crops of a step's share.

        `accumulate` follows for each of them but the last, `step` for that.

        Args:
            x, rate_point, stage, taps, parts, latent: see `Learner.forward`.
            crops: ids of this rank's crops, in the order of `x`.
            step: counted from 0; with the crops it determines the quantisation noise.
            last: whether this is the last of the step's micro-batches.
            noise: what `CropNoise.ahead` made for these crops; None: it is made here.
        """
        self._noise.begin(crops, step, noise)
        self._step, self._used = step, self.ladder.network_of(rate_point)
        return self._forward(last, x, rate_point, stage, taps, parts, latent)

    def noise_ahead(self, crops: Sequence[int], step: int) -> Tensor:
        """See `CropNoise.ahead`; any thread may call it."""
        return self._noise.ahead(crops, step)

    def accumulate(self, loss: Tensor, frozen: Collection[str] = ()) -> None:
        """Backward of a micro-batch: the engine adds up a step's gradients and takes their mean.

        Args:
            loss, frozen: see `step`.
        """
        self._frozen = frozenset(frozen)
        self._loss_finite = self._loss_finite & loss.detach().isfinite()
        self._backward(loss)

    def step(self, loss: Tensor, learning_rate: float, frozen: Collection[str] = ()) -> Tensor:
        """Backward, gradients averaged over the ranks and clipped, both optimizers stepped.

        Networks that the step did not use stay as they are: weights, moments, quantiles and averages. A step whose loss
        or gradient is not finite on any rank is skipped on all of them: then everything stays as it is.

        Args:
            loss: scalar, the mean over this rank's share of the batch, or over its last micro-batch.
            learning_rate: of all weights but the quantiles.
            frozen: of `PARTS`: their parameters and moments are left as they are, and clipping does not see them.

        Returns:
            Whether the step was taken, a bool tensor on the device.

        Raises:
            Diverged: see `Patience`, which looks now and then.
        """
        self.accumulate(loss, frozen)
        applied = self._take_step(learning_rate)
        if "entropy" not in frozen:
            self._step_quantiles(applied)
        if self._averages is not None:
            self._averages.follow(self._used, applied)
        finite, self._loss_finite = self._loss_finite, torch.ones_like(self._loss_finite)
        self._patience.count(self._step, applied, finite)
        return applied

    def check(self) -> None:
        """Ends a run that has lost patience; the host waits for the device. Every rank calls it. Raises Diverged."""
        self._patience.check()

    def _trained(self) -> list[nn.Parameter]:
        """The parameters that this step trains."""
        return [parameter for group, own in self._groups.items() if self._trains(group) for parameter in own]

    def _trains(self, group: Group) -> bool:
        return group.network in (None, self._used) and group.part not in self._frozen

    def _step_quantiles(self, applied: Tensor) -> None:
        # Their gradients depend on the weights alone: the same on every rank, no reduction needed.
        quantiles = self._quantiles[self._used]
        with self._bottlenecks():
            (gradient,) = torch.autograd.grad(self.ladder.aux_loss(self._used), (quantiles,))
            quantiles.grad = gradient.contiguous()  # the fused kernel takes all tensors to be laid out alike
            self._aux_optimizer.found_inf = applied.logical_not().to(torch.float32)  # type: ignore[attr-defined]
            self._aux_optimizer.step()
            quantiles.grad = None

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the ladder has its averaged weights, if `training.ema` asks for them; the raw ones then come back."""
        return nullcontext() if self._averages is None else self._averages.in_place()

    def save(self, folder: Path, images_seen: int, segment: Segment | None = None) -> None:
        """Writes a checkpoint of both optimizers into an empty folder. Every rank must call it: one alone would wait.

        Args:
            folder: an empty one, the same for all ranks.
            images_seen: so far, over all ranks.
            segment: what `load` gives back.
        """
        with self._bottlenecks():  # ZeRO 3 saves what it optimizes, and nothing else
            quantiles = [parameter.detach().clone() for parameter in self._quantiles]
        state: EngineState = {
            "aux_optimizer": self._aux_optimizer.state_dict(),
            "quantiles": quantiles,
            "averages": None if self._averages is None else self._averages.state(),
            "skipped": self._patience.state(),
            "images_seen": images_seen,
            "segment": segment or {},
        }
        self._write(folder, state)
        (folder / MARK).write_text(self._mark, encoding="utf-8")  # every rank's: the same file

    def load(self, folder: Path) -> tuple[int, Segment]:
        """Reads what `save` wrote; every rank calls it.

        Returns:
            `images_seen` and `segment`, as `save` was given them.

        Raises:
            FileNotFoundError: the folder holds no checkpoint.
            OtherCheckpoint: it is of another format, or of another engine.
        """
        if not any(folder.iterdir()):
            raise FileNotFoundError(f"{folder}: no checkpoint")
        mark = folder / MARK
        found = mark.read_text(encoding="utf-8") if mark.exists() else "format 1"
        if found != self._mark:
            raise OtherCheckpoint(f"{folder}: a checkpoint of {found}, not of {self._mark}; remove it to begin anew")
        state = self._read(folder)
        with self._bottlenecks():
            torch._foreach_copy_([parameter.detach() for parameter in self._quantiles], state["quantiles"])
        self._aux_optimizer.load_state_dict(state["aux_optimizer"])
        if self._averages is not None and state["averages"] is not None:
            self._averages.load(state["averages"])
        self._patience.load(state["skipped"])
        return int(state["images_seen"]), state["segment"]

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the ranks, the same on all of them."""
        total = values.to(self.device)
        world = dist.get_world_size() if dist.is_initialized() else 1
        if world > 1:
            total = total.clone()
            dist.all_reduce(total)
        return total / world

    def close(self) -> None:
        """Drops the engine so that the next trial of this process finds its memory free."""
        del self._aux_optimizer, self._averages, self._noise, self._groups, self._quantiles, self.ladder, self.learner
        gc.collect()
