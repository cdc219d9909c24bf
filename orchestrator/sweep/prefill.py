"""Fills the feature store before a sweep, with the objects that the sweep will read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import ray

from orchestrator.features.fill.estimate import estimate
from orchestrator.features.fill.fill import FillReport, fill
from orchestrator.features.fill.missing import missing
from orchestrator.features.format.key import FeaturePlan, Tap, plan_features
from orchestrator.features.keep.holds import Hold
from orchestrator.spec.messages import SpecError, columns
from orchestrator.store.store import Store
from orchestrator.sweep.plan import Plan

COLUMNS = ("source", "tap", "shards", "there", "to fill", "crops", "MB", "bytes a crop", "requests", "teacher hours")


def wider(plan: Plan, more: Sequence[Tap]) -> tuple[FeaturePlan, ...]:
    """The feature plans of a sweep, with more taps for each teacher.

    Args:
        plan: of the sweep.
        more: taps besides those that the sweep reads.

    Raises:
        SpecError: the sweep has no teacher.
        FeatureError: a teacher has no such tap.
    """
    if more and not plan.features:
        raise SpecError([f"taps: {list(more)} is not allowed: none, since no trial learns from a teacher"])
    taps = {features.digest: tuple(dict.fromkeys([*features.taps, *more])) for features in plan.features.values()}
    teachers = (
        plan_features(plan.crops, features.teacher, taps[features.digest]) for features in plan.features.values()
    )
    return plan.pixels, *teachers


def prefill(plan: Plan, more: Sequence[Tap], say: Callable[[str], None]) -> FillReport:
    """Fill the feature store of a sweep. Ray must run.

    With more taps a teacher has two ledgers: the wider one, filled first so that the teacher runs only once, and the
    sweep's.

    Args:
        plan: of the sweep.
        more: taps besides those that the sweep reads.
        say: takes a line of progress.

    Raises:
        As `wider` and `fill`.
    """
    store, run = Store(plan.spec.store), Store(plan.spec.results) / plan.spec.name
    plans = (*wider(plan, more), *plan.feature_plans)
    with Hold(store, plans, f"{run.url} (filled ahead)"):
        return fill(store, plan.crops, plans, plan.train, say)


def estimate_prefill(plan: Plan, more: Sequence[Tap]) -> list[str]:
    """The lines of a table: what `prefill` would write and how long it would take. Writes nothing into the store.

    Ray must run.

    Args:
        plan: of the sweep.
        more: taps besides those that the sweep reads.

    Raises:
        As `wider` and `estimate`.
    """
    store, plans = Store(plan.spec.store), wider(plan, more)
    rows: list[Sequence[str]] = [COLUMNS]
    hours = size = 0.0
    for features, estimated in zip(plans, estimate(store, plan.crops, plans, plan.train), strict=True):
        lacking = _lacking(store, features)
        shards = set().union(*lacking.values())
        share = _crops(features, shards) / max(estimated.crops, 1)  # of the crops that were estimated
        # a shard that is stored costs one request, for its record
        requests = round(estimated.requests * share) + estimated.missing - len(shards)
        hours += estimated.teacher_hours * share
        for number, (tap, shards_of_tap) in enumerate(lacking.items()):
            crop_bytes = estimated.bytes[tap] / max(estimated.crops, 1)
            crops = _crops(features, shards_of_tap)
            size += crop_bytes * crops
            counts = (estimated.shards, estimated.shards - len(shards_of_tap), len(shards_of_tap), crops)
            cells = (f"{crop_bytes * crops / 1e6:,.1f}", f"{crop_bytes:,.0f}" if estimated.crops else "-")
            costs = ("", "") if number else (f"{requests:,}", f"{estimated.teacher_hours * share:.2g}")
            rows.append(("" if number else estimated.title, tap, *(f"{count:,}" for count in counts), *cells, *costs))
    return [*columns(rows, right=range(2, 10)), _expected(hours, size)]


def _lacking(store: Store, features: FeaturePlan) -> dict[Tap, set[int]]:
    """Tap -> shards to fill. `missing` counts all shards until there is a ledger, but stored objects are reused."""
    shards = missing(store, features)
    listed = {
        shard for part, of_part in enumerate(features.parts) if store.exists(features.ledger(part)) for shard in of_part
    }
    lacking = {tap: listed.intersection(shards) for tap in features.taps}
    for tap, found in lacking.items():
        stored = store.sizes(features.folder(tap)) if len(listed) < len(features.shards) else {}
        unlisted = (shard for shard in shards if shard not in listed)
        found |= {shard for shard in unlisted if not stored or features.object(tap, shard) not in stored}
    return lacking


def _crops(features: FeaturePlan, shards: Iterable[int]) -> int:
    return sum(len(features.shards[shard]) for shard in shards)


def _expected(hours: float, size: float) -> str:
    resources = ray.cluster_resources()
    kind = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
    count = max(1, int(resources.get(kind, 1)))
    seconds, where = 3600 * hours / count, f"on the {count} {kind}{'s' if count > 1 else ''} that Ray has"
    wall = f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:.1f} s"
    return f"in all {size / 1e6:,.1f} MB; the teachers take {wall} {where}, beside cutting pixels and the store's time"
