"""A sweep from its specification to the registered front, new or continued."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache

from orchestrator.features.fill.fill import fill, missing
from orchestrator.features.keep.holds import Hold
from orchestrator.registry.registry import RegistryError
from orchestrator.report.page import write_report
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.search import Search
from orchestrator.sweep.cluster import connected, room_again, trials_at_once
from orchestrator.sweep.forecast.account import Account
from orchestrator.sweep.forecast.work import save_forecast
from orchestrator.sweep.front import candidates
from orchestrator.sweep.front.anchor import measure_complexity, measure_teacher
from orchestrator.sweep.front.publish import check_registry, register
from orchestrator.sweep.front.score import Anchor
from orchestrator.sweep.gang.rank import Driver
from orchestrator.sweep.gang.trial import Sweep, SweepTrial, resources
from orchestrator.sweep.plan import Plan, shared_data
from orchestrator.sweep.preemption import Leaving
from orchestrator.sweep.progress import Progress, say
from orchestrator.sweep.run_folder import records
from orchestrator.sweep.run_folder.inputs import open_folder
from orchestrator.sweep.tune_scheduler import RungScheduler, restore
from orchestrator.sweep.tune_search import TuneSearch

# Tune would have them in the runtime environment of trials, and Ray has that in logs, on command lines and on its
# dashboard. Trials have the environment of their node.
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
ROUNDS = 3  # of trials that lost their processes, as with a node: they begin when the others have ended
ANCHOR, COMPLEXITY, FRONT, ACCOUNT = "anchor.json", "complexity.json", "front.json", "account.json"


def run_sweep(spec: Spec) -> int:
    """Runs the sweep to its end, or what is left of it.

    Args:
        spec: with absolute paths (`Spec.resolved`).

    Returns:
        How many trials failed; the same command tries them again from their last rung.

    Raises:
        SpecError, WeightsError, PhotographError, CropError: before anything is written.
        StoreError, FeatureError: the feature store cannot be used or filled.
        RegistryError: MLflow cannot be used; all else is done.
        Preempted: SIGTERM.
    """
    account = Account()
    with account.phase("planning"):
        plan = Plan.of(spec)
    spec = plan.spec
    run = Store(spec.results) / spec.name
    check_registry(run)
    if (records.read_json(run, ACCOUNT) or {}).get("finished") and open_folder(run, spec, plan.inputs):
        _finished(run, plan)
        return 0
    leaving = Leaving(spec.preemption.grace_s)
    with leaving.heeded(), ExitStack() as stack:
        with account.phase("ray"):
            stack.enter_context(connected())
            leaving.listen()
            account.gangs = trials_at_once(spec)
        account.continued = open_folder(run, spec, plan.inputs)
        records.take_over(run, secrets.token_hex(8))  # an earlier process of this sweep changes nothing from now on
        stack.enter_context(Hold(Store(spec.store), plan.feature_plans, run.url))  # nothing of them is pruned meanwhile
        return _run(plan, run, account, leaving)


def _run(plan: Plan, run: Store, account: Account, leaving: Leaving) -> int:
    spec, store = plan.spec, Store(plan.spec.store)
    with account.phase("anchor"):
        anchor, complexity = _measures(plan, run)
    if not account.continued:
        save_forecast(plan, run, complexity, account.gangs)
    with account.phase("features"):
        filled = fill(store, plan.crops, plan.feature_plans, plan.train, say)
    account.features_stored = filled.bytes
    say(
        f"features: {filled.reused_shards} shards reused, {filled.computed_shards} computed, "
        f"{filled.bytes / 1e6:.0f} MB in {filled.seconds:.0f} s"
    )
    with account.phase("trials"):
        for again in range(ROUNDS):
            _train(plan, run, store, anchor, complexity, leaving, account, again=again > 0)
            lost = sum(records.lost(record) for record in records.read_trials(run))
            if not lost or again == ROUNDS - 1 or not room_again(spec, say):
                break
            say(f"{lost} trials that lost their processes are tried again")
    found = records.read_trials(run)
    with account.phase("coding"):
        front = _front(plan, run, anchor, found)
    unregistered: RegistryError | None = None
    with account.phase("registry"):
        try:
            versions = {each.trial_id: each.version for each in register(run, found, front, say)}
            records.write_json(run, FRONT, [entry | {"version": versions[entry["trial_id"]]} for entry in front])
        except RegistryError as error:  # results are files: the report is made all the same
            unregistered = error
    failures = sum(record["status"] == "failed" for record in found)
    records.write_json(run, ACCOUNT, account.to_json(found, finished=False))
    with account.phase("report"):
        write_report(run)
    say(f"report: {run.url}/report.html")
    if unregistered is not None:
        raise unregistered
    if failures:
        say(f"{failures} trials failed, see their files in {run.url}/trials; the same command tries them again")
    else:
        records.write_json(run, ACCOUNT, account.to_json(found, finished=True))
    return failures


def _measures(plan: Plan, run: Store) -> tuple[Anchor, dict[str, dict[str, float]]]:
    """The anchor and each class's complexity, from the run folder if they are there."""
    spec = plan.spec
    saved, sizes = records.read_json(run, ANCHOR), records.read_json(run, COMPLEXITY)
    if saved is not None and sizes is not None:
        return Anchor.from_json(saved), sizes
    students = {trial.complexity_class: trial.student for trial in plan.trials}
    rates = spec.rate_ladder
    measures = [measure_teacher.remote(each.name, each.weights, plan.validation, rates) for each in spec.teachers]
    *curves, sizes = ray.get([*measures, measure_complexity.remote(students, rates)])
    anchor, _ = min(curves, key=lambda each: each[1])
    costs = {curve.teacher: cost for curve, cost in curves}
    records.write_json(run, ANCHOR, anchor.to_json() | {"mean_log_lagrangian": costs})
    records.write_json(run, COMPLEXITY, sizes)
    others = ", ".join(f"{name} {cost:+.3f}" for name, cost in costs.items())
    say(f"anchor: teacher {anchor.teacher}, {len(anchor.curve)} points (mean ln J: {others})")
    return anchor, sizes


def _train(
    plan: Plan,
    run: Store,
    store: Store,
    anchor: Anchor,
    complexity: dict[str, dict[str, float]],
    leaving: Leaving,
    account: Account,
    *,
    again: bool,
) -> None:
    """All trials that have not ended, each from its last checkpoint; `again`: those that lost their processes.

    What still lives of a round before, such as a trial on a node that was cut off, changes nothing in the run folder:
    every round has a token of its own.
    """
    spec, token = plan.spec, secrets.token_hex(8)
    records.take_over(run, token)
    before = records.read_trials(run)
    ended = sum(records.ended(record) for record in before)
    if account.continued or again:
        begun = sum(not records.ended(record) and records.images_seen(record) > 0 for record in before)
        say(f"continued: {ended} of {spec.trials} trials reused, {begun} go on from their last checkpoint")
    early = spec.early_stopping
    rule = RungRule(rule=early.rule, rungs=early.rungs, reduction=early.reduction, brackets=early.brackets)
    sweep = Sweep(
        spec=spec,
        run=run,
        anchor=anchor,
        complexity=complexity,
        data=shared_data(plan, store),
        train=plan.train,
        driver=Driver.here(),
        token=token,
    )
    progress = Progress(sweep, ended, max(len(trial.trial_id) for trial in plan.trials))
    restore(rule, run, token, before, progress.rung)
    with leaving.of_trials(run, token):
        failed = {record["trial_id"] for record in before if record["status"] == "failed" and not records.lost(record)}
        # what failed by itself would fail again: that is for the next start, when somebody has looked at it
        _tune(sweep, before, failed if again else frozenset(), account.gangs, rule, progress, leaving)


def _tune(
    sweep: Sweep,
    before: Sequence[records.Record],
    but: Collection[str],
    at_once: int,
    rule: RungRule,
    progress: Progress,
    leaving: Leaving,
) -> None:
    """Trials on `at_once` gangs, but for some: those that were begun first, in order.

    Every start is a new Tune experiment over what is left: the run folder holds all that a trial needs to go on.

    Args:
        before: the trials that were begun, with the decisions that `restore` made.
    """
    spec, run, search = sweep.spec, sweep.run, Search(sweep.spec)
    begun = [trial for trial in search.resume(before) if trial.trial_id not in but]
    left = spec.trials - len(but) - sum(records.ended(record) for record in before)
    if not left:
        return
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    with tempfile.TemporaryDirectory(prefix="tune-") as elsewhere:
        local = sweep.run.url.startswith("file://")
        folder = Path(sweep.run.url.removeprefix("file://")) / "tune" if local else Path(elsewhere)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(SweepTrial, sweep=sweep), resources(sweep.spec)),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearch(search, begun, run, sweep.token, sweep.complexity),
                num_samples=left,
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
                callbacks=[progress, leaving],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # SweepTrial keeps its own
                failure_config=tune.FailureConfig(max_failures=0),  # SweepTrial tries again what is worth it
            ),
        )
        tuner.fit()
    left = spec.trials - sum(record["status"] != "running" for record in records.read_trials(run))
    if left:  # Tune takes SIGINT and returns
        raise KeyboardInterrupt(f"{left} trials have not ended; the same command goes on with them")


def _trial_id(trial: Any) -> str:
    return str(trial.config["trial_id"])


def _front(plan: Plan, run: Store, anchor: Anchor, found: Sequence[records.Record]) -> list[candidates.Entry]:
    entries = candidates.estimated(found)
    say(f"trials: {len(entries)} of {len(found)} have a valid BD-rate at their last rung")
    chosen = candidates.choose(entries, plan.spec.candidates)
    weights = next(teacher.weights for teacher in plan.spec.teachers if teacher.name == anchor.teacher)
    coded, reused = candidates.code_all(chosen, run, anchor, Path(weights).read_bytes(), plan.validation, say)
    if reused:
        say(f"coded: {reused} of {len(chosen) + 1} curves reused")
    records.write_json(run, "coded/candidates.json", [{**entry, "validation": None} for entry in coded])
    front = candidates.front_of(coded)
    records.write_json(run, FRONT, front)
    for entry in front:
        cost = f"{entry['macs_per_pixel']:8.0f} MACs/pixel"
        say(f"front: {entry['trial_id']}  {cost}  BD-rate {entry['bd_rate_pct']:+.2f} %")
    return front


def _finished(run: Store, plan: Plan) -> None:
    """Says what a finished sweep that is started again finds."""
    store, plans = Store(plan.spec.store), plan.feature_plans
    shards = sum(len(features.shards) for features in plans)
    lost = sum(len(missing(store, features)) for features in plans)
    front = records.read_json(run, FRONT) or []
    say(f"features: {shards - lost} of {shards} shards reused")
    say(f"trials: {plan.spec.trials} of {plan.spec.trials} reused; registry: {len(front)} versions reused")
    say(f"finished before, nothing to do: {run.url}")
