"""The end of a sweep, and a finished sweep that is started again: what is missing is made again, or named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from orchestrator.features.fill.missing import missing
from orchestrator.logs import say
from orchestrator.registry.reach import RegistryError
from orchestrator.report.page import REPORT, write_report
from orchestrator.results.account import ACCOUNT, Account
from orchestrator.results.files import read_file
from orchestrator.results.format import FormatError
from orchestrator.results.front import CANDIDATES, CODED_ANCHOR, FRONT, Candidates, CodedStudent, Front, coded_file
from orchestrator.results.interchange import INTERCHANGE
from orchestrator.results.shelf import SHELF
from orchestrator.store.store import Store
from orchestrator.sweep.forecast.account import PhaseTimes
from orchestrator.sweep.front.measures import saved_measures
from orchestrator.sweep.front.publish import attach_report, register
from orchestrator.sweep.pairing import pairs_are_joined
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.run_folder.inputs import SPEC, sweep_id
from orchestrator.trials.files import read_trials
from orchestrator.trials.record import TrialRecord
from orchestrator.trials.weights import LostWeights, lost_weights


def is_finished(run: Store, plan: Plan) -> bool:
    """Whether nothing is left that needs Ray: all trials have ended, and what was measured and coded is there.

    Args:
        run: the run folder of this sweep.
        plan: of the sweep.

    Raises:
        FormatError: a file is of another format.
    """
    account, candidates = read_file(run, ACCOUNT, Account), read_file(run, CANDIDATES, Candidates)
    if account is None or not account.finished or candidates is None or saved_measures(run) is None:
        return False
    names = {SPEC, FRONT, CODED_ANCHOR, *(coded_file(student.trial_id) for student in candidates.students)}
    names |= {SHELF, INTERCHANGE} if plan.has_pairs else set()
    records = read_trials(run)
    trials = sum(record.pair is None for record in records)
    whole = trials == plan.spec.trials and all(record.ended for record in records)
    whole = whole and (not plan.has_pairs or pairs_are_joined(run))
    return whole and all(run.exists(name) for name in sorted(names))


def complete(run: Store, plan: Plan) -> None:
    """Bring a finished sweep into MLflow and draw its report, where that is missing. Nothing else is written.

    Args:
        run: the run folder, `is_finished`.
        plan: of the sweep.

    Raises:
        RegistryError: MLflow cannot be used.
        LostWeights: weights are gone; whatever does not need them is there by then.
    """
    store, trials, front = Store(plan.spec.store), read_trials(run), read_file(run, FRONT, Front)
    shards = sum(len(features.shards) for features in plan.feature_plans)
    absent = sum(len(missing(store, features)) for features in plan.feature_plans)
    say(f"features: {shards - absent} of {shards} shards reused")
    say(f"trials: {len(trials)} of {len(trials)} reused")
    students = front.students if front is not None else ()
    publish(run, sweep_id(plan.inputs), trials, students, PhaseTimes(), again=True)
    lost = lost_weights(run, trials)
    if lost:
        raise LostWeights("\n".join(lost))
    say(f"finished before: {run.url}")


def publish(
    run: Store,
    sweep: str,
    trials: Sequence[TrialRecord],
    front: Sequence[CodedStudent],
    times: PhaseTimes,
    *,
    again: bool = False,
    before_report: Callable[[], None] = lambda: None,
) -> None:
    """Register trials and front, then write the report, which is written whatever MLflow says.

    Args:
        run: the run folder.
        sweep: its id.
        trials: all records.
        front: the students on it.
        times: of the driver's phases.
        again: the report is only written if it is missing, or if front.json or mlflow.json changes.
        before_report: called between the two.

    Raises:
        RegistryError, LostWeights: as `register`, after the report was written.
        FormatError: a file that the report needs is gone or of another format.
    """
    unregistered: RegistryError | LostWeights | None = None
    changed = not again
    with times.phase("registry"):
        try:
            changed |= register(run, sweep, trials, front, say)
        except (RegistryError, LostWeights) as error:
            unregistered = error
    before_report()
    if changed or not run.exists(REPORT):
        with times.phase("report"), _named():
            write_report(run)
        say(f"report: {run.url}/{REPORT}")
    if unregistered is not None:
        raise unregistered
    with times.phase("registry"):
        attach_report(run, sweep, trials, REPORT)


@contextmanager
def _named() -> Iterator[None]:
    """A file that cannot be made again, such as versions.json, is named in one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise FormatError(str(error)) from None
