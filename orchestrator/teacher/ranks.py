"""One rank's share of a teacher's training. All ranks run the same code in step; rank 0 writes and speaks.

Knows nothing of Ray: a rank is a worker of Ray Train, or a process that torchrun started.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from models.ladder import RateLadder
from models.one_line import OneLineError
from models.weights import digest, load_ladder, save_ladder, slice_from
from orchestrator.distill.ladders import ladder_of
from orchestrator.distill.loop import Loop, cosine
from orchestrator.distill.patience import Diverged
from orchestrator.evaluation.metric import METRICS, CurvePoint
from orchestrator.features.read.live import LiveReader
from orchestrator.photographs.tensors import cut_tensor
from orchestrator.spec.recipe import Recipe
from orchestrator.sweep.forecast.text import span
from orchestrator.sweep.gang import memory
from orchestrator.sweep.run_folder.checkpoints import fetched, write_checkpoint
from orchestrator.sweep.run_folder.records import checkpoint_folder
from orchestrator.teacher.plan import TrainingError, Work, weights_file
from orchestrator.teacher.record import LOG, Check, check_owner, read_record, update, weights_intact
from orchestrator.trials.record import Checkpoint

SLICE_S = 2.0  # of training between two questions whether to stop
PROGRESS_S = 30.0  # between two lines of progress


class Driver(Protocol):
    """Who started the ranks, as rank 0 sees it."""

    def say(self, line: str) -> None:
        """Tell the user a line."""

    def leaving(self) -> bool:
        """Whether the training is to be saved and left."""


def train(work: Work, rank: int, world: int, driver: Driver) -> bool:
    """Trains from the last checkpoint, or the beginning, to the recipe's last image.

    Args:
        work: what to train.
        rank, world: this rank's place in a process group that it has joined.
        driver: used by rank 0.

    Returns:
        Whether the training is finished; else it was saved, since the driver leaves.

    Raises:
        TrainingError: it diverged, or memory ran out.
        NotOwner: another process trains this teacher now.
        CheckpointError, StoreError, PhotographError.
    """
    with _named(work.plan.recipe):
        share = _Share(work, rank, world, driver)
        try:
            return share.train()
        finally:
            share.close()


class _Share:
    """The state of `train`."""

    def __init__(self, work: Work, rank: int, world: int, driver: Driver) -> None:
        self._work, self._recipe, self._run = work, work.plan.recipe, work.run
        self._rank, self._world, self._driver = rank, world, driver
        record = read_record(self._run)  # ahead of all collectives: rank 0 does not change it before everybody has it
        check_owner(self._run, record, work.token)
        assert record is not None
        self._record = record
        self._pixels = [cut_tensor(photograph, crop) for photograph, crop in work.plan.validation]
        recipe = self._recipe
        torch.set_num_threads(recipe.training.threads_per_rank)
        torch.manual_seed(recipe.seed + rank)
        self._reader = LiveReader(
            work.plan.train,
            recipe.crops,
            rate_points=len(recipe.rate_ladder.lambdas),
            batch_size=recipe.training.batch_size,
            seed=recipe.seed,
            rank=rank,
            world=world,
        )
        self._loop = self._started_loop()
        self._batches, self._began_from = 1, self._loop.images_seen
        self._began = self._said_at = time.monotonic()

    def train(self) -> bool:
        """See `train`."""
        recipe, loop = self._recipe, self._loop
        self._say(f"{recipe.name}: trains from {loop.images_seen} to {recipe.images} images in {self._world} ranks")
        while loop.images_seen < recipe.images:
            until = min(recipe.images, (loop.images_seen // recipe.checkpoint_every + 1) * recipe.checkpoint_every)
            if not self._advance(until):
                if loop.images_seen > self._began_from:
                    self._save()
                return False
            self._check()
        if self._of_rank_0(self._rank == 0 and not weights_intact(self._run, recipe, self._record)):
            self._export()
        return True

    def close(self) -> None:
        """Frees the reader's thread and the engine's memory."""
        self._reader.close()
        self._loop.close()

    def _started_loop(self) -> Loop:
        """The loop, from the last checkpoint if there is one."""
        recipe, rates = self._recipe, self._recipe.rate_ladder
        ladder = self._first_ladder()
        if recipe.training.compile == "transforms":
            ladder.compile_transforms()
        loop = Loop(
            ladder=ladder,
            training=recipe.training,
            reader=self._reader,
            learning_rate=cosine(recipe.training.learning_rate, recipe.images, recipe.training.warmup_images),
            stage_one_images=int(recipe.stage_one_share * recipe.images) if rates.kind == "variable-rate" else 0,
            world=self._world,
            seed=recipe.seed,
        )
        if self._record.checkpoint is not None:
            with fetched(self._run, self._record.checkpoint) as folder:
                loop.load(folder)
            self._say(f"{recipe.name}: goes on from its checkpoint at {loop.images_seen} images")
        return loop

    def _first_ladder(self) -> RateLadder:
        ladder = ladder_of(self._recipe.network, self._recipe.rate_ladder)
        if self._recipe.init != "random":
            kept = slice_from(ladder, load_ladder(self._recipe.init))
            count = sum(1 for _ in ladder.parameters())
            taken = f"{count - len(kept)} of {count} parameters are taken from it"
            if len(kept) == count:
                raise TrainingError(f"init: {self._recipe.init}: none of the network's parameters is in it")
            self._say(f"init: {self._recipe.init}: {taken}")
        return ladder

    def _advance(self, until: int) -> bool:
        """Trains until so many images were seen. False: the driver leaves before that.

        Slices do not change the result, since a step's batch depends on its number alone. Their length and the end are
        rank 0's decision, so all ranks make the same ones.
        """
        loop, batch_size = self._loop, self._recipe.training.batch_size
        while loop.images_seen < until:
            if self._of_rank_0(self._driver.leaving() if self._rank == 0 else None):
                return False
            began, images = time.monotonic(), loop.images_seen
            loop.advance_to(min(until, images + self._batches * batch_size))
            seconds_per_image = self._of_rank_0((time.monotonic() - began) / (loop.images_seen - images))
            self._batches = max(1, int(SLICE_S / seconds_per_image) // batch_size)
            if loop.images_seen < until and time.monotonic() > self._said_at + PROGRESS_S:
                self._say(self._progress(loop.means()))
        return True

    def _progress(self, losses: dict[str, float]) -> str:
        """Step, loss, rate and time left, in one line."""
        recipe, seen = self._recipe, self._loop.images_seen
        terms = "  ".join(f"{name} {losses[name]:.4f}" for name in ("loss", "bpp", "distortion") if name in losses)
        rate = (seen - self._began_from) / (time.monotonic() - self._began)
        left = span((recipe.images - seen) / rate)
        step = f"step {seen // recipe.training.batch_size} of {recipe.images // recipe.training.batch_size}"
        self._said_at = time.monotonic()
        return f"{recipe.name}: {seen}/{recipe.images} images, {step}  {terms}  {rate:.1f} images/s, {left} left"

    def _check(self) -> None:
        """Validates, exports and saves; from then on the images count."""
        loop, recipe = self._loop, self._recipe
        losses = loop.take_terms()
        points = tuple(loop.validate(self._pixels, rank=self._rank, world=self._world))
        self._say(self._progress(losses))
        if not all(point.finite for point in points):
            raise TrainingError(
                f"{recipe.name} diverged before {loop.images_seen} images: its validation is not finite"
            )
        pairs = METRICS[recipe.rate_ladder.distortion].curve(points)
        curve = "  ".join(f"{bpp:.3f} bpp {quality_db:.2f} dB" for bpp, quality_db in pairs)
        self._say(f"{recipe.name}: {loop.images_seen}/{recipe.images} images, validation: {curve}")
        self._export()
        self._save(self._new_check(losses, points))

    def _new_check(self, losses: dict[str, float], points: tuple[CurvePoint, ...]) -> Check:
        terms = {name: value for name, value in losses.items() if name not in ("seconds", "first_step_at")}
        return Check(images_seen=self._loop.images_seen, losses=terms, seconds=losses["seconds"], points=points)

    def _export(self) -> None:
        """Writes the weights as they are now, averaged if asked for; every rank calls it, rank 0 writes."""
        recipe = self._recipe
        with self._loop.weights() as ladder, tempfile.TemporaryDirectory() as folder:
            if self._rank == 0:
                exported = Path(folder) / weights_file(recipe)
                dtype = torch.float16 if recipe.store_dtype == "fp16" else None
                notes = {"recipe": recipe.model_dump_json(), "images_seen": str(self._loop.images_seen)}
                save_ladder(exported, ladder, dtype=dtype, **notes)
                check_owner(self._run, read_record(self._run), self._work.token)
                self._run.replace(weights_file(recipe), exported.read_bytes())
                self._record = update(self._run, self._work.token, weights_sha256=digest(exported))

    def _save(self, check: Check | None = None) -> None:
        """Writes a checkpoint, then the record that names it, then deletes the older ones; every rank calls it.

        Args:
            check: that it was written at; None: in the middle of a segment.
        """
        loop, run, token = self._loop, self._run, self._work.token
        path = self._of_rank_0(checkpoint_folder(self._recipe.name, loop.images_seen, token))
        files: list[Any] = [None] * self._world
        dist.all_gather_object(files, write_checkpoint(loop.save, run / path))
        if self._rank == 0:
            merged = {name: digest for rank_files in files for name, digest in rank_files.items()}
            checkpoint = Checkpoint(images_seen=loop.images_seen, path=path, files=merged)
            checks = self._record.checks + ((check,) if check else ())
            self._record = update(run, token, images_seen=loop.images_seen, checkpoint=checkpoint, checks=checks)
            run.replace(LOG, self._record.log())
            for name in run.list("checkpoints"):
                if not name.startswith(f"{path}/"):
                    run.delete(name)
        self._of_rank_0(None)  # nobody goes on, or ends, ahead of the record

    def _of_rank_0(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def _say(self, line: str) -> None:
        if self._rank == 0:
            self._driver.say(line)


@contextmanager
def _named(recipe: Recipe) -> Iterator[None]:
    """Raises TrainingError in place of torch's exceptions, which the driver could not unpickle or tell apart."""
    try:
        yield
    except Diverged as error:
        raise TrainingError(f"{recipe.name} diverged: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OneLineError) or not memory.raised(error):
            raise
        raise TrainingError(memory.advice(recipe.training)) from None
