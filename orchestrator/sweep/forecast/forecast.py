"""Predicts the time, bytes and requests of a sweep from measurements of its parts (pure).

Early stopping decides how much is trained. At least: the first competitor to report at a rung always continues, and it
may remain the best. At most: every trial is better than all before it, and none is stopped. Expected: trials report in
random order. Then the i-th to report is among the best max(1, i // reduction) so far with probability
max(1, i // reduction) / i, and the expected number that continues is the sum of these (Renyi's records).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.results.account import ByteCounts, Forecast, GangSeconds
from orchestrator.sweep.forecast.calibration import Calibration, CodingCost
from orchestrator.sweep.forecast.decoded import DecodedCache

Case = Literal["least", "expected", "most"]
CASES: tuple[Case, ...] = ("least", "expected", "most")

# Measured on 2 CPU cores:
TUNE_START_S = 6.0  # Tune starts an experiment with its first trainable
TUNE_RUNG_S = 0.15  # Tune takes a result, and the decision on it is written
TUNE_NEXT_TRIAL_S = 0.3  # Tune gives the next trial to a warm gang
REPORT_S = 0.3  # the report is written
PAIRS = "pairs"  # the competition of the group that stands for them
PAIR_DECODING = 0.25  # of the time of a bitstream that is coded, decoded and checked: a pair's latent is only decoded
RUNG_REQUESTS = 10  # per rung: owner, record, weights, decision; the checkpoint's files need two each in addition


@dataclass(frozen=True, kw_only=True)
class TrialGroup:
    """Trials of one complexity class that cost the same and compete with the same others."""

    complexity_class: str
    competitors: str  # name of the competition: groups with the same name are compared at a rung
    spared: int  # number of first rungs at which none is stopped
    family: str
    macs_per_pixel: float
    distilled: bool
    taps: tuple[tuple[str, str], ...]  # feature plan's title and tap, all that a trial reads
    count: float  # of trials; not whole where trials are drawn


@dataclass(frozen=True, kw_only=True)
class MissingFeatures:
    """The part of a feature plan that is not in the store."""

    title: str  # of the feature plan
    crops: int
    shards: int


@dataclass(frozen=True, kw_only=True)
class PairWork:
    """What becomes of a shelf's halves. That pairs are trained on is in `Work.groups`, as a part of so many trials."""

    scored: int  # at most
    joined: int  # at most
    images: int  # that each of these is trained on


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a sweep, and the resources for it."""

    groups: tuple[TrialGroup, ...]
    rungs: tuple[int, ...]  # images seen
    reduction: int
    gangs: int  # that train at the same time
    ranks: int  # per gang
    cpus: int
    gpus: int
    missing: tuple[MissingFeatures, ...]
    opened_crops: tuple[int, ...]  # at each rung: crops of the shards that a trial's ranks have opened so far, summed
    opened_shards: tuple[int, ...]  # at each rung: these shards
    # nodes with a cache, which read an object once for all trials; None: every rank reads it for every trial
    caches: int | None
    validation_crops: int
    rate_points: int
    candidates: int
    starts: int = 0  # refitted first weights that the store lacks
    pairs: PairWork | None = None  # of a shelf
    decoding: DecodedCache | None = None

    @property
    def trials(self) -> int:
        """How many trials the sweep has, without those that train pairs on."""
        return round(sum(group.count for group in self.groups if group.competitors != PAIRS))

    @property
    def segments(self) -> list[int]:
        """Images of each segment, from one rung to the next."""
        return [high - low for low, high in zip((0, *self.rungs), self.rungs, strict=False)]

    def reach(self, case: Case) -> dict[str, list[float]]:
        """Name of the competition -> how many of its trials train each segment."""
        counts: dict[str, float] = {}
        for group in self.groups:
            counts[group.competitors] = counts.get(group.competitors, 0) + group.count
        return {
            group.competitors: reach(counts[group.competitors], len(self.rungs), self.reduction, case, group.spared)
            for group in self.groups
        }


def passes(reports: float, reduction: int) -> float:
    """The expected number of trials that continue from a rung.

    Args:
        reports: how many trials report there; interpolated between whole numbers.
        reduction: the best 1/reduction continue.
    """
    whole = math.floor(reports)
    expected = math.fsum(max(1, place // reduction) / place for place in range(1, whole + 1))
    return expected + (reports - whole) * max(1, (whole + 1) // reduction) / (whole + 1)


def reach(count: float, rungs: int, reduction: int, case: Case, spared: int = 0) -> list[float]:
    """How many of `count` competitors train each segment.

    Args:
        count: competitors.
        rungs: how many rungs there are.
        reduction: the best 1/reduction continue.
        case: at least, expected or at most.
        spared: at so many first rungs none is stopped.
    """
    training = [float(count)]
    for rung in range(rungs - 1):
        before = training[-1]
        if case == "most" or rung < spared:
            training.append(before)
        else:
            training.append(min(1.0, before) if case == "least" else passes(before, reduction))
    return training


def forecast(work: Work, measured: Calibration, case: Case = "expected") -> Forecast:
    """The seconds, bytes and requests of a sweep whose run folder is empty, named as in the account.

    Args:
        work: of the sweep.
        measured: what its parts cost.
        case: of early stopping.
    """
    reached = work.reach(case)
    groups = [_Trained.of(group, reached[group.competitors], work, measured) for group in work.groups]
    gangs = {name: math.fsum(group.gangs[name] for group in groups) for name in groups[0].gangs}
    gangs["startup_s"] += work.gangs * measured.start.gang_s
    busy_s = sum(gangs.values()) + sum(group.tune_s for group in groups)
    longest_s = max(group.longest_s for group in groups)
    trials_s = TUNE_START_S + max(busy_s / work.gangs, measured.start.gang_s + longest_s)
    filling = _filling(work, measured)
    read_bytes, read_requests = _reading(work, measured, groups)
    anchor, registry = measured.anchor, measured.registry
    versions = min(work.candidates, len({group.complexity_class for group in work.groups}))
    phases = {
        "planning": measured.start.planning_s,
        "ray": measured.start.ray_s,
        "anchor": anchor.first_crop_s + (work.validation_crops - 1) * anchor.crop_s,
        "features": filling.wall_s,
        "starts": math.ceil(work.starts / work.cpus) * measured.start.refit_s,
        "trials": trials_s,
        **({"pairs": _pairs_s(work, work.pairs, measured)} if work.pairs else {}),
        "coding": _coding_s(work, measured),
        "registry": registry.start_s + work.trials * registry.run_s + versions * registry.version_s,
        "report": REPORT_S,
    }
    return Forecast(
        images=math.fsum(group.images for group in groups),
        trial_hours=(sum(gangs.values()) - work.gangs * measured.start.gang_s) / 3600,
        teacher_hours=filling.teacher_s / 3600,
        requests=math.fsum(group.requests for group in groups) + read_requests + filling.requests,
        wall_s=sum(phases.values()),
        phases_s=phases,
        gangs=GangSeconds(**gangs, idle_s=work.gangs * trials_s - sum(gangs.values())),
        bytes=ByteCounts(
            features_stored=filling.stored_bytes,
            weights=math.fsum(group.weights_bytes for group in groups),
            checkpoints=math.fsum(group.checkpoint_bytes for group in groups),
            features_read=read_bytes,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """The cost of training a group of trials, summed over its trials."""

    group: TrialGroup
    shares: list[float]  # of the trials, for each segment that they train
    images: float
    gangs: dict[str, float]  # seconds of `GangSeconds`, without idle_s
    tune_s: float
    longest_s: float  # one trial that is trained to the last rung
    weights_bytes: float
    checkpoint_bytes: float
    requests: float  # to the run folder

    @classmethod
    def of(cls, group: TrialGroup, reached: Sequence[float], work: Work, measured: Calibration) -> _Trained:
        """`reached`: how many of the group's competitors train each segment."""
        cost = measured.student(group.family, group.macs_per_pixel, group.distilled).training
        shares = [trials / reached[0] for trials in reached]
        images = group.count * sum(share * length for share, length in zip(shares, work.segments, strict=True))
        rungs, saved = group.count * sum(shares), group.count * sum(shares[:-1])
        waited_s = images * cost.wait_s + group.count * cost.first_wait_s
        rung_s = cost.validation_s + cost.saving_s + TUNE_RUNG_S
        return cls(
            group=group,
            shares=shares,
            images=images,
            gangs={
                "training_s": images * cost.image_s + group.count * cost.first_s - waited_s,
                "data_wait_s": waited_s,
                "validation_s": rungs * cost.validation_s,
                "startup_s": group.count * cost.build_s,
                "checkpoints_s": rungs * cost.saving_s,
            },
            tune_s=rungs * TUNE_RUNG_S + group.count * TUNE_NEXT_TRIAL_S,
            longest_s=cost.build_s + cost.first_s + sum(length * cost.image_s + rung_s for length in work.segments),
            weights_bytes=group.count * cost.weights_bytes,
            checkpoint_bytes=saved * cost.checkpoint_bytes,
            requests=rungs * RUNG_REQUESTS + 2 * saved * cost.checkpoint_files,
        )


def _reading(work: Work, measured: Calibration, groups: Sequence[_Trained]) -> tuple[float, float]:
    """Bytes and requests of the trials' reads from the store."""
    tap_bytes = {(fill.title, tap): size for fill in measured.fills for tap, size in fill.tap_bytes.items()}
    decoding = work.decoding
    caches = decoding.nodes if decoding and decoding.fits(measured.fills) else work.caches
    if caches is not None:
        taps = {tap for group in work.groups for tap in group.taps}
        crops, shards = caches * work.opened_crops[-1], caches * work.opened_shards[-1]
        return crops * sum(tap_bytes.get(tap, 0.0) for tap in taps), shards * len(taps)
    size = requests = 0.0
    for trained in groups:
        group = trained.group
        crop_bytes = sum(tap_bytes.get(tap, 0.0) for tap in group.taps)
        ended = [share - later for share, later in zip(trained.shares, (*trained.shares[1:], 0.0), strict=True)]
        for share, crops, shards in zip(ended, work.opened_crops, work.opened_shards, strict=True):
            size += group.count * share * crops * crop_bytes
            requests += group.count * share * shards * len(group.taps)
    return size, requests


@dataclass(frozen=True, kw_only=True)
class _Filling:
    """The cost of filling the store."""

    stored_bytes: float
    wall_s: float
    teacher_s: float  # over all CPUs or GPUs
    requests: float


def _filling(work: Work, measured: Calibration) -> _Filling:
    """The cost of filling what is missing."""
    fills = {fill.title: fill for fill in measured.fills}
    stored = wall_s = teacher_s = requests = 0.0
    for missing in work.missing:
        fill = fills[missing.title]
        of_teacher = set(fill.tap_bytes) != {"x"}
        seconds = missing.crops * fill.crop_s
        stored += missing.crops * sum(fill.tap_bytes.values())
        wall_s += seconds / max(1, min(missing.shards, work.gpus if of_teacher and work.gpus else work.cpus))
        teacher_s += seconds if of_teacher else 0.0
        # per shard: read, claim and finish its record; read the pixels' record and object; write each tap
        requests += missing.shards * (3 + 2 * of_teacher + len(fill.tap_bytes))
    start_s = measured.fill_start_s if requests else 0.0
    return _Filling(stored_bytes=stored, wall_s=wall_s + start_s, teacher_s=teacher_s, requests=requests)


def _coding_costs(work: Work, measured: Calibration) -> list[CodingCost]:
    """Of a student of each class."""
    classes = {group.complexity_class: group for group in work.groups}.values()
    return [measured.student(group.family, group.macs_per_pixel, group.distilled).coding for group in classes]


def _pairs_s(work: Work, pairs: PairWork, measured: Calibration) -> float:
    """Seconds to score pairs."""
    costs = _coding_costs(work, measured)
    stream_s = math.fsum(cost.stream_s for cost in costs) / len(costs)
    decoded = pairs.scored * work.validation_crops * work.rate_points
    return measured.coding.start_s + PAIR_DECODING * decoded * stream_s / work.cpus


def _coding_s(work: Work, measured: Calibration) -> float:
    """Seconds to code the candidates and the anchor; candidates are assumed to be spread evenly over the classes."""
    costs = _coding_costs(work, measured)
    streams = work.validation_crops * work.rate_points
    candidate_s = sum(cost.code_s + streams * cost.stream_s for cost in costs) / len(costs)
    anchor = measured.coding.anchor
    anchor_s = anchor.code_s + work.validation_crops * measured.anchor.points * anchor.stream_s
    total_s = anchor_s + min(work.candidates, work.trials) * candidate_s
    return measured.coding.start_s + max(anchor_s, total_s / work.cpus)
