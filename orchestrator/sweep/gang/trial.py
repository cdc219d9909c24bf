"""A Tune Trainable over a warm gang: one step is one segment, up to the next rung.

It holds no torch: the gang's ranks do. What it has to say goes into the run folder first (weights, checkpoint, then the
trial's JSON, which makes them count), to Tune after that.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import ray
from ray import tune
from ray.exceptions import RayError

from orchestrator.distill.trial_data import SharedData
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.complexity import Complexity
from orchestrator.features.fill.fill import mend
from orchestrator.features.format.key import DamagedObject
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.gang import memory
from orchestrator.sweep.gang.gang import Gang, RankError, RankLost
from orchestrator.sweep.gang.notices import Notice, Notices
from orchestrator.sweep.gang.rank import Driver, Rank, RankSegment, die_with
from orchestrator.sweep.run_folder import records
from orchestrator.trials.files import read_trial, trial_file
from orchestrator.trials.record import Checkpoint, Rung, SegmentBytes, TrialRecord

MENDS = 8  # damaged objects of the feature store that are made anew for a segment, each of which costs a gang
TRIES = 2  # of a segment whose rank died; an exception is not tried again: it would come back
RETRY_S = 1.0  # to ask for the sweep's notice again, when Ray gave no answer
INVALID_BD_RATE_PCT = 1e6  # what Tune is told of a curve that is not valid; nothing is ranked by it


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What all trials of a sweep share; picklable, without torch."""

    spec: Spec
    run: Store  # the run folder
    anchor: Anchor
    complexity: Mapping[str, Complexity]  # by complexity class
    data: SharedData
    train: tuple[Photograph, ...]  # what a damaged shard is made anew from
    driver: Driver
    token: str  # of this process: see records.take_over
    notices: Notices
    rank_class: type[Rank] = field(default=Rank, repr=False)


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """Trained, validated and saved up to a rung."""

    ranks: list[RankSegment]
    weights: str  # path in the run folder
    checkpoint: str | None  # path in the run folder; None: not needed


def resources(spec: Spec) -> tune.PlacementGroupFactory:
    """An empty head for the trainable, then a bundle a rank: the gang starts whole or waits."""
    training = spec.training
    bundle = {"CPU": 1.0} | ({"GPU": training.gpus_per_rank} if training.gpus_per_rank else {})
    return tune.PlacementGroupFactory([{}, *(dict(bundle) for _ in range(training.ranks_per_trial))])


class SweepTrial(tune.Trainable):
    """Used with `reuse_actors=True`: Tune resets it for the next trial, and the gang stays.

    After each step Tune gets images_seen, val_bd_rate_pct (a large finite number, with val_bd_rate_reason, if the
    curve is not valid), val_log_lagrangian_ratio and turnaround_s.
    """

    def setup(self, config: dict[str, Any], sweep: Sweep) -> None:
        die_with(sweep.driver)
        self._sweep, self._build_s = sweep, 0.0
        self._gang: Gang | None = None
        self._failure: RankError | None = None
        self._startup_s = self._turnaround_from = 0.0
        self._notice = Notice()
        self._saved_for: frozenset[str] = frozenset()  # draining nodes for which what there was has been saved
        threading.Thread(target=self._await_notices, name="notices", daemon=True).start()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # False or an exception here would fail the trial and may hang the sweep: step() raises what went wrong
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
        reached = {rung.images_seen for rung in self._record.rungs}
        target = next(images for images in self._sweep.spec.early_stopping.rungs if images not in reached)
        segment = None if self._notice.leave else self._segment(target)
        if segment is None:
            self._leave()
        rung = self._rung(target, segment.ranks)
        self._commit(rung, segment)
        return {
            "sweep_trial_id": self._trial.trial_id,
            "images_seen": rung.images_seen,
            "val_bd_rate_pct": INVALID_BD_RATE_PCT if rung.bd_rate_pct is None else rung.bd_rate_pct,
            "val_bd_rate_reason": rung.bd_rate_reason or "",
            "val_log_lagrangian_ratio": rung.log_lagrangian_ratio,
            "turnaround_s": -1.0 if rung.turnaround_s is None else rung.turnaround_s,
        }

    def cleanup(self) -> None:
        if self._gang is not None:
            self._gang.kill()

    def _await_notices(self) -> None:
        while not self._notice.leave:
            try:
                self._notice = self._sweep.notices.after(self._notice.number)
            except RayError:
                time.sleep(RETRY_S)

    def _leave(self) -> NoReturn:
        """Say that what there is is saved, and wait for the end: Tune would start the next trial."""
        self._update(lambda there: {"status": "saved"})
        while True:
            time.sleep(60.0)

    def _begin(self, config: dict[str, Any]) -> None:
        """Build this trial, on a new gang if there is none or the old one fails at it."""
        record = read_trial(self._sweep.run, config["trial_id"])
        self._failure, self._fresh_trial = None, True
        if record is None:
            self._failure = RankError(f"{self._sweep.run.url}/{trial_file(config['trial_id'])} is gone")
            return
        self._record, self._trial = record, record.trial
        self._mended: list[str] = []  # damaged objects of the feature store, since the last rung
        if self._notice.leave:
            return
        try:
            self._build()
        except RankError as error:
            self._failure = self._with_advice(error)

    def _build(self) -> None:
        """Raises RankError if a second gang fails too."""
        sweep, trial = self._sweep, self._trial
        data = sweep.data.of(trial)
        began, started_s = time.time(), self._startup_s
        for attempt in range(TRIES):
            try:
                gang = self._warm_gang()
                gang.call("build", sweep.spec, trial, data, sweep.run, self._record.checkpoint)
                self._build_s += time.time() - began - (self._startup_s - started_s)
                return
            except RankLost:
                if attempt == TRIES - 1:
                    raise

    def _warm_gang(self) -> Gang:
        if self._gang is None or not self._gang.alive:
            began, training = time.time(), self._sweep.spec.training
            self._gang = Gang(
                size=training.ranks_per_trial,
                threads=training.threads_per_rank,
                driver=self._sweep.driver,
                gpus=training.gpus_per_rank,
                placement_group=ray.util.get_current_placement_group(),
                rank_class=self._sweep.rank_class,
            )
            self._startup_s = time.time() - began
        return self._gang

    def _segment(self, rung: int) -> _Segment | None:
        """Train up to the rung and validate. None: the sweep is to leave, and what was trained until then is saved."""
        tries: Counter[int] = Counter()  # that ended with a rank's death, by the images they began from
        mended = 0
        while True:
            try:
                return self._advance(rung)
            except RankLost as error:
                tries[self._record.images_seen] += 1
                if max(tries.values()) == TRIES:
                    raise self._with_advice(error) from None
            except RankError as error:
                mended += 1
                if not isinstance(error.cause, DamagedObject) or mended > MENDS:
                    raise self._with_advice(error) from None
                self._mend(error.cause)
            self._build()

    def _advance(self, rung: int) -> _Segment | None:
        """`_segment`, once. Where a node of the gang is about to go, what there is is saved first; then it trains on
        for as long as it can."""
        sweep, gang, seen = self._sweep, self._warm_gang(), self._record.images_seen
        nodes = {address.node_id for address in gang.addresses}

        def unsaved() -> frozenset[str]:
            return self._notice.draining & nodes - self._saved_for

        while True:
            began = seen
            seen = gang.train(seen, rung, sweep.spec.training.batch_size, lambda: self._notice.leave or bool(unsaved()))
            leaving, draining = self._notice.leave, unsaved()
            if seen == rung and not leaving:
                weights = records.weights_file(self._trial.trial_id, rung, sweep.token)
                path = None if rung == sweep.spec.early_stopping.rungs[-1] else self._path(rung)
                ranks = gang.call("finish", sweep.run, weights, path)
                return _Segment(ranks=ranks, weights=weights, checkpoint=path)
            if seen > began:
                path = self._path(seen)
                self._keep(seen, path, gang.call("save", sweep.run, path))
            if leaving:
                return None
            self._saved_for |= draining

    def _path(self, images: int) -> str:
        """A new one, for a checkpoint of this trial."""
        return records.checkpoint_folder(self._trial.trial_id, images, self._sweep.token)

    def _with_advice(self, error: RankError) -> RankError:
        """Of what ended for want of memory the last line says what to set."""
        if not error.out_of_memory:
            return error
        return RankError(f"{error}\n{memory.advice(self._sweep.spec.training)}")

    def _mend(self, damaged: DamagedObject) -> None:
        """Have a damaged object of the feature store made anew; the gang that met it is gone."""
        data, train = self._sweep.data, self._sweep.train
        task = ray.remote(num_cpus=0)(mend)  # the trial's CPUs are its own
        features = data.plan_with(damaged.plan)
        mended = ray.get(task.remote(Store(data.store_url), data.plan, features, damaged.shard, train))
        self._mended += mended or [str(damaged)]

    def _rung(self, images: int, ranks: list[RankSegment]) -> Rung:
        """What the trial measured. Raises RankError if it diverged."""
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
        """Seconds from the last training step of the trial before to the first of this one, without that one's
        validation."""
        fresh, self._fresh_trial = self._fresh_trial, False
        if not fresh or first.gap_s is None:
            return None
        return first.gap_s - self._turnaround_from

    def _commit(self, rung: Rung, segment: _Segment) -> None:
        """The rung counts from the moment that the trial's file names it."""
        images = rung.images_seen
        checkpoint = None
        if segment.checkpoint is not None:
            files = {name: digest for rank in segment.ranks for name, digest in rank.files.items()}
            checkpoint = Checkpoint(images_seen=images, path=segment.checkpoint, files=files)
        self._update(
            lambda there: {
                "images_seen": images,
                "rungs": (*(before for before in there.rungs if before.images_seen < images), rung),
                "checkpoint": checkpoint,
                "weights": segment.weights,
                "weights_digest": segment.ranks[0].weights_sha256,
            }
        )
        self._mended = []
        records.delete_unnamed(self._sweep.run, self._record)

    def _keep(self, images: int, path: str, files: list[dict[str, str]]) -> None:
        """A checkpoint in the middle of a segment counts from then on, too."""
        of_all = {name: digest for of_rank in files for name, digest in of_rank.items()}
        checkpoint = Checkpoint(images_seen=images, path=path, files=of_all)
        self._update(lambda there: {"images_seen": images, "checkpoint": checkpoint})
        records.delete_unnamed(self._sweep.run, self._record)

    def _update(self, fields: Callable[[TrialRecord], Mapping[str, Any]]) -> None:
        """Change the trial's record, which may have got a decision since. Raises NotOwner if it is no longer ours."""
        sweep, trial_id = self._sweep, self._trial.trial_id

        def change(there: TrialRecord) -> TrialRecord:
            if there.status != "running":  # the driver has given this process up
                raise records.NotOwner(f"{sweep.run.url}/{trial_file(trial_id)} has ended: {there.status}")
            return there.changed(**fields(there))

        self._record = records.update(sweep.run, trial_id, sweep.token, change)
