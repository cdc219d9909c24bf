"""Registers a sweep's trials and front in MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from orchestrator.registry.reach import VARIABLE, RegistryError
from orchestrator.registry.registry import Registry
from orchestrator.results.files import read_file, write_file
from orchestrator.results.front import FRONT, CodedStudent, Front
from orchestrator.results.mlflow_runs import MLFLOW_RUNS, MlflowRuns
from orchestrator.spec.messages import SpecError, shown
from orchestrator.store.store import Store
from orchestrator.sweep.front.bundles import make_bundles
from orchestrator.trials.record import TrialRecord


def check_registry(run: Store) -> None:
    """Raises SpecError if there is no place for MLflow's database, which in SQLite needs a local folder."""
    if run.folder is None and not os.environ.get(VARIABLE):
        raise SpecError([f"results: {run.url} is not allowed: a local folder, or set {VARIABLE}"])


def try_registry(run: Store, sweep: str) -> None:
    """Try the MLflow that the environment names: training for hours and then finding it closed helps nobody.

    Args:
        run: the run folder; nothing is written to it.
        sweep: the sweep's id.

    Raises:
        SpecError: it names nothing that MLflow knows.
        RegistryError: it cannot be used, after minutes of retries by MLflow's client if it does not answer.
    """
    uri = os.environ.get(VARIABLE)
    if not uri:
        return  # a file of the run folder's own
    try:
        registry = Registry(run, sweep)
    except RegistryError as error:
        allowed = "http://HOST:PORT, https://HOST, or a database such as sqlite:////FOLDER/mlflow.db"
        raise SpecError([f"{VARIABLE}: {shown(uri)} is not allowed: {allowed} ({error})"]) from error
    try:
        registry.check()
    except RegistryError as error:
        raise RegistryError(f"{VARIABLE}: {error}; nothing was begun") from error


def register(
    run: Store,
    sweep: str,
    trials: Sequence[TrialRecord],
    front: Sequence[CodedStudent],
    say: Callable[[str], None],
    tracking_uri: str | None = None,
) -> bool:
    """Bring trials and front into MLflow, and the versions' numbers into front.json; what is there stays unchanged.

    Students whose bundle is missing are exported first.

    Args:
        run: the run folder.
        sweep: the sweep's id.
        trials: all records.
        front: the students on it.
        say: takes lines of progress.
        tracking_uri: of MLflow; None: as `Registry`.

    Returns:
        Whether front.json or mlflow.json has changed, which the report shows.

    Raises:
        RegistryError: MLflow cannot be used, after minutes of retries by its client.
        FormatError: mlflow.json is of another format.
        LostWeights: a version lacks weights that are gone or damaged.
        ClusterError: a bundle is missing, and Ray cannot be used.
    """
    make_bundles(run, front, say)
    try:
        registry = Registry(run, sweep, tracking_uri)
        runs = registry.log_trials(trials)
        moved = _keep(run, registry.where(runs))
        versions = registry.register_front(front, runs)
    except RegistryError as error:
        hint = "results are in the run folder, and the same command registers them"
        raise RegistryError(f"{error}; {hint}") from error
    new = sum(version.new for version in versions)
    say(f"registry: {new} versions of {registry.model} registered, {len(versions) - new} reused")
    for version in versions:
        if version.new:
            say(f"registry: version {version.version}: {version.uri}")
    numbers = {version.trial_id: version.version for version in versions}
    students = tuple(student.model_copy(update={"version": numbers[student.trial_id]}) for student in front)
    if students == tuple(front):
        return moved
    write_file(run, FRONT, Front(students=students))
    return True


def _keep(run: Store, where: MlflowRuns) -> bool:
    """Write mlflow.json, unless it is there. Returns whether it was written."""
    if read_file(run, MLFLOW_RUNS, MlflowRuns) == where:
        return False
    write_file(run, MLFLOW_RUNS, where)
    return True


def attach_report(
    run: Store, sweep: str, trials: Sequence[TrialRecord], name: str, tracking_uri: str | None = None
) -> None:
    """Log the report with the sweep's own run in MLflow, unless it is there.

    Args:
        run: the run folder.
        sweep: the sweep's id.
        trials: all records.
        name: of the report's file.
        tracking_uri: of MLflow; None: as `Registry`.

    Raises:
        RegistryError: MLflow cannot be used.
    """
    if trials:
        first = min(trials, key=lambda trial: trial.trial_id)
        Registry(run, sweep, tracking_uri).attach(first, name, run.read(name))
