"""Runs a sweep from its specification to the registered front; new, or continued."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import ray

from orchestrator.features.keep.holds import Hold
from orchestrator.logs import log_file, say, warn
from orchestrator.registry.live import LiveLog
from orchestrator.results.account import ACCOUNT
from orchestrator.results.files import write_file
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.given import GivenTrials
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.cluster import connected, trials_at_once, wait_for_gang
from orchestrator.sweep.experiment import run_experiment
from orchestrator.sweep.finished import complete, is_finished, publish
from orchestrator.sweep.forecast.account import PhaseTimes, account_of, reported
from orchestrator.sweep.forecast.work import begin_forecast
from orchestrator.sweep.front.candidates import code_front
from orchestrator.sweep.front.illustrations import Illustrations
from orchestrator.sweep.front.interchange import exchange
from orchestrator.sweep.front.measures import Measures, saved_measures
from orchestrator.sweep.front.publish import check_registry, try_registry
from orchestrator.sweep.gang.notices import Notices
from orchestrator.sweep.gang.rank import Driver
from orchestrator.sweep.gang.sweep import Sweep
from orchestrator.sweep.live_report import LiveReport
from orchestrator.sweep.pairing import pairs_are_joined, pairs_to_join
from orchestrator.sweep.plan import Plan, check_servers, shared_data
from orchestrator.sweep.preemption import SigtermHandler
from orchestrator.sweep.prepare import prepare
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.run_folder.inputs import check_inputs, open_folder, sweep_id
from orchestrator.sweep.settle import as_begun, settle
from orchestrator.sweep.tune_scheduler import restore
from orchestrator.trials.files import check_format, read_trials
from orchestrator.trials.record import TrialRecord

MAX_ROUNDS = 3  # a round trains all trials; the next one retries those that lost their processes, as with a node


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the steps of one start of a sweep share."""

    plan: Plan
    run: Store  # the run folder
    times: PhaseTimes
    sigterm: SigtermHandler
    gangs: int  # that train at the same time
    continued: bool  # an earlier start did part of the work


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Trials that are trained side by side; a shelf has two stages, halves and pairs."""

    spec: Spec  # its `trials` and `early_stopping` are this stage's
    search: Callable[[], Search | GivenTrials]
    width: int  # of the longest trial's id, in characters
    pairs: bool = False
    first_weights: Mapping[tuple[str, str], str] = field(default_factory=dict)  # of pairs, by name in the store


def run_sweep(spec: Spec) -> int:
    """Run the sweep, or continue it, to its end.

    Args:
        spec: with absolute paths (`Spec.resolved`).

    Returns:
        How many trials failed; the same command tries them again from their last rung.

    Raises:
        SpecError, WeightsError, PhotographError, CropError, FormatError: before anything is written.
        StoreError, FeatureError: the feature store cannot be used or filled.
        RegistryError: MLflow cannot be used. Before training nothing is written then; at the end all else is done.
        LostWeights: a trial's weights are gone or damaged.
        NotOwner: another process runs this sweep now.
        Preempted: SIGTERM.
    """
    times = PhaseTimes()
    run = Store(spec.results) / spec.name
    with times.phase("planning"):
        plan = Plan.of(as_begun(spec, run))
    spec = plan.spec
    check_registry(run)
    check_format(run)
    begun = check_inputs(run, plan.inputs)
    check_servers(run)
    if is_finished(run, plan) and begun:  # in this order: a damaged file is named before anything starts
        complete(run, plan)
        return 0
    check_servers(Store(spec.store))
    measures = saved_measures(run)
    sigterm = SigtermHandler(spec.preemption.grace_s)
    with sigterm.installed(), ExitStack() as stack:
        with times.phase("ray"):
            stack.enter_context(connected())
            sigterm.install()
            plan = settle(plan, say)
            spec = plan.spec
            gangs = trials_at_once(spec)
        with times.phase("registry"):
            try_registry(run, sweep_id(plan.inputs))
        continued = open_folder(run, spec, plan.inputs)
        stack.enter_context(log_file(run.folder))  # from here on the folder is this sweep's
        records.take_over(run, secrets.token_hex(8))  # from now on an earlier process of this sweep changes nothing
        # keeps the objects of these plans from being pruned
        stack.enter_context(Hold(Store(spec.store), plan.feature_plans, run.url))
        start = Start(plan=plan, run=run, times=times, sigterm=sigterm, gangs=gangs, continued=continued)
        return _run(start, measures)


def _run(start: Start, measures: Measures | None) -> int:
    """Do the remaining steps. Returns how many trials failed.

    Args:
        start: this start.
        measures: of an earlier start; None: to be measured.
    """
    plan, run, times = start.plan, start.run, start.times
    before = read_trials(run)
    trained = sum(record.ended and record.pair is None for record in before) == plan.spec.trials
    if trained:
        say(f"continued: {plan.spec.trials} of {plan.spec.trials} trials reused")
    prepared = prepare(
        plan,
        run,
        times,
        measures,
        starts=not trained,
        features=not trained or (plan.has_pairs and not pairs_are_joined(run)),
        forecast=None if start.continued else begin_forecast(plan, run, start.gangs),
    )
    measures = prepared.measures
    if not trained:
        with times.phase("trials"):
            width = max(len(trial.trial_id) for trial in plan.trials)
            _train(start, measures, Stage(spec=plan.spec, search=lambda: Search(plan.spec), width=width))
    if plan.has_pairs and not any(record.broken and record.pair is None for record in read_trials(run)):
        _join_pairs(start, measures)
    trials = read_trials(run)
    with times.phase("coding"):
        illustrations = Illustrations(plan.spec, plan.validation, run, measures.anchor)
        illustrations.begin()
        front = code_front(plan.spec, plan.validation, run, measures.anchor, trials, say)
        if plan.has_pairs:
            exchange(front, run, plan.validation, measures.anchor.metric, say)
        illustrations.finish(front)
    failures = sum(record.broken for record in trials)

    def write_account(*, finished: bool = False) -> None:
        account = account_of(
            times,
            trials,
            before=reported(before),
            gangs=start.gangs,
            features_stored=prepared.stored_bytes,
            continued=start.continued,
            finished=finished,
        )
        write_file(run, ACCOUNT, account)

    publish(run, sweep_id(plan.inputs), trials, front, times, before_report=write_account)
    if failures:
        warn(f"{failures} trials failed, see their files in {run.url}/trials; the same command tries them again")
    else:
        write_account(finished=True)
    return failures


def _join_pairs(start: Start, measures: Measures) -> None:
    """Score the pairs of a shelf's halves, and train those on the front as whole networks."""
    plan, run, times = start.plan, start.run, start.times
    with times.phase("pairs"):
        joining = pairs_to_join(plan, run, measures, say)
    if pairs_are_joined(run):
        return
    with times.phase("trials"):
        stage = Stage(
            spec=joining.spec,
            search=lambda: GivenTrials(joining.trials),
            width=max(len(trial.trial_id) for trial in joining.trials),
            pairs=True,
            first_weights=joining.first_weights,
        )
        _train(start, measures, stage)


def _train(start: Start, measures: Measures, stage: Stage) -> None:
    """Train all trials that have not ended, each from its last checkpoint; retry those that lost their processes."""
    with LiveReport(start.run) as report:
        for number in range(MAX_ROUNDS):
            sweep = _train_round(start, measures, stage, report, again=number > 0)
            lost = sum(record.status == "lost" for record in sweep.records())
            if not lost or number == MAX_ROUNDS - 1 or not wait_for_gang(stage.spec.training, warn):
                return
            warn(f"{lost} trials that lost their processes are tried again")


def _train_round(start: Start, measures: Measures, stage: Stage, report: LiveReport, *, again: bool) -> Sweep:
    """Train all trials that have not ended, once.

    Every round has its own token, so processes that survive from an earlier round, as on a node that was cut off from
    the network, change nothing in the run folder.

    Args:
        start: this start.
        measures: the anchor and the complexities.
        stage: whose trials.
        report: is written again after every rung.
        again: a later round of this start; trials that failed in an earlier one are left out.
    """
    plan, run, token = start.plan, start.run, secrets.token_hex(8)
    spec, early = stage.spec, stage.spec.early_stopping
    sweep = Sweep(
        spec=spec,
        pairs=stage.pairs,
        run=run,
        anchor=measures.anchor,
        complexity=measures.complexity,
        data=replace(shared_data(plan, Store(spec.store)), joined=stage.first_weights),
        sources=ray.put((plan.crops, plan.train)),
        driver=Driver.here(),
        token=token,
        notices=Notices.start(),
    )
    records.take_over(run, token)
    before = _claimed(sweep)
    ended = sum(record.ended for record in before)
    if start.continued or again:
        begun = sum(not record.ended and record.images_seen > 0 for record in before)
        say(f"continued: {ended} of {spec.trials} trials reused, {begun} go on from their last checkpoint")
    rule = RungRule(rule=early.rule, rungs=early.rungs, reduction=early.reduction, brackets=early.brackets)
    with start.sigterm.saving_trials(run, sweep.notices), LiveLog(run, sweep_id(plan.inputs), warn) as live:
        progress = Progress(sweep, ended, stage.width, live.rung, report.changed)
        before = restore(rule, run, token, before, progress.rung)
        failed = {record.trial_id for record in before if record.status == "failed"}
        # a trial that failed by itself would fail again; it is retried at the sweep's next start, after a look at it
        left_out = failed if again else frozenset()
        run_experiment(sweep, stage.search(), before, left_out, start.gangs, rule, (progress, start.sigterm))
    return sweep


def _claimed(sweep: Sweep) -> list[TrialRecord]:
    """All records, after this process has become the owner of those that have not ended."""
    by_id = {record.trial_id: record for record in sweep.records()}
    unended = [trial_id for trial_id, record in by_id.items() if not record.ended]
    by_id |= {record.trial_id: record for record in records.claim(sweep.run, unended, sweep.token)}
    return [*by_id.values()]
