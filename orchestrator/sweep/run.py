"""A sweep from its specification to the registered front, new or continued."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache

from orchestrator.evaluation.anchor import Anchor
from orchestrator.features.fill.fill import fill, missing
from orchestrator.features.keep.holds import Hold
from orchestrator.logs import log_file, say, warn
from orchestrator.registry.registry import RegistryError
from orchestrator.report.page import write_report
from orchestrator.results.account import ACCOUNT, Account
from orchestrator.results.files import read_file, write_file
from orchestrator.results.front import CANDIDATES, FRONT, Candidates, CodedStudent, Front
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.cluster import connected, room_again, trials_at_once
from orchestrator.sweep.forecast.account import PhaseTimes, account_of, reported
from orchestrator.sweep.forecast.work import save_forecast
from orchestrator.sweep.front import candidates
from orchestrator.sweep.front.measures import Measures, measure, saved_measures
from orchestrator.sweep.front.publish import check_registry, register
from orchestrator.sweep.gang.notices import Notices
from orchestrator.sweep.gang.rank import Driver
from orchestrator.sweep.gang.trial import Sweep, SweepTrial, resources
from orchestrator.sweep.plan import Plan, shared_data
from orchestrator.sweep.preemption import Leaving
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.run_folder.inputs import open_folder
from orchestrator.sweep.tune_scheduler import RungScheduler, restore
from orchestrator.sweep.tune_search import TuneSearch
from orchestrator.trials.files import check_format, read_trials
from orchestrator.trials.record import TrialRecord

# Tune would have them in the runtime environment of trials, and Ray has that in logs, on command lines and on its
# dashboard. Trials have the environment of their node.
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
ROUNDS = 3  # of trials that lost their processes, as with a node: they begin when the others have ended


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a sweep: what its steps share."""

    plan: Plan
    run: Store  # the run folder
    times: PhaseTimes
    leaving: Leaving
    gangs: int  # side by side
    continued: bool  # an earlier start did part of the work


def run_sweep(spec: Spec) -> int:
    """Runs the sweep to its end, or what is left of it.

    Args:
        spec: with absolute paths (`Spec.resolved`).

    Returns:
        How many trials failed; the same command tries them again from their last rung.

    Raises:
        SpecError, WeightsError, PhotographError, CropError, FormatError: before anything is written.
        StoreError, FeatureError: the feature store cannot be used or filled.
        RegistryError: MLflow cannot be used; all else is done.
        Preempted: SIGTERM.
    """
    times = PhaseTimes()
    with times.phase("planning"):
        plan = Plan.of(spec)
    spec = plan.spec
    run = Store(spec.results) / spec.name
    check_registry(run)
    check_format(run)
    if run.folder is None:
        run.check_conditional_writes()
    account, measures = read_file(run, ACCOUNT, Account), saved_measures(run)
    if account is not None and account.finished and open_folder(run, spec, plan.inputs):
        _say_finished(run, plan)
        return 0
    leaving = Leaving(spec.preemption.grace_s)
    with leaving.heeded(), ExitStack() as stack:
        with times.phase("ray"):
            stack.enter_context(connected())
            leaving.listen()
            gangs = trials_at_once(spec)
        continued = open_folder(run, spec, plan.inputs)
        stack.enter_context(log_file(run.folder))  # from here on the folder is this sweep's
        records.take_over(run, secrets.token_hex(8))  # an earlier process of this sweep changes nothing from now on
        stack.enter_context(Hold(Store(spec.store), plan.feature_plans, run.url))  # nothing of them is pruned meanwhile
        start = Start(plan=plan, run=run, times=times, leaving=leaving, gangs=gangs, continued=continued)
        return _run(start, measures)


def _run(start: Start, measures: Measures | None) -> int:
    """All that is left to do, step by step. Returns how many trials failed."""
    plan, run, times = start.plan, start.run, start.times
    with times.phase("anchor"):
        if measures is None:
            students = {trial.complexity_class: trial.student for trial in plan.trials}
            measures = measure(plan.spec, students, plan.validation, run, say)
    if not start.continued:
        save_forecast(plan, run, measures.complexity, start.gangs)
    with times.phase("features"):
        filled = fill(Store(plan.spec.store), plan.crops, plan.feature_plans, plan.train, say)
    say(
        f"features: {filled.reused_shards} shards reused, {filled.computed_shards} computed, "
        f"{filled.bytes / 1e6:.0f} MB in {filled.seconds:.0f} s"
    )
    before = reported(read_trials(run))
    with times.phase("trials"):
        _train(start, measures)
    trials = read_trials(run)
    with times.phase("coding"):
        front = _front(plan, run, measures.anchor, trials)
    unregistered: RegistryError | None = None
    with times.phase("registry"):
        try:
            _register(run, trials, front)
        except RegistryError as error:  # results are files: the report is made all the same
            unregistered = error
    failures = sum(record.broken for record in trials)
    account_now = partial(
        account_of,
        times,
        trials,
        before=before,
        gangs=start.gangs,
        features_stored=filled.bytes,
        continued=start.continued,
    )
    write_file(run, ACCOUNT, account_now(finished=False))
    with times.phase("report"):
        write_report(run)
    say(f"report: {run.url}/report.html")
    if unregistered is not None:
        raise unregistered
    if failures:
        warn(f"{failures} trials failed, see their files in {run.url}/trials; the same command tries them again")
    else:
        write_file(run, ACCOUNT, account_now(finished=True))
    return failures


def _train(start: Start, measures: Measures) -> None:
    """All trials that have not ended, each from its last checkpoint; those that lost their processes again."""
    spec, run = start.plan.spec, start.run
    for number in range(ROUNDS):
        _train_round(start, measures, again=number > 0)
        lost = sum(record.status == "lost" for record in read_trials(run))
        if not lost or number == ROUNDS - 1 or not room_again(spec, warn):
            return
        warn(f"{lost} trials that lost their processes are tried again")


def _train_round(start: Start, measures: Measures, *, again: bool) -> None:
    """One try of all trials that have not ended; `again`: of those that lost their processes.

    What still lives of a round before, such as a trial on a node that was cut off, changes nothing in the run folder:
    every round has a token of its own.
    """
    plan, run, token = start.plan, start.run, secrets.token_hex(8)
    spec, early = plan.spec, plan.spec.early_stopping
    records.take_over(run, token)
    before = _claimed(run, token)
    ended = sum(record.ended for record in before)
    if start.continued or again:
        begun = sum(not record.ended and record.images_seen > 0 for record in before)
        say(f"continued: {ended} of {spec.trials} trials reused, {begun} go on from their last checkpoint")
    rule = RungRule(rule=early.rule, rungs=early.rungs, reduction=early.reduction, brackets=early.brackets)
    sweep = Sweep(
        spec=spec,
        run=run,
        anchor=measures.anchor,
        complexity=measures.complexity,
        data=shared_data(plan, Store(spec.store)),
        train=plan.train,
        driver=Driver.here(),
        token=token,
        notices=Notices.start(),
    )
    progress = Progress(sweep, ended, max(len(trial.trial_id) for trial in plan.trials))
    before = restore(rule, run, token, before, progress.rung)
    with start.leaving.of_trials(run, sweep.notices):
        failed = {record.trial_id for record in before if record.status == "failed"}
        # what failed by itself would fail again: that is for the next start, when somebody has looked at it
        left_out = failed if again else frozenset()
        _tune(sweep, before, left_out, start.gangs, rule, (progress, start.leaving))


def _claimed(run: Store, token: str) -> list[TrialRecord]:
    """All records; those of trials that have not ended are this process's from now on."""
    now = {record.trial_id: record for record in read_trials(run)}
    unended = [trial_id for trial_id, record in now.items() if not record.ended]
    now |= {record.trial_id: record for record in records.claim(run, unended, token)}
    return [*now.values()]


def _tune(
    sweep: Sweep,
    before: Sequence[TrialRecord],
    left_out: Collection[str],
    at_once: int,
    rule: RungRule,
    callbacks: tuple[Progress, Leaving],
) -> None:
    """Trials on `at_once` gangs, without those left out: those that were begun first, in order.

    Every start is a new Tune experiment over what is left: the run folder holds all that a trial needs to go on.

    Args:
        before: the trials that were begun, with the decisions that `restore` made.
        left_out: ids of trials.
    """
    spec, run, search, progress = sweep.spec, sweep.run, Search(sweep.spec), callbacks[0]
    begun = [trial for trial in search.resume(before) if trial.trial_id not in left_out]
    waiting = spec.trials - len(left_out) - sum(record.ended for record in before)
    if not waiting:
        return
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    with tempfile.TemporaryDirectory(prefix="tune-") as elsewhere:
        folder = Path(elsewhere) if run.folder is None else run.folder / "tune"
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(SweepTrial, sweep=sweep), resources(sweep.spec)),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearch(search, begun, run, sweep.token, sweep.complexity),
                num_samples=waiting,
                scheduler=RungScheduler(rule, sweep.run, sweep.token, progress.rung),
                max_concurrent_trials=at_once,  # a trial starts when another has ended: it finds that one's gang warm
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name=sweep.token,
                storage_path=str(folder),
                verbose=0,
                callbacks=[*callbacks],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # SweepTrial keeps its own
                failure_config=tune.FailureConfig(max_failures=0),  # SweepTrial tries again what is worth it
            ),
        )
        tuner.fit()
    unfinished = spec.trials - sum(record.ended or record.broken for record in read_trials(run))
    if unfinished:  # Tune takes SIGINT and returns
        raise KeyboardInterrupt(f"{unfinished} trials have not ended; the same command goes on with them")


def _trial_id(trial: Any) -> str:
    return str(trial.config["trial_id"])


def _front(plan: Plan, run: Store, anchor: Anchor, trials: Sequence[TrialRecord]) -> list[CodedStudent]:
    """The front of what is coded with real bitstreams, into the run folder."""
    estimated = candidates.estimated(trials)
    say(f"trials: {len(estimated)} of {len(trials)} have a valid BD-rate at their last rung")
    chosen = candidates.choose(estimated, plan.spec.candidates)
    weights = next(teacher.weights for teacher in plan.spec.teachers if teacher.name == anchor.teacher)
    coded, reused = candidates.code_all(chosen, run, anchor, Path(weights).read_bytes(), plan.validation, say)
    if reused:
        say(f"coded: {reused} of {len(chosen) + 1} curves reused")
    brief = tuple(student.model_copy(update={"validation": ()}) for student in coded)
    write_file(run, CANDIDATES, Candidates(students=brief))
    front = candidates.front_of(coded)
    write_file(run, FRONT, Front(students=tuple(front)))
    for student in front:
        say(
            f"front: {student.trial_id}  {student.macs_per_pixel:8.0f} MACs/pixel  BD-rate {student.bd_rate_pct:+.2f} %"
        )
    return front


def _register(run: Store, trials: Sequence[TrialRecord], front: Sequence[CodedStudent]) -> None:
    """Trials and front into MLflow, the versions into front.json. Raises RegistryError."""
    versions = {registered.trial_id: registered.version for registered in register(run, trials, front, say)}
    students = tuple(student.model_copy(update={"version": versions[student.trial_id]}) for student in front)
    write_file(run, FRONT, Front(students=students))


def _say_finished(run: Store, plan: Plan) -> None:
    """What a finished sweep that is started again finds."""
    store, plans = Store(plan.spec.store), plan.feature_plans
    shards = sum(len(features.shards) for features in plans)
    lost = sum(len(missing(store, features)) for features in plans)
    front = read_file(run, FRONT, Front)
    versions = len(front.students) if front is not None else 0
    say(f"features: {shards - lost} of {shards} shards reused")
    say(f"trials: {plan.spec.trials} of {plan.spec.trials} reused; registry: {versions} versions reused")
    say(f"finished before, nothing to do: {run.url}")
