"""A finished sweep, read from its run folder: what the report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.metric import Metric
from orchestrator.results.account import ACCOUNT, FORECAST, Account, Forecasts
from orchestrator.results.anchor import ANCHOR, AnchorFile
from orchestrator.results.files import needed, read_file
from orchestrator.results.format import FormatError
from orchestrator.results.front import CANDIDATES, CODED_ANCHOR, FRONT, Candidates, CodedCurve, CodedStudent, Front
from orchestrator.results.interchange import INTERCHANGE, Interchange
from orchestrator.results.shelf import SHELF, ShelfFile
from orchestrator.results.versions import VERSIONS, Versions
from orchestrator.store.store import Store
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds. `trials` are in the order of their ids."""

    name: str
    spec: str
    versions: Versions
    trials: tuple[TrialRecord, ...]
    anchor: Anchor
    anchor_points: tuple[tuple[float, float], ...]  # (bpp, quality in dB)
    anchor_coded: bool  # its points are from real bitstreams, as the front's are
    front: tuple[CodedStudent, ...]
    coded: Mapping[str, CodedStudent]  # by trial id
    account: Account | None
    forecast: Forecasts | None  # made before the sweep began
    shelf: ShelfFile | None  # of a sweep over encoders and decoders
    interchange: Interchange | None

    @property
    def metric(self) -> Metric:
        """How all curves of the sweep are read."""
        return self.anchor.metric


def read_run(run: Store) -> RunFiles:
    """Reads the run folder's files.

    Raises:
        FileNotFoundError: one that every finished sweep has is missing.
        FormatError: one is of another format.
    """
    trials = tuple(read_trials(run))
    anchor = needed(run, ANCHOR, AnchorFile).anchor
    front = needed(run, FRONT, Front).students
    coded_anchor = read_file(run, CODED_ANCHOR, CodedCurve)
    points = anchor.metric.curve(coded_anchor.points) if coded_anchor is not None else anchor.curve
    candidates = read_file(run, CANDIDATES, Candidates)
    coded = front if candidates is None else candidates.students
    return RunFiles(
        name=run.url.rstrip("/").rpartition("/")[2],
        spec=_needed_text(run, "spec.yaml"),
        versions=needed(run, VERSIONS, Versions),
        trials=trials,
        anchor=anchor,
        anchor_points=tuple(sorted(points)),
        anchor_coded=coded_anchor is not None,
        front=front,
        coded={student.trial_id: student for student in coded},
        account=read_file(run, ACCOUNT, Account),
        forecast=read_file(run, FORECAST, Forecasts),
        shelf=read_file(run, SHELF, ShelfFile),
        interchange=read_file(run, INTERCHANGE, Interchange),
    )


def bd_rate_of(run: RunFiles, trial: TrialRecord) -> float | None:
    """From real bitstreams where the trial was coded, else the estimate of its last rung."""
    coded = run.coded.get(trial.trial_id)
    if coded is not None:
        return coded.bd_rate_pct
    return trial.rungs[-1].bd_rate_pct if trial.rungs else None


def _needed_text(run: Store, name: str) -> str:
    try:
        return run.read(name).decode()
    except UnicodeDecodeError:
        raise FormatError(f"{run.url}/{name}: it is not UTF-8 text") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{run.url}/{name} is missing: every finished sweep has it") from None
