"""What a sweep does before it trains, side by side: anchor and complexities, features, refitted first weights.

None of these needs another one. The driver submits the few tasks of anchor and starts, then fills the store, and takes
the answers of the others meanwhile; so CPUs that one of them leaves idle do the next one's work, and a worker that has
imported torch for one does not start again for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.evaluation.costs import Complexity
from orchestrator.features.fill.fill import FillReport, fill
from orchestrator.logs import say
from orchestrator.store.store import Store
from orchestrator.sweep.forecast.account import PhaseTimes
from orchestrator.sweep.front.measures import Measures, Measuring
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.starts import begin_starts


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What trials need besides the store."""

    measures: Measures
    stored_bytes: int  # that were published


def prepare(
    plan: Plan,
    run: Store,
    times: PhaseTimes,
    measures: Measures | None,
    *,
    starts: bool,
    features: bool,
    forecast: Callable[[Mapping[str, Complexity]], None] | None,
) -> Prepared:
    """Make what is lacking. Ray must run.

    Args:
        plan: of the sweep.
        run: the run folder.
        times: the phases `anchor`, `features` and `starts` share the time.
        measures: of an earlier start; None: to be measured.
        starts: refitted first weights are needed.
        features: the feature store is needed.
        forecast: gets the complexities; None: it is not wanted.

    Raises:
        FeatureError, PhotographError, StoreError, WeightsError: what the first failing task raised. What was
            published is kept.
    """
    store = Store(plan.spec.store)
    with times.side_by_side("features", "anchor", "starts") as seconds:

        def spent(phase: str, its: float) -> None:
            seconds[phase] += its

        # the longest tasks first
        refitting = begin_starts(plan, store, say, partial(spent, "starts")) if starts else None
        measuring = None
        if measures is None:
            of_anchor = partial(spent, "anchor")
            measuring = Measuring(plan.spec, plan.students, plan.validation, run, say, of_anchor)

        def progress(line: str) -> None:
            # an error of these ends the fill, and does not wait for its end
            if measuring is not None:
                measuring.tasks.take_ready()
            if refitting is not None:
                refitting.take_ready()
            say(line)

        stored_bytes = 0
        if features:
            filled = fill(store, plan.crops, plan.feature_plans, plan.train, progress)
            spent("features", filled.task_s)
            stored_bytes = filled.bytes
            say(_in_words(filled))
        if measuring is not None:
            measures = measuring.result()
        if refitting is not None:
            refitting.wait()
    assert measures is not None
    if forecast is not None:
        forecast(measures.complexity)
    return Prepared(measures=measures, stored_bytes=stored_bytes)


def _in_words(filled: FillReport) -> str:
    done = f"{filled.reused_shards} shards reused, {filled.computed_shards} computed"
    return f"features: {done}, {filled.bytes / 1e6:.0f} MB in {filled.seconds:.0f} s"
