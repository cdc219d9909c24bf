"""What the trials of a sweep share with its driver, and what they exchange with Ray Tune. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ray import ObjectRef, tune

from orchestrator.distill.trial_data import SharedData
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.gang.notices import Notices
from orchestrator.sweep.gang.rank import Driver, Rank
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import Rung, TrialRecord

INVALID_BD_RATE_PCT = 1e6  # told to Tune for a curve that is not valid; nothing is ranked by it


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What all trials share that are trained side by side; picklable.

    A shelf trains twice: its halves, then pairs of them. Each time `spec` has the number of trials and the rungs.
    """

    spec: Spec
    pairs: bool = False  # the trials are pairs of halves
    run: Store  # the run folder
    anchor: Anchor
    complexity: Mapping[str, Complexity]  # by complexity class
    data: SharedData
    # (CropPlan, Photographs) to recompute a damaged shard from: large, so a reference that few tasks follow
    sources: ObjectRef
    driver: Driver
    token: str  # of this process, see run_folder/records.py
    notices: Notices
    rank_class: type[Rank] = field(default=Rank, repr=False)

    def records(self) -> list[TrialRecord]:
        """The trials' records, as they are in the run folder now. Raises FormatError, StoreError."""
        return [record for record in read_trials(self.run) if (record.pair is not None) == self.pairs]


class TrialConfig(TypedDict):
    """What Tune passes to a trial; all else is in the trial's file."""

    trial_id: str


class StepResult(TypedDict):
    """What Tune is told at a rung. Tune adds fields of its own."""

    sweep_trial_id: str  # Tune has a `trial_id` of its own
    images_seen: int
    val_bd_rate_pct: float  # INVALID_BD_RATE_PCT if the curve is not valid
    val_bd_rate_reason: str  # why the curve is not valid; empty if it is
    val_log_lagrangian_ratio: float
    turnaround_s: float  # -1: the first trial of a gang, or a later segment


def step_result(trial_id: str, rung: Rung) -> StepResult:
    """What Tune is told of a trial's rung."""
    return StepResult(
        sweep_trial_id=trial_id,
        images_seen=rung.images_seen,
        val_bd_rate_pct=INVALID_BD_RATE_PCT if rung.bd_rate_pct is None else rung.bd_rate_pct,
        val_bd_rate_reason=rung.bd_rate_reason or "",
        val_log_lagrangian_ratio=rung.log_lagrangian_ratio,
        turnaround_s=-1.0 if rung.turnaround_s is None else rung.turnaround_s,
    )


def resources(spec: Spec) -> tune.PlacementGroupFactory:
    """The placement group of a trial: an empty head for the trainable, then one bundle per rank. Ray reserves all
    bundles or none, so a gang starts whole or waits."""
    training = spec.training
    bundle = {"CPU": 1.0} | ({"GPU": training.gpus} if training.gpus else {})
    return tune.PlacementGroupFactory([{}, *(dict(bundle) for _ in range(training.ranks))])
