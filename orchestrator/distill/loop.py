"""One rank's share of training, up to a number of images seen. Knows nothing of Ray.

Time is images seen, over all ranks; a segment ends exactly where it was asked to. The batch of a step is a function of
the step, so a run that was interrupted continues with the crops that it would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from models.ladder import RateLadder
from orchestrator.distill.distillation import NOTHING, Distillation
from orchestrator.distill.engines import engine_for
from orchestrator.distill.learner import Learner
from orchestrator.distill.losses import bits_per_pixel, distillation_terms, image_distortion
from orchestrator.distill.segment import Segment, Terms
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.features.read.batch import Batch
from orchestrator.spec.loss import phase_at
from orchestrator.spec.sections import Training


class Reader(Protocol):
    """Where a rank's batches come from."""

    def batch(self, step: int) -> Batch:
        """This rank's share of a step's crops."""


def cosine(learning_rate: float, total_images: int, warmup_images: int = 0) -> Callable[[int], float]:
    """A learning rate that falls from `learning_rate` to a hundredth of it along half a cosine; it rises linearly to
    that curve over the first `warmup_images`."""

    def at(images: int) -> float:
        share = min(1.0, images / total_images)
        warm = min(1.0, (images + 1) / (warmup_images + 1))
        return warm * learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)

    return at


class Loop:
    """Trains a ladder on a reader's batches.

    Args:
        ladder: the network, with its first weights.
        training: batch size, optimizers, ZeRO.
        reader: this rank's batches.
        learning_rate: images seen -> learning rate of the next step, before the phase's factor.
        distillation: what to learn from a teacher, whose outputs the reader's batches hold.
        stage_one_images: a variable-rate network trains in stage 1 (highest rate point only, uniform noise) until then.
        world: ranks that share a batch.
        seed: of the quantisation noise.
    """

    def __init__(
        self,
        *,
        ladder: RateLadder,
        training: Training,
        reader: Reader,
        learning_rate: Callable[[int], float],
        distillation: Distillation = NOTHING,
        stage_one_images: int = 0,
        world: int = 1,
        seed: int = 0,
    ) -> None:
        self.ladder, self.images_seen = ladder, 0
        self._training, self._reader, self._distillation = training, reader, distillation
        self._learning_rate, self._stage_one_images = learning_rate, stage_one_images
        self._gains, self._schedule = ladder.gains, distillation.loss.schedule
        widths = dict(distillation.widths)
        if distillation.chosen is not None:
            widths.pop("y", None)  # as many channels are compared as the student has
        self._engine = engine_for(Learner(ladder, widths), training, world, seed=seed)
        device = self._engine.device
        self._chosen = None if distillation.chosen is None else distillation.chosen.to(device)
        weights = [distillation.channel_weights(index) for index in range(len(self._gains))]
        self._channel_weights = [None if of is None else of.to(device) for of in weights]
        self._begin_segment()

    def _begin_segment(self, before: Segment | None = None) -> None:
        self._terms = Terms(before)
        self._skipped_before = (before or {}).get("skipped_before", self._engine.skipped_steps)
        self._first_step_at: float | None = None

    def train_to(self, images: int) -> dict[str, float]:
        """Trains until `images` crops have been seen, counted over all ranks.

        Args:
            images: a multiple of the batch size.

        Returns:
            The mean of each loss term over all ranks and those steps of the segment that had it, `skipped_steps`,
            `first_step_at` (seconds since the epoch) and `seconds`.

        Raises:
            Diverged: too many steps in a row had a loss or gradient that is not finite.
        """
        self.advance_to(images)
        return self.take_terms()

    def advance_to(self, images: int) -> None:
        """Trains until `images` crops have been seen; a segment may be trained in several such slices.

        Its last step is done when it returns, also where a device computes by itself.

        Args:
            images: see `train_to`.

        Raises:
            ValueError: `images` is not a multiple of the batch size.
            Diverged: too many steps in a row had a loss or gradient that is not finite.
        """
        if images % self._training.batch_size:
            raise ValueError(f"images {images} is not a multiple of the batch size {self._training.batch_size}")
        if self._first_step_at is None:
            self._first_step_at = time.time()
        while self.images_seen < images:
            self._step()
        self._engine.check()

    def noise_ahead(self, crops: Sequence[int], step: int) -> Tensor:
        """The noise of a step to come, for a reader that makes it ahead; see `CropNoise.ahead`."""
        return self._engine.noise_ahead(crops, step)

    def means(self) -> dict[str, float]:
        """The mean of each loss term over the segment so far, on this rank."""
        sums, counts = self._terms.fetched()
        return {name: total / counts[name] for name, total in sums.items()}

    def take_terms(self) -> dict[str, float]:
        """Ends a segment: what `train_to` returns, of all slices since the last one ended; every rank calls it."""
        first_step_at = time.time() if self._first_step_at is None else self._first_step_at
        sums, counts = self._terms.fetched(self._engine.mean_over_ranks)
        skipped = self._engine.skipped_steps - self._skipped_before
        self._begin_segment()
        return {
            **{name: sums[name] / counts[name] for name in sorted(sums)},
            "skipped_steps": skipped,
            "first_step_at": first_step_at,
            "seconds": time.time() - first_step_at,
        }

    def _step(self) -> None:
        step = self.images_seen // self._training.batch_size
        distillation, device = self._distillation, self._engine.device
        batch = self._reader.batch(step).on(device)
        stage = 1 if self.images_seen < self._stage_one_images else 2
        rate_point = len(self._gains) - 1 if stage == 1 else batch.rate_point
        phase = phase_at(self._schedule, self.images_seen / distillation.images)
        compared, parts, read = distillation.compared(phase), distillation.parts(phase), distillation.read(phase)
        frozen = phase.frozen | distillation.frozen
        x = batch.x.contiguous(memory_format=torch.channels_last)
        targets = {tap: batch.targets[tap] for tap in read}
        if self._chosen is not None:
            for tap in read & {"y_hat", *(pair.teacher for pair in compared if pair.student == "y")}:
                targets[tap] = targets[tap][:, self._chosen]
        learning_rate = self._learning_rate(self.images_seen) * phase.learning_rate
        of_micro: list[dict[str, Tensor]] = []  # the terms of each micro-batch
        size = self._engine.micro_batch_size
        for first in range(0, len(x), size):
            micro, last = slice(first, first + size), first + size == len(x)
            output = self._engine.forward(
                x[micro],
                rate_point,
                stage,
                taps=tuple({pair.student for pair in compared}),
                parts=parts,
                latent=targets["y_hat"][micro] if "y_hat" in read else None,
                crops=batch.crops[micro],
                step=step,
                last=last,
                noise=None if batch.noise is None else batch.noise[micro],
            )
            terms = distillation_terms(
                output,
                x[micro],
                {tap: target[micro] for tap, target in targets.items()},
                lmbda=self.ladder.lambdas[rate_point],
                gain=self._gains[rate_point],
                distortion=self.ladder.distortion,
                teacher_gains={pair.term: distillation.gain(pair.term, rate_point) for pair in compared},
                weights=phase.weights,
                pairs=compared,
                channel_weights=self._channel_weights[rate_point],
            )
            of_micro.append({name: value.detach() for name, value in terms.items()})
            if last:
                self._terms.add(of_micro, self._engine.step(terms["loss"], learning_rate, frozen=frozen))
            else:
                self._engine.accumulate(terms["loss"], frozen=frozen)
        self.images_seen += self._training.batch_size

    def validate(self, images: Sequence[Tensor], *, rank: int, world: int) -> list[CurvePoint]:
        """Rate and distortion on whole images by the likelihood estimate, shared out over the ranks.

        Args:
            images: [3, H, W] in 0..1 each, H and W multiples of 64; the same on every rank.

        Returns:
            One point per rate point, with its lambda; with MS-SSIM if the lambdas weigh it. The same on every rank.
        """
        named = ("bpp", "mse", "psnr_db", *(("ms_ssim",) if self.ladder.distortion == "ms-ssim" else ()))
        rows = torch.zeros(len(self.ladder.lambdas), len(named), device=self._engine.device)
        self.ladder.eval()
        with self._engine.averaged(), torch.inference_mode():
            for image in images[rank::world]:
                x = image[None].to(self._engine.device)
                for rate_point in range(len(self.ladder.lambdas)):
                    output = self.ladder(x, rate_point)
                    decoded = output["x_hat"].clamp(0, 1).mul(255).round()
                    mse = (decoded - x * 255).div(255).square().mean()
                    bpp = bits_per_pixel(output["likelihoods"], x.shape[2] * x.shape[3])
                    values = [bpp, mse, -10 * mse.log10()]
                    if "ms_ssim" in named:
                        values.append(1 - image_distortion(decoded / 255, x, 1.0, "ms-ssim"))
                    rows[rate_point] += torch.stack(values)
        rows = self._engine.mean_over_ranks(rows) * world / len(images)
        points = [dict(zip(named, row, strict=True)) for row in rows.tolist()]
        return [
            CurvePoint(rate_point=index, lmbda=self.ladder.lambdas[index], **point)
            for index, point in enumerate(points)
        ]

    @contextmanager
    def weights(self) -> Iterator[RateLadder]:
        """Inside, the ladder has all of its weights, averaged if asked for, as they are exported; every rank enters."""
        with self._engine.whole(), self._engine.averaged():
            yield self.ladder

    def save(self, folder: Path) -> None:
        """Writes a checkpoint, also in the middle of a segment; every rank calls it."""
        sums, counts = self._terms.fetched(self._engine.mean_over_ranks)
        segment: Segment = {"sums": sums, "counts": counts, "skipped_before": self._skipped_before}
        self._engine.save(folder, self.images_seen, segment)

    def load(self, folder: Path) -> None:
        """Continues from a checkpoint; every rank calls it.

        Raises:
            FileNotFoundError: the folder holds none.
            OtherCheckpoint: it is of another version or engine.
        """
        self.images_seen, segment = self._engine.load(folder)
        self._begin_segment(segment)

    def close(self) -> None:
        """Frees the engine's memory."""
        self._engine.close()
