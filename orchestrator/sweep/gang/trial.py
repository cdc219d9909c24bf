"""A Tune Trainable over a warm gang: one step is one segment, up to the next rung.

It does not import torch: only the gang's ranks do. A result is written to the run folder first (weights, checkpoint,
then the trial's JSON file, which makes them count) and reported to Tune after that.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import NoReturn

import ray
from ray import tune
from ray.exceptions import RayError

from orchestrator.features.format.key import DamagedObject
from orchestrator.store.store import Store
from orchestrator.sweep.gang import memory
from orchestrator.sweep.gang.gang import Gang, RankError, RankLost
from orchestrator.sweep.gang.mending import mended
from orchestrator.sweep.gang.notices import Notice
from orchestrator.sweep.gang.rank import RankSegment, die_with
from orchestrator.sweep.gang.sweep import StepResult, Sweep, TrialConfig, step_result
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial, trial_file
from orchestrator.trials.record import Checkpoint, Rung, SegmentBytes, TrialRecord

MAX_MENDS = 8  # damaged feature objects recomputed per segment; each of them costs the gang
MAX_TRIES = 2  # of a segment whose rank died; a rank's exception is not retried, since it would come back
NOTICE_RETRY_S = 1.0  # before asking for the sweep's notice again, after Ray gave no answer


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """A segment that was trained, validated and saved."""

    ranks: list[RankSegment]  # rank 0 first
    weights: str  # path in the run folder
    checkpoint: str | None  # path in the run folder; None: not needed


class SweepTrial(tune.Trainable):
    """Used with `reuse_actors=True`: Tune resets it for the next trial, and the gang stays warm."""

    def setup(self, config: TrialConfig, sweep: Sweep) -> None:
        """Called by Tune once per actor, with the actor's first trial."""
        die_with(sweep.driver)
        self._sweep, self._build_s = sweep, 0.0
        self._gang: Gang | None = None
        self._failure: RankError | None = None
        self._startup_s = self._turnaround_from = 0.0
        self._notice = Notice()
        self._saved_before_drain: frozenset[str] = frozenset()  # draining nodes for which a checkpoint was saved
        threading.Thread(target=self._await_notices, name="notices", daemon=True).start()
        self._begin(config)

    def reset_config(self, new_config: TrialConfig) -> bool:
        """Called by Tune with the actor's next trial."""
        # False or an exception here would fail the trial and may hang the sweep: step() raises what went wrong
        self._begin(new_config)
        return True

    def step(self) -> StepResult:
        """Train the next segment and record its rung.

        Raises:
            RankError: the gang failed, at this segment or when the trial was built; or the trial diverged.
            NotOwner: another process runs the trial now.
        """
        if self._failure is not None:
            raise self._failure
        reached = {rung.images_seen for rung in self._record.rungs}
        target = next(images for images in self._sweep.spec.early_stopping.rungs if images not in reached)
        segment = None if self._notice.leave else self._segment(target)
        if segment is None:
            self._leave()
        rung = self._rung(target, segment.ranks)
        self._commit_rung(rung, segment)
        return step_result(self._trial.trial_id, rung)

    def cleanup(self) -> None:
        """Called by Tune when the actor ends."""
        if self._gang is not None:
            self._gang.kill()

    def _await_notices(self) -> None:
        while not self._notice.leave:
            try:
                self._notice = self._sweep.notices.after(self._notice.number)
            except RayError:
                time.sleep(NOTICE_RETRY_S)

    def _leave(self) -> NoReturn:
        """Mark the trial as saved, and wait to be ended: if this returned, Tune would start the next trial."""
        self._update(lambda current: {"status": "saved"})
        while True:
            time.sleep(60.0)

    def _begin(self, config: TrialConfig) -> None:
        """Build this trial; on a new gang if there is none yet, or if the old one fails."""
        record = read_trial(self._sweep.run, config["trial_id"])
        self._failure, self._fresh_trial = None, True
        if record is None:
            self._failure = RankError(f"{self._sweep.run.url}/{trial_file(config['trial_id'])} is gone")
            return
        self._record, self._trial = record, record.trial
        self._mended: list[str] = []  # feature objects recomputed since the last rung
        if self._notice.leave:
            return
        try:
            self._build()
        except RankError as error:
            self._failure = self._with_advice(error)

    def _build(self) -> None:
        """Raises RankError: a rank raised, or a second gang was lost too."""
        sweep, trial = self._sweep, self._trial
        data = sweep.data.of(trial)
        began, started_s = time.time(), self._startup_s
        for attempt in range(MAX_TRIES):
            try:
                gang = self._warm_gang()
                gang.call("build", sweep.spec, trial, data, sweep.run, self._record.checkpoint)
                self._build_s += time.time() - began - (self._startup_s - started_s)
                return
            except RankLost:
                if attempt == MAX_TRIES - 1:
                    raise

    def _warm_gang(self) -> Gang:
        if self._gang is None or not self._gang.alive:
            began, training = time.time(), self._sweep.spec.training
            self._gang = Gang(
                size=training.ranks,
                threads=training.threads_per_rank,
                driver=self._sweep.driver,
                gpus=training.gpus,
                placement_group=ray.util.get_current_placement_group(),
                rank_class=self._sweep.rank_class,
            )
            self._startup_s = time.time() - began
        return self._gang

    def _segment(self, rung: int) -> _Segment | None:
        """Train up to the rung and validate. None: the sweep is to leave; the work done so far is saved."""
        tries: Counter[int] = Counter()  # images seen at the start -> tries from there that a rank's death ended
        mends = 0
        while True:
            try:
                return self._advance(rung)
            except RankLost as error:
                tries[self._record.images_seen] += 1
                if max(tries.values()) == MAX_TRIES:
                    raise self._with_advice(error) from None
            except RankError as error:
                mends += 1
                if not isinstance(error.cause, DamagedObject) or mends > MAX_MENDS:
                    raise self._with_advice(error) from None
                self._mend(error.cause)
            self._build()

    def _advance(self, rung: int) -> _Segment | None:
        """One try of `_segment`. If a node of the gang is draining, a checkpoint is saved at once; then the gang trains
        on for as long as the node lasts."""
        sweep, gang, seen = self._sweep, self._warm_gang(), self._record.images_seen
        nodes = {address.node_id for address in gang.addresses}

        def unsaved() -> frozenset[str]:
            return self._notice.draining & nodes - self._saved_before_drain

        while True:
            began = seen
            seen = gang.train(seen, rung, sweep.spec.training.batch_size, lambda: self._notice.leave or bool(unsaved()))
            leaving, draining = self._notice.leave, unsaved()
            if seen == rung and not leaving:
                weights = records.weights_file(self._trial.trial_id, rung, sweep.token)
                path = None if rung == sweep.spec.early_stopping.rungs[-1] else self._new_checkpoint(rung)
                ranks = gang.call("finish", sweep.run, weights, path)
                return _Segment(ranks=ranks, weights=weights, checkpoint=path)
            if seen > began:
                path = self._new_checkpoint(seen)
                self._commit_checkpoint(seen, path, gang.call("save", sweep.run, path))
            if leaving:
                return None
            self._saved_before_drain |= draining

    def _new_checkpoint(self, images: int) -> str:
        """The path of a new checkpoint of this trial, in the run folder."""
        return records.checkpoint_folder(self._trial.trial_id, images, self._sweep.token)

    def _with_advice(self, error: RankError) -> RankError:
        """The error; if memory ran out, with a last line that says what to set."""
        if not error.out_of_memory:
            return error
        return RankError(f"{error}\n{memory.advice(self._sweep.spec.training)}")

    def _mend(self, damaged: DamagedObject) -> None:
        """Have a damaged object of the feature store recomputed. The gang that read it is gone."""
        data, gpus = self._sweep.data, self._sweep.spec.training.gpus
        features, store = data.plan_with(damaged.plan), Store(data.store_url)
        lines = mended(store, features, damaged.shard, self._sweep.sources, gpus_per_rank=gpus)
        self._mended += lines or [str(damaged)]

    def _rung(self, images: int, ranks: list[RankSegment]) -> Rung:
        """The rung that a finished segment reached. Raises RankError if the trial diverged."""
        first = ranks[0]
        if not all(point.finite for point in first.points):
            raise RankError(f"{self._trial.trial_id} diverged before {images} images: its validation is not finite")
        turnaround_s, self._turnaround_from = self._turnaround(first), first.validation_s
        startup_s, build_s = self._startup_s, self._build_s
        self._startup_s = self._build_s = 0.0
        return Rung(
            images_seen=images,
            points=first.points,
            **asdict(self._sweep.anchor.score(first.points)),
            losses=first.losses,
            training_s=first.training_s,
            data_wait_s=first.data_wait_s,
            validation_s=first.validation_s,
            saving_s=first.saving_s,
            turnaround_s=turnaround_s,
            startup_s=startup_s,
            build_s=build_s,
            bytes=SegmentBytes(
                read=sum(rank.bytes.read for rank in ranks),
                checkpoint=sum(rank.bytes.checkpoint for rank in ranks),
                weights=sum(rank.bytes.weights for rank in ranks),
            ),
            ended_at=time.time(),
            mended=tuple(self._mended),
            hosts=tuple(rank.host for rank in ranks),
        )

    def _turnaround(self, first: RankSegment) -> float | None:
        """Seconds from the last training step of the gang's previous trial to the first step of this one, without the
        previous trial's validation. None: this is a later segment, or the gang's first trial."""
        fresh, self._fresh_trial = self._fresh_trial, False
        if not fresh or first.gap_s is None:
            return None
        return first.gap_s - self._turnaround_from

    def _commit_rung(self, rung: Rung, segment: _Segment) -> None:
        """Write the rung into the trial's file; from then on it counts."""
        images = rung.images_seen
        checkpoint = None
        if segment.checkpoint is not None:
            files = {name: digest for rank in segment.ranks for name, digest in rank.files.items()}
            checkpoint = Checkpoint(images_seen=images, path=segment.checkpoint, files=files)
        self._update(
            lambda current: {
                "images_seen": images,
                "rungs": (*(earlier for earlier in current.rungs if earlier.images_seen < images), rung),
                "checkpoint": checkpoint,
                "weights": segment.weights,
                "weights_digest": segment.ranks[0].weights_sha256,
            }
        )
        self._mended = []
        records.delete_unnamed(self._sweep.run, self._record)

    def _commit_checkpoint(self, images: int, path: str, files: list[dict[str, str]]) -> None:
        """Write a checkpoint within a segment into the trial's file.

        Args:
            images: seen.
            path: of the checkpoint, in the run folder.
            files: of each rank, name -> SHA-256.
        """
        merged = {name: digest for rank_files in files for name, digest in rank_files.items()}
        checkpoint = Checkpoint(images_seen=images, path=path, files=merged)
        self._update(lambda current: {"images_seen": images, "checkpoint": checkpoint})
        records.delete_unnamed(self._sweep.run, self._record)

    def _update(self, fields: Callable[[TrialRecord], Mapping[str, object]]) -> None:
        """Change fields of the trial's record as it is in the file now: the driver may have added a decision.

        Raises NotOwner if another process runs the trial, or the driver has given it up.
        """
        sweep, trial_id = self._sweep, self._trial.trial_id

        def change(current: TrialRecord) -> TrialRecord:
            if current.status != "running":  # the driver has given this process up
                raise records.NotOwner(f"{sweep.run.url}/{trial_file(trial_id)} has ended: {current.status}")
            return current.changed(**fields(current))

        self._record = records.update(sweep.run, trial_id, sweep.token, change)
