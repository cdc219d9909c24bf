"""One Ray Tune experiment: it trains the trials of a sweep that have not ended."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.error import TuneError
from ray.tune.execution import class_cache

from orchestrator.sweep.choose.given import GivenTrials
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.gang.sweep import Sweep, resources
from orchestrator.sweep.gang.trial import SweepTrial
from orchestrator.sweep.preemption import SigtermHandler
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.tune_scheduler import RungScheduler
from orchestrator.sweep.tune_search import TuneSearch
from orchestrator.trials.record import TrialRecord

# Tune would copy these into the trials' runtime environment, which Ray shows in logs, on command lines and on its
# dashboard. Trials get them from the environment of their node instead.
CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


def run_experiment(
    sweep: Sweep,
    search: Search | GivenTrials,
    before: Sequence[TrialRecord],
    left_out: Collection[str],
    gangs: int,
    rule: RungRule,
    callbacks: tuple[Progress, SigtermHandler],
) -> None:
    """Train trials in a new Tune experiment: first those that were begun before, then new ones.

    Tune's own state of earlier experiments is not used: the run folder has all that a trial needs to continue.

    Args:
        sweep: what the trials share; `spec.trials` of them are trained.
        search: gives them out.
        before: records of the trials that were begun, with the decisions that `restore` made.
        left_out: ids of trials that are not trained.
        gangs: that train at the same time.
        rule: the early-stopping rule, restored.
        callbacks: Tune's.

    Raises:
        KeyboardInterrupt: SIGINT, after which Tune returns.
        NotOwner: another process runs this sweep by now.
        Preempted: SIGTERM.
    """
    spec, run, progress = sweep.spec, sweep.run, callbacks[0]
    paused = {record.trial_id for record in before if record.status == "paused"}
    begun = [trial for trial in search.resume(before) if trial.trial_id not in {*left_out, *paused}]
    waiting = spec.trials - len(left_out) - sum(record.ended for record in before)
    if not waiting:
        return
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIAL_VARIABLES)
    with tempfile.TemporaryDirectory(prefix="tune-") as elsewhere:
        folder = Path(elsewhere) if run.folder is None else run.folder / "tune"
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(SweepTrial, sweep=sweep), resources(sweep.spec)),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearch(search, rule, begun, run, sweep.token, sweep.complexity, progress.waited),
                num_samples=waiting * len(spec.early_stopping.rungs),  # a paused trial may be given out once a rung
                scheduler=RungScheduler(rule, sweep.run, sweep.token, progress.rung),
                max_concurrent_trials=gangs,  # so a trial starts when another has ended, on its warm gang
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name=sweep.token,
                storage_path=str(folder),
                verbose=0,
                callbacks=[*callbacks],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # SweepTrial writes its own
                failure_config=tune.FailureConfig(max_failures=0),  # SweepTrial retries where it helps
            ),
        )
        _fit(tuner, sweep)
    unfinished = spec.trials - sum(record.ended or record.broken for record in sweep.records())
    if unfinished:  # Tune takes SIGINT and returns
        raise KeyboardInterrupt(f"{unfinished} trials have not ended; the same command goes on with them")


def _fit(tuner: tune.Tuner, sweep: Sweep) -> None:
    try:
        tuner.fit()
    except TuneError:  # wraps, with a traceback, what the scheduler or a callback raised
        records.check_owner(sweep.run, sweep.token)
        raise


def _trial_id(trial: Any) -> str:
    return str(trial.config["trial_id"])
