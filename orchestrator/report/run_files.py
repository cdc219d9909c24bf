"""A sweep, finished or not, read from its run folder: what the report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

import yaml

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.costs import Complexity
from orchestrator.evaluation.metric import CurvePoint, Measured, Metric
from orchestrator.results.account import ACCOUNT, FORECAST, Account, Forecasts
from orchestrator.results.anchor import ANCHOR, AnchorFile
from orchestrator.results.files import needed, read_file
from orchestrator.results.format import FormatError
from orchestrator.results.front import CANDIDATES, CODED_ANCHOR, FRONT, Candidates, CodedCurve, CodedStudent, Front
from orchestrator.results.interchange import INTERCHANGE, Interchange
from orchestrator.results.mlflow_runs import MLFLOW_RUNS, MlflowRuns
from orchestrator.results.pictures import PICTURES, Pictures
from orchestrator.results.references import REFERENCES, References
from orchestrator.results.shelf import SHELF, ShelfFile
from orchestrator.results.versions import VERSIONS, Versions
from orchestrator.spec.sections import Axis
from orchestrator.store.store import Store
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds. `trials` are in the order of their ids."""

    name: str
    spec: str
    planned: int | None  # trials, without pairs of a shelf; None: the specification does not say
    axes: tuple[Axis, ...]  # of the front, beside BD-rate
    versions: Versions
    trials: tuple[TrialRecord, ...]
    anchor: Anchor
    anchor_complexity: Complexity | None  # None: the run folder was begun before it was kept
    anchor_coded: CodedCurve | None  # its real bitstreams, as the front's are; None: its rates are estimated
    front: tuple[CodedStudent, ...]
    coded: Mapping[str, CodedStudent]  # by trial id
    has_front: bool  # False: the sweep has not come so far
    references: References | None
    pictures: Pictures | None
    account: Account | None
    forecast: Forecasts | None  # made before the sweep began
    shelf: ShelfFile | None  # of a sweep over encoders and decoders
    interchange: Interchange | None
    mlflow: MlflowRuns | None

    @property
    def metric(self) -> Metric:
        """How all curves of the sweep are read."""
        return self.anchor.metric

    @property
    def anchor_points(self) -> tuple[tuple[int | float, float, float], ...]:
        """(rate point, bpp, quality in dB) of the anchor, by rate."""
        points: list[tuple[int | float, float, float]]
        if self.anchor_coded is not None:
            points = [(point.rate_point, *self.metric.pair(point)) for point in self.anchor_coded.points]
        else:
            pairs = zip(self.anchor.rate_points, self.anchor.curve, strict=True)
            points = [(rate_point, *pair) for rate_point, pair in pairs]
        return tuple(sorted(points, key=lambda point: point[1]))

    @property
    def running(self) -> bool:
        """Whether trials are to be trained yet, or the front is to be made."""
        whole = [trial for trial in self.trials if trial.pair is None]
        return not self.has_front or len(whole) < (self.planned or 0) or not all(_over(trial) for trial in self.trials)

    @property
    def last_rung(self) -> datetime | None:
        """When the last rung was reached; None: none was."""
        ends = [trial.rungs[-1].ended_at for trial in self.trials if trial.rungs]
        return datetime.fromtimestamp(max(ends), UTC) if ends else None

    def measured(self) -> dict[str, tuple[Measured, ...]]:
        """Name -> each crop's bitstreams: the anchor first, then the front by cost, then what else was coded."""
        found = {} if self.anchor_coded is None else {self.anchor.teacher: self.anchor_coded.validation}
        for student in sorted(self.front, key=lambda student: student.macs_per_pixel):
            found[student.trial_id] = student.validation
        for curve in self.references.curves if self.references else ():
            found[curve.name] = curve.validation
        return {name: rows for name, rows in found.items() if rows}


def read_run(run: Store) -> RunFiles:
    """Reads the run folder's files.

    Raises:
        FileNotFoundError: one that every sweep has from its first rung on is missing.
        FormatError: one is of another format.
    """
    trials = tuple(read_trials(run))
    anchor, spec = needed(run, ANCHOR, AnchorFile), _needed_text(run, "spec.yaml")
    front = read_file(run, FRONT, Front)
    candidates = read_file(run, CANDIDATES, Candidates)
    students = () if front is None else front.students
    return RunFiles(
        name=run.url.rstrip("/").rpartition("/")[2],
        spec=spec,
        planned=_planned(spec),
        axes=_axes(spec),
        versions=needed(run, VERSIONS, Versions),
        trials=trials,
        anchor=anchor.anchor,
        anchor_complexity=anchor.complexity,
        anchor_coded=read_file(run, CODED_ANCHOR, CodedCurve),
        front=students,
        coded={student.trial_id: student for student in (students if candidates is None else candidates.students)},
        has_front=front is not None,
        references=read_file(run, REFERENCES, References),
        pictures=read_file(run, PICTURES, Pictures),
        account=read_file(run, ACCOUNT, Account),
        forecast=read_file(run, FORECAST, Forecasts),
        shelf=read_file(run, SHELF, ShelfFile),
        interchange=read_file(run, INTERCHANGE, Interchange),
        mlflow=read_file(run, MLFLOW_RUNS, MlflowRuns),
    )


def bd_rate_of(run: RunFiles, trial: TrialRecord) -> float | None:
    """From real bitstreams where the trial was coded, else the estimate of its last rung."""
    coded = run.coded.get(trial.trial_id)
    if coded is not None:
        return coded.bd_rate_pct
    return estimate_of(trial)


def estimate_of(trial: TrialRecord) -> float | None:
    """The BD-rate of its last rung, from estimated rates."""
    return trial.rungs[-1].bd_rate_pct if trial.rungs else None


def why_none(run: RunFiles, trial: TrialRecord) -> str | None:
    """Why `bd_rate_of` a trial is None; None where it has one."""
    if bd_rate_of(run, trial) is not None:
        return None
    if trial.trial_id in run.coded:
        return f"its coded curve: {run.coded[trial.trial_id].bd_rate_reason}"
    if not trial.rungs:
        return "it has not reached a rung" if trial.error is None else "it failed before its first rung"
    return f"its curve at {trial.images_seen:,} images, estimated: {trial.rungs[-1].bd_rate_reason}"


def points_of(run: RunFiles, trial: TrialRecord) -> tuple[tuple[CurvePoint, ...], bool]:
    """A trial's curve, and whether it is from real bitstreams."""
    coded = run.coded.get(trial.trial_id)
    return (trial.rungs[-1].points, False) if coded is None else (coded.points, True)


def _over(trial: TrialRecord) -> bool:
    return trial.ended or trial.broken


def _planned(spec: str) -> int | None:
    trials = _field(spec, "trials")
    return trials if isinstance(trials, int) else None


def _axes(spec: str) -> tuple[Axis, ...]:
    names = _field(spec, "axes")
    known: tuple[Axis, ...] = get_args(Axis)
    found = [axis for name in names for axis in known if axis == name] if isinstance(names, list) else []
    return tuple(found) or ("macs_per_pixel",)


def _field(spec: str, name: str) -> object:
    """Read leniently: a page that does not know it is still of use."""
    try:
        content = yaml.safe_load(spec)
    except yaml.YAMLError:
        return None
    return content.get(name) if isinstance(content, dict) else None


def _needed_text(run: Store, name: str) -> str:
    try:
        return run.read(name).decode()
    except UnicodeDecodeError:
        raise FormatError(f"{run.url}/{name}: it is not UTF-8 text") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{run.url}/{name} is missing: every finished sweep has it") from None
