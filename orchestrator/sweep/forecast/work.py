"""Derives the work from a sweep's plan, and keeps the calibration between `--plan` and the sweep.

A calibration is kept in the user's cache folder, under a digest of everything that it depends on. If there is one, a
sweep computes the forecast again and saves it in its run folder; a sweep does not measure by itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from orchestrator.caches import cache_root
from orchestrator.evaluation.costs import Complexity
from orchestrator.features.fill.missing import missing
from orchestrator.photographs.crops import batch_at
from orchestrator.results.account import FORECAST, Forecasts
from orchestrator.results.files import read_file, write_file
from orchestrator.results.format import FormatError
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.pairs import joined_images, pair_students
from orchestrator.sweep.choose.rungs import RULES
from orchestrator.sweep.choose.space import trials
from orchestrator.sweep.forecast.calibration import CALIBRATION, Calibration
from orchestrator.sweep.forecast.decoded import DecodedCache
from orchestrator.sweep.forecast.forecast import (
    CASES,
    PAIRS,
    MissingFeatures,
    PairWork,
    TrialGroup,
    Work,
    forecast,
)
from orchestrator.sweep.plan import Plan, taps
from orchestrator.sweep.starts import lacking_starts

STEPS_AHEAD = 68  # a reader opens the shards of so many later steps: reader.LOOKAHEAD plus prefetch.DEPTH

Taps = tuple[tuple[str, str], ...]  # (title of the feature plan, tap)


def processors() -> tuple[int, int]:
    """CPUs and GPUs that Ray has."""
    resources = ray.cluster_resources()
    return int(resources.get("CPU", 0)), int(resources.get("GPU", 0))


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """What the store lacks of a sweep."""

    features: tuple[MissingFeatures, ...]
    starts: int  # refitted first weights

    @classmethod
    def of(cls, plan: Plan) -> Lacking:
        """As it is now; lists the objects in the store. Raises FeatureError, StoreError."""
        store = Store(plan.spec.store)
        absent = [(features, missing(store, features)) for features in plan.feature_plans]
        return cls(
            features=tuple(
                MissingFeatures(
                    title=features.title,
                    crops=sum(len(features.shards[shard]) for shard in shards),
                    shards=len(shards),
                )
                for features, shards in absent
            ),
            starts=len(lacking_starts(plan, store)),
        )


def work_of(plan: Plan, complexity: Mapping[str, Complexity], at_once: int, lacking: Lacking | None = None) -> Work:
    """The work of a sweep. Ray must run.

    Args:
        plan: of the sweep, settled.
        complexity: by complexity class.
        at_once: gangs that train at the same time.
        lacking: None: what the store lacks now.
    """
    spec, lacking = plan.spec, lacking or Lacking.of(plan)
    cpus, gpus = processors()
    early, pairs = spec.early_stopping, pair_work(plan)
    groups = _groups(plan, complexity)
    if pairs is not None:
        groups.append(_pair_group(plan, pairs, complexity))
    opened = _opened(plan)
    return Work(
        groups=tuple(groups),
        rungs=early.rungs,
        reduction=early.reduction,
        gangs=at_once,
        ranks=spec.training.ranks,
        cpus=cpus,
        gpus=gpus,
        missing=lacking.features,
        opened_crops=tuple(crops for crops, _ in opened),
        opened_shards=tuple(shards for _, shards in opened),
        caches=None if Store(spec.store).folder else _nodes(),
        decoding=_decoding(plan) if spec.node_cache.decoded else None,
        validation_crops=len(plan.validation),
        rate_points=len(spec.rate_ladder.lambdas),
        candidates=spec.candidates,
        starts=lacking.starts,
        pairs=pairs,
    )


def _groups(plan: Plan, complexity: Mapping[str, Complexity]) -> list[TrialGroup]:
    """The trials of a sweep, those that cost the same and compete with the same others together."""
    early, shares = plan.spec.early_stopping, _shares(plan.spec, plan.trials)
    counts: dict[tuple[str, str, bool, Taps, int], float] = {}  # class, family, distilled, taps, bracket
    turns: Counter[str] = Counter()  # complexity class -> trials so far
    for trial, share in zip(plan.trials, shares, strict=True):
        bracket = turns[trial.complexity_class] % early.brackets
        turns[trial.complexity_class] += 1
        group = (
            trial.complexity_class,
            trial.student.family,
            trial.teacher is not None,
            read_taps(plan, trial),
            bracket,
        )
        counts[group] = counts.get(group, 0) + share
    return [
        TrialGroup(
            complexity_class=name,
            competitors=f"{'all' if RULES[early.rule].across_classes else name} in bracket {bracket}",
            spared=len(early.rungs) if early.rule == "none" else bracket,
            family=family,
            macs_per_pixel=complexity[name].macs_per_pixel,
            distilled=distilled,
            taps=read,
            count=count,
        )
        for (name, family, distilled, read, bracket), count in counts.items()
    ]


def _pair_group(plan: Plan, pairs: PairWork, complexity: Mapping[str, Complexity]) -> TrialGroup:
    """Pairs that are trained on, as a part of so many trials that go to the last rung."""
    networks, rungs = pair_students(plan.spec), plan.spec.early_stopping.rungs
    macs = [complexity[student.complexity_class].macs_per_pixel for student in networks]
    return TrialGroup(
        complexity_class=PAIRS,
        competitors=PAIRS,
        spared=len(rungs),
        family=networks[0].family,
        macs_per_pixel=math.fsum(macs) / len(macs),
        distilled=False,
        taps=tuple((plan.pixels.title, tap) for tap in plan.pixels.taps),
        count=pairs.joined * pairs.images / rungs[-1],
    )


def pair_work(plan: Plan) -> PairWork | None:
    """What becomes of a shelf's halves; None: the sweep has none."""
    shelf, networks = plan.spec.shelf, pair_students(plan.spec)
    if not networks:
        return None
    return PairWork(scored=len(networks), joined=min(shelf.joined, len(networks)), images=joined_images(plan.spec))


def _shares(spec: Spec, reached: Sequence[Trial]) -> list[float]:
    """How many trials of the sweep each of `reached` stands for: one with the method grid, else the drawn trials are
    shared evenly."""
    if spec.search.method == "grid":
        return [1] * len(reached)
    known, drawn = trials(spec), [trial for trial in reached if trial.teacher]
    share = (spec.trials - len(known)) / max(1, len(drawn))
    controls = len(known) / max(1, len(reached) - len(drawn))
    return [share if trial.teacher else controls for trial in reached]


def read_taps(plan: Plan, trial: Trial) -> Taps:
    """Everything that a trial's ranks read, as (title of the feature plan, tap)."""
    read = tuple((plan.pixels.title, tap) for tap in plan.pixels.taps)
    features = plan.features.get(trial.teacher or "")
    if features is None or features.teacher is None:
        return read
    of_teacher = taps([trial], features.teacher, len(plan.spec.rate_ladder.lambdas))
    return *read, *((features.title, tap) for tap in of_teacher)


def _nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def _decoding(plan: Plan) -> DecodedCache:
    limit_bytes = int(plan.spec.node_cache.gigabytes * 1e9)
    return DecodedCache(nodes=_nodes(), limit_bytes=limit_bytes, crops=plan.crops.count)


def _opened(plan: Plan) -> list[tuple[int, int]]:
    """For each rung, crops and shards of one tap that a trial's ranks have opened until then, summed over the ranks.

    A rank reads an object once, however often it opens it: the node has it then, as the cache's file or as the kernel's
    pages of the store's.
    """
    spec, crops = plan.spec, plan.crops
    training = spec.training
    ranks: list[set[int]] = [set() for _ in range(training.ranks)]
    opened_at_rungs, step = [], 0
    for rung in spec.early_stopping.rungs:
        last = rung // training.batch_size + STEPS_AHEAD
        while step < last and any(len(opened) < len(crops.shards) for opened in ranks):
            ids = batch_at(crops, step, training.batch_size, spec.seed)[1]
            for rank, opened in enumerate(ranks):
                opened.update(crops.shards.place(crop)[0] for crop in ids[rank :: len(ranks)])
            step += 1
        crops_of_shards = sum(len(crops.shards[shard]) for opened in ranks for shard in opened)
        opened_at_rungs.append((crops_of_shards, sum(map(len, ranks))))
    return opened_at_rungs


def remember(plan: Plan, measured: Calibration) -> None:
    """Keep a calibration for the sweep, in the user's cache folder."""
    write_file(Store(_folder()), _name(plan), measured)


def remembered(plan: Plan) -> Calibration | None:
    """The calibration that was kept for the same inputs and as many CPUs and GPUs; None: there is none, or it is of
    another version."""
    try:
        return read_file(Store(_folder()), _name(plan), Calibration)
    except FormatError:
        return None


def begin_forecast(plan: Plan, run: Store, at_once: int) -> Callable[[Mapping[str, Complexity]], None] | None:
    """To be called before the store is filled, as it counts what is lacking. Ray must run.

    Args:
        plan: of the sweep, settled.
        run: the run folder.
        at_once: gangs that train at the same time.

    Returns:
        Writes forecast.json and calibration.json, when it gets the complexities; None: there is no calibration.
    """
    measured = remembered(plan)
    if measured is None:
        return None
    lacking = Lacking.of(plan)

    def save(complexity: Mapping[str, Complexity]) -> None:
        work = work_of(plan, complexity, at_once, lacking)
        least, expected, most = (forecast(work, measured, case) for case in CASES)
        write_file(run, FORECAST, Forecasts(least=least, expected=expected, most=most))
        write_file(run, CALIBRATION, measured)

    return save


def _folder() -> Path:
    return cache_root() / "plans"


def _name(plan: Plan) -> str:
    inputs = {name: value for name, value in plan.inputs.items() if name != "name"}
    content = json.dumps([inputs, processors()], sort_keys=True)
    return f"{hashlib.sha256(content.encode()).hexdigest()}.json"
