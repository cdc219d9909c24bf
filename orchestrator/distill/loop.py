"""One rank's share of training: from where it stands to a number of images seen. Knows nothing of Ray.

Time is images seen, over all ranks; a segment ends exactly where it was asked to. The batch of a step is a function of
the step, so a run that was cut off goes on with the crops it would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.catalogue import build_ladder
from models.ladder import RateLadder, ladder_gains
from models.weights import read_metadata, save_ladder
from orchestrator.crops import Crop, CropPlan, cut
from orchestrator.distill.engine import Engine
from orchestrator.distill.losses import bits_per_pixel, distillation_terms
from orchestrator.features.batch import Batch
from orchestrator.features.key import FeaturePlan
from orchestrator.features.node_cache import NodeCache
from orchestrator.features.reader import Reader as FeatureReader
from orchestrator.photos import Photograph, load_rgb
from orchestrator.spec import LossWeights, Spec, Training, Trial


class Reader(Protocol):
    def batch(self, step: int) -> Batch: ...


def cosine(learning_rate: float, total_images: int) -> Callable[[int], float]:
    """A learning rate that falls from `learning_rate` to a hundredth of it along half a cosine."""

    def at(images: int) -> float:
        share = min(1.0, images / total_images)
        return learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)

    return at


def to_tensor(rgb: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in 0..1."""
    return torch.tensor(rgb).permute(2, 0, 1).float().div(255)


class Loop:
    """Trains a ladder on a reader's batches.

    Args:
        ladder: the network, with its first weights.
        training: batch size, optimizers, ZeRO.
        reader: this rank's batches.
        weights: of the loss terms.
        learning_rate: images seen -> learning rate of the next step.
        stage_one_images: a variable-rate network trains in stage 1 (highest rate point only, uniform noise) until then.
        teacher_gains: of the network that the targets are from, one a rate point; None: there are no targets.
        world: ranks that share a batch.
    """

    def __init__(
        self,
        *,
        ladder: RateLadder,
        training: Training,
        reader: Reader,
        weights: LossWeights,
        learning_rate: Callable[[int], float],
        stage_one_images: int = 0,
        teacher_gains: Sequence[float] | None = None,
        world: int = 1,
    ) -> None:
        self.ladder, self.images_seen = ladder, 0
        self._training, self._reader, self._weights = training, reader, weights
        self._learning_rate, self._stage_one_images = learning_rate, stage_one_images
        self._gains = ladder.gains
        self._teacher_gains = tuple(teacher_gains or self._gains)
        self._engine = Engine(ladder, training, world)

    def train_to(
        self, images: int, report: Callable[[int, Mapping[str, float]], None] | None = None
    ) -> dict[str, float]:
        """Trains until `images` crops have been seen, counted over all ranks.

        Args:
            images: a multiple of the batch size.
            report: called now and then with images seen and the latest terms of this rank.

        Returns:
            The mean of each loss term over the segment and all ranks, `first_step_at` (seconds since the epoch) and
            `seconds`.
        """
        if images % self._training.batch_size:
            raise ValueError(f"images {images} is not a multiple of the batch size {self._training.batch_size}")
        first_step_at = time.time()
        sums: dict[str, Tensor] = {}
        steps = (images - self.images_seen) // self._training.batch_size
        for index in range(steps):
            terms = self._step()
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu()
            if report and (index + 1) % 50 == 0:
                report(self.images_seen, {name: float(value.detach()) for name, value in terms.items()})
        names = sorted(sums)
        means = self._engine.mean_over_ranks(torch.stack([sums[name] for name in names]) / steps) if steps else ()
        means_by_name = {name: float(value) for name, value in zip(names, means, strict=True)}
        return {**means_by_name, "first_step_at": first_step_at, "seconds": time.time() - first_step_at}

    def _step(self) -> dict[str, Tensor]:
        batch = self._reader.batch(self.images_seen // self._training.batch_size)
        stage = 1 if self.images_seen < self._stage_one_images else 2
        rate_point = len(self._gains) - 1 if stage == 1 else batch.rate_point
        x = batch.x.to(self._engine.device).contiguous(memory_format=torch.channels_last)
        targets = {name: value.to(self._engine.device) for name, value in batch.targets.items()}
        output = self._engine.forward(x, rate_point, stage)
        terms = distillation_terms(
            output,
            x,
            targets,
            lmbda=self.ladder.lambdas[rate_point],
            gain=self._gains[rate_point],
            teacher_gain=self._teacher_gains[rate_point],
            weights=self._weights,
        )
        self._engine.step(terms["loss"], self._learning_rate(self.images_seen))
        self.images_seen += self._training.batch_size
        return terms

    def validate(self, images: Sequence[Tensor], *, rank: int, world: int) -> list[dict[str, float]]:
        """Rate and distortion on whole images by the likelihood estimate, shared out over the ranks.

        Args:
            images: [3, H, W] in 0..1 each, H and W multiples of 64; the same on every rank.

        Returns:
            A row a rate point: rate_point, lmbda, bpp, mse (of 8-bit values, in 0..1) and psnr_db, each the mean over
            images. The same on every rank.
        """
        rows = torch.zeros(len(self.ladder.lambdas), 3, device=self._engine.device)
        self.ladder.eval()
        with torch.inference_mode():
            for image in images[rank::world]:
                x = image[None].to(self._engine.device)
                for rate_point in range(len(self.ladder.lambdas)):
                    output = self.ladder(x, rate_point)
                    mse = (output["x_hat"].clamp(0, 1).mul(255).round() - x * 255).div(255).square().mean()
                    bpp = bits_per_pixel(output["likelihoods"], x.shape[2] * x.shape[3])
                    rows[rate_point] += torch.stack([bpp, mse, -10 * mse.log10()])
        rows = self._engine.mean_over_ranks(rows) * world / len(images)
        return [
            {"rate_point": index, "lmbda": self.ladder.lambdas[index], "bpp": bpp, "mse": mse, "psnr_db": psnr}
            for index, (bpp, mse, psnr) in enumerate(rows.tolist())
        ]

    def save(self, folder: Path) -> None:
        """Writes a checkpoint; every rank calls it."""
        self._engine.save(folder, self.images_seen)

    def load(self, folder: Path) -> None:
        """Goes on from a checkpoint; every rank calls it."""
        self.images_seen = self._engine.load(folder)

    def close(self) -> None:
        """Frees the engine's memory."""
        self._engine.close()


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """Where a trial's crops and targets are; picklable, without torch.

    Attributes:
        store_url: of the feature cache.
        plan: the sweep's crops.
        pixels_plan: where their pixels are.
        feature_plan: where the teacher's outputs for them are; None for a control.
        validation: photographs and the boxes of them to validate on.
    """

    store_url: str
    plan: CropPlan
    pixels_plan: FeaturePlan
    feature_plan: FeaturePlan | None
    validation: tuple[tuple[Photograph, Crop], ...]


class TrialRun:
    """One rank's share of one trial, in a process group that is there already.

    Args:
        spec: of the sweep.
        trial: student, loss weights, seed.
        data: where its crops are.
        rank, world: this rank's place among those that share the trial.
    """

    def __init__(self, spec: Spec, trial: Trial, data: TrialData, rank: int, world: int) -> None:
        self._rank, self._world = rank, world
        torch.manual_seed(trial.seed)  # the same first weights on every rank
        student, ladder = trial.student, spec.rate_ladder
        teachers = {teacher.name: teacher.weights for teacher in spec.teachers}
        teacher_kind = read_metadata(teachers[trial.teacher])["kind"] if trial.teacher else None
        first = build_ladder(
            family=student.family,
            N=student.N,
            M=student.M,
            lambdas=ladder.lambdas,
            kind=ladder.kind,
            init=student.init,
            teacher=teachers[trial.teacher] if trial.teacher else spec.teachers[0].weights,
        )
        torch.manual_seed(trial.seed * world + rank)  # other quantisation noise on every rank
        feature_plans = tuple(plan for plan in (data.pixels_plan, data.feature_plan) if plan is not None)
        self._reader = FeatureReader(
            data.store_url,
            data.plan,
            feature_plans,
            rank=rank,
            world=world,
            batch_size=spec.training.batch_size,
            seed=spec.seed,
            cache=NodeCache(spec.node_cache.folder, int(spec.node_cache.gigabytes * 1e9)),
        )
        total = spec.early_stopping.rungs[-1]
        self._loop = Loop(
            ladder=first,
            training=spec.training,
            reader=self._reader,
            weights=trial.loss,
            learning_rate=cosine(spec.training.learning_rate, total),
            teacher_gains=ladder_gains(teacher_kind, ladder.lambdas) if teacher_kind else None,
            world=world,
        )
        self._validation = [to_tensor(cut(load_rgb(photograph), crop)) for photograph, crop in data.validation]

    def train_to(self, images: int) -> dict[str, float]:
        """See `Loop.train_to`; adds images_seen."""
        terms = self._loop.train_to(images)
        return {**terms, "images_seen": self._loop.images_seen}

    def validate(self) -> list[dict[str, float]]:
        """See `Loop.validate`; every rank calls it."""
        return self._loop.validate(self._validation, rank=self._rank, world=self._world)

    def save(self, folder: Path) -> None:
        """Writes this rank's part of a checkpoint into an empty folder; every rank calls it."""
        self._loop.save(folder)

    def load(self, folder: Path) -> None:
        """Goes on from a checkpoint; every rank calls it, with all parts in its folder."""
        self._loop.load(folder)

    def export(self, path: Path) -> None:
        """Writes the student's weights; every rank calls it, rank 0 writes."""
        if self._rank == 0:
            save_ladder(path, self._loop.ladder)

    def close(self) -> None:
        """Frees memory and the reader's thread."""
        self._reader.close()
        self._loop.close()
