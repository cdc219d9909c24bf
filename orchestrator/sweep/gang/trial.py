"""A Tune Trainable over a warm gang: one step is one segment, up to the next rung.

It holds no torch: the gang's ranks do. What it has to say goes into the run folder first (weights, checkpoint, then the
trial's JSON, which makes them count), to Tune after that.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
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
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import draining
from orchestrator.sweep.gang import memory
from orchestrator.sweep.gang.gang import Gang, RankError, RankLost
from orchestrator.sweep.gang.rank import Driver, Rank, die_with
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.run_folder.checkpoints import Checkpoint

MENDS = 8  # damaged objects of the feature store that are made anew for a segment, each of which costs a gang
TRIES = 2  # of a segment whose rank died; an exception is not tried again: it would come back
NOTICE_S = 1.0  # between two looks at whether the sweep is to leave
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
    rank_class: type[Rank] = field(default=Rank, repr=False)


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
        self._told_to_leave = threading.Event()
        self._draining: frozenset[str] = frozenset()  # nodes that are about to go
        self._saved_for: frozenset[str] = frozenset()  # those of them for which what there was has been saved
        threading.Thread(target=self._await_notice, name="notice", daemon=True).start()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # False or an exception here would fail the trial and may hang the sweep: step() raises what went wrong
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
        sweep = self._sweep
        rung = records.next_rung(self._record, sweep.spec.early_stopping.rungs)
        answers = None if self._told_to_leave.is_set() else self._segment(rung)
        if answers is None:
            self._leave()
        first = answers[0]
        values = [value for point in first["points"] for value in point.values()]
        if not all(math.isfinite(value) for value in values):
            raise RankError(f"{self._trial.trial_id} diverged before {rung} images: its validation is not finite")
        score = sweep.anchor.score(first["points"])
        times = {name: first[name] for name in ("training_s", "data_wait_s", "validation_s", "saving_s")}
        turnaround_s, self._turnaround_from = self._turnaround(first), first["validation_s"]
        times |= {"turnaround_s": turnaround_s, "startup_s": self._startup_s, "build_s": self._build_s}
        self._startup_s = self._build_s = 0.0
        entry = {"images_seen": rung, "points": first["points"], **asdict(score), "losses": first["losses"], **times}
        entry["bytes"] = {name: sum(answer["bytes"][name] for answer in answers) for name in first["bytes"]}
        entry["ended_at"] = time.time()
        entry["mended"] = self._mended
        entry["hosts"] = [answer["host"] for answer in answers]
        self._commit(entry, answers)
        return {
            "sweep_trial_id": self._trial.trial_id,
            "images_seen": rung,
            "val_bd_rate_pct": INVALID_BD_RATE_PCT if score.bd_rate_pct is None else score.bd_rate_pct,
            "val_bd_rate_reason": score.bd_rate_reason or "",
            "val_log_lagrangian_ratio": score.log_lagrangian_ratio,
            "turnaround_s": -1.0 if turnaround_s is None else turnaround_s,
        }

    def cleanup(self) -> None:
        if self._gang is not None:
            self._gang.kill()

    def _await_notice(self) -> None:
        while not self._told_to_leave.is_set():
            time.sleep(NOTICE_S)
            with suppress(RayError):  # Ray's head, or a store, that is away gives no notice
                self._draining = draining()
            with suppress(StoreError):
                if records.told_to_leave(self._sweep.run, self._sweep.token):
                    self._told_to_leave.set()

    def _leave(self) -> NoReturn:
        """Say that what there is is saved, and wait for the end: Tune would start the next trial."""
        self._write(self._current() | {"left": self._sweep.token})
        while True:
            time.sleep(60.0)

    def _begin(self, config: dict[str, Any]) -> None:
        """Build this trial, on a new gang if there is none or the old one fails at it."""
        record = records.read_trial(self._sweep.run, config["trial_id"])
        self._failure, self._fresh_trial = None, True
        if record is None:
            self._failure = RankError(f"{self._sweep.run.url}/{records.trial_file(config['trial_id'])} is gone")
            return
        self._record, self._trial = record, records.trial_of(record)
        self._mended: list[str] = []  # damaged objects of the feature store, since the last rung
        if self._told_to_leave.is_set():
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
                gang.call("build", sweep.spec, trial, data, sweep.run, records.checkpoint(self._record))
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

    def _segment(self, rung: int) -> list[dict[str, Any]] | None:
        """Train up to the rung and validate. None: the sweep is to leave, and what was trained until then is saved."""
        tries: Counter[int] = Counter()  # that ended with a rank's death, by the images they began from
        mended = 0
        while True:
            try:
                return self._advance(rung)
            except RankLost as error:
                tries[records.images_seen(self._record)] += 1
                if max(tries.values()) == TRIES:
                    raise self._with_advice(error) from None
            except RankError as error:
                mended += 1
                if not isinstance(error.cause, DamagedObject) or mended > MENDS:
                    raise self._with_advice(error) from None
                self._mend(error.cause)
            self._build()

    def _advance(self, rung: int) -> list[dict[str, Any]] | None:
        """`_segment`, once. Where a node of the gang is about to go, what there is is saved first; then it trains on
        for as long as it can."""
        sweep, trial_id, gang = self._sweep, self._trial.trial_id, self._warm_gang()
        nodes, seen = {place.node_id for place in gang.places}, records.images_seen(self._record)

        def going() -> frozenset[str]:
            return self._draining & nodes - self._saved_for

        while True:
            began = seen
            seen = gang.train(
                seen, rung, sweep.spec.training.batch_size, lambda: self._told_to_leave.is_set() or bool(going())
            )
            leaving, gone = self._told_to_leave.is_set(), going()
            if seen == rung and not leaving:
                path = None if rung == sweep.spec.early_stopping.rungs[-1] else self._path(rung)
                return gang.call("finish", sweep.run, records.weights_file(trial_id), path)
            if seen > began:
                self._keep(seen, gang.call("save", sweep.run, self._path(seen)))
            if leaving:
                return None
            self._saved_for |= gone

    def _path(self, images: int) -> str:
        """Of a checkpoint of this trial; no other process and no other moment has it."""
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
        found = ray.get(task.remote(Store(data.store_url), data.plan, features, damaged.shard, train))
        self._mended += found or [str(damaged)]

    def _turnaround(self, first: dict[str, Any]) -> float | None:
        """Seconds from the last training step of the trial before to the first of this one, without that one's
        validation."""
        fresh, self._fresh_trial = self._fresh_trial, False
        if not fresh or first["gap_s"] is None:
            return None
        return float(first["gap_s"] - self._turnaround_from)

    def _commit(self, entry: dict[str, Any], answers: list[dict[str, Any]]) -> None:
        """The rung counts from the moment that the trial's JSON names it."""
        sweep, trial_id, images = self._sweep, self._trial.trial_id, entry["images_seen"]
        files = {name: digest for answer in answers for name, digest in answer["files"].items()}
        path = self._path(images)
        point = Checkpoint(images_seen=images, path=path, files=files) if files else None
        record = self._current()
        rungs = [rung for rung in record["rungs"] if rung["images_seen"] < images]
        record |= {
            "status": "running",
            "error": None,
            "lost": False,
            "images_seen": images,
            "rungs": [*rungs, entry],
            "checkpoint": asdict(point) if point else None,
            "weights": records.weights_file(trial_id),
            "weights_digest": answers[0]["weights_sha256"],
        }
        self._write(record)
        self._mended = []
        records.delete_checkpoints(sweep.run, trial_id, but=path)

    def _keep(self, images: int, files: list[dict[str, str]]) -> None:
        """A checkpoint in the middle of a segment counts from then on, too."""
        named = {name: digest for part in files for name, digest in part.items()}
        path = self._path(images)
        point = Checkpoint(images_seen=images, path=path, files=named)
        self._write(self._current() | {"images_seen": images, "checkpoint": asdict(point)})
        records.delete_checkpoints(self._sweep.run, self._trial.trial_id, but=path)

    def _current(self) -> records.Record:
        """The trial's record with the driver's decisions."""
        return records.read_trial(self._sweep.run, self._trial.trial_id) or self._record

    def _write(self, record: records.Record) -> None:
        records.check_owner(self._sweep.run, self._sweep.token)
        records.write_trial(self._sweep.run, record)
        self._record = record
