"""What a sweep will take, from what was measured of its parts (pure).

Early stopping decides how much is trained. At least: the first of the competitors to report at a rung always goes on,
and it may stay the best. At most: every trial beats all before it, and none is stopped. Expected: values come in an
order that says nothing about them. Then the i-th to report is one of the best max(1, i // reduction) so far with
probability max(1, i // reduction) / i, and the expected number that goes on is the sum of these (Renyi's records).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Case = Literal["least", "expected", "most"]
CASES: tuple[Case, ...] = ("least", "expected", "most")

# Tune's own time, on 2 CPU cores: starting an experiment with its first trainable; a result decided on and written
# down; the next trial handed to a warm gang.
TUNE_S, RUNG_S, TURN_S = 6.0, 0.15, 0.3
REPORT_S = 0.3
RUNG_REQUESTS = 10  # a rung's look at its owner, record, weights, decision; besides two for each file of a checkpoint


@dataclass(frozen=True, kw_only=True)
class Size:
    """A student, as it was measured on a gang among as many as run side by side."""

    family: str
    macs_per_pixel: float
    distilled: bool
    build_s: float  # model and engine, once a trial
    first_s: float  # what a trial's first steps take beyond the pace of the others
    first_wait_s: float  # of it, waiting for data
    image_s: float  # a crop, over all ranks of the gang
    wait_s: float  # of it, waiting for data
    validation_s: float  # a rung
    saving_s: float  # weights and checkpoint of a rung
    checkpoint_bytes: float  # of all ranks
    checkpoint_files: float
    weights_bytes: float
    code_s: float  # a network's preparation for real bitstreams
    stream_s: float  # a bitstream: coded, decoded, checked


@dataclass(frozen=True, kw_only=True)
class Filling:
    """A feature plan of the sweep, pixels or a teacher's."""

    title: str
    crop_s: float  # of one CPU, or of one GPU where Ray has any
    tap_bytes: Mapping[str, float]  # a crop


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Gangs side by side on the same resources."""

    ranks: int  # a gang
    gangs: int
    seconds: float  # for one image of the smallest and one of the largest student, over all gangs


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured; see calibrate.py."""

    cpus: int
    gpus: int
    planning_s: float
    ray_s: float
    gang_s: float  # a gang's start
    sizes: tuple[Size, ...]  # the smallest and the largest student of each family
    anchor_s: float  # with one validation crop
    anchor_crop_s: float  # each further one
    fill_s: float  # workers that start, and load the teachers
    fills: tuple[Filling, ...]
    anchor_points: int
    coding_s: float  # a worker that starts
    anchor_code_s: float
    anchor_stream_s: float
    registry_s: float
    run_s: float  # a trial's run in the registry
    version_s: float  # a registered version
    paces: tuple[Pace, ...]  # empty if the resources allow no comparison

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Raises KeyError or TypeError for what is of another version."""
        kinds = {"sizes": Size, "fills": Filling, "paces": Pace}
        made = {name: tuple(kind(**each) for each in data[name]) for name, kind in kinds.items()}
        return cls(**{**data, **made})

    def size(self, family: str, macs_per_pixel: float, distilled: bool) -> Size:
        """Interpolated over the MACs between the measured ones of the family."""
        mine = [each for each in self.sizes if each.family == family]
        alike = sorted(
            [each for each in mine if each.distilled == distilled] or mine, key=lambda each: each.macs_per_pixel
        )
        low, high = alike[0], alike[-1]
        width = high.macs_per_pixel - low.macs_per_pixel
        share = (macs_per_pixel - low.macs_per_pixel) / width if width else 0.0
        values = {
            field.name: (1 - share) * getattr(low, field.name) + share * getattr(high, field.name)
            for field in fields(Size)
            if field.type == "float"
        }
        return Size(family=family, distilled=distilled, **values)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Trials of one complexity class that cost the same, and compete with the same others."""

    complexity_class: str
    competitors: str  # trials with the same are compared at a rung
    spared: int  # first rungs at which they are not
    family: str
    macs_per_pixel: float
    distilled: bool
    taps: tuple[tuple[str, str], ...]  # feature plan's title and tap, of all that such a trial reads
    count: float  # a share of the drawn ones where trials are drawn


@dataclass(frozen=True, kw_only=True)
class Lack:
    """What the store lacks of a feature plan."""

    title: str
    crops: int
    shards: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """What there is to do, and on what."""

    kinds: tuple[Kind, ...]
    rungs: tuple[int, ...]  # images seen
    reduction: int
    gangs: int  # side by side
    ranks: int
    cpus: int
    gpus: int
    lacks: tuple[Lack, ...]
    opened_crops: tuple[int, ...]  # [rung] crops of the shards that a trial's ranks have opened till then, summed
    opened_shards: tuple[int, ...]
    caches: int | None  # nodes that read an object once for all trials; None: each rank reads it for each trial
    validation_crops: int
    rate_points: int
    candidates: int

    @property
    def trials(self) -> int:
        return round(sum(kind.count for kind in self.kinds))

    def reach(self, case: Case) -> dict[str, list[float]]:
        """Competitors -> how many of them train each segment."""
        counts: dict[str, float] = {}
        for kind in self.kinds:
            counts[kind.competitors] = counts.get(kind.competitors, 0) + kind.count
        return {
            kind.competitors: reach(counts[kind.competitors], len(self.rungs), self.reduction, case, kind.spared)
            for kind in self.kinds
        }


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one case. Names of phases, of the gangs' work and of bytes are those of the account (account.py)."""

    images: float
    trial_hours: float
    teacher_hours: float  # of one CPU, or of one GPU where Ray has any
    requests: float  # to the store and the run folder
    wall_s: float
    phases_s: dict[str, float]
    gangs: dict[str, float]  # seconds over all gangs, in the phase `trials`
    bytes: dict[str, float]


def passes(reports: float, reduction: int) -> float:
    """How many of so many trials are expected to go on from a rung; between whole numbers it is interpolated."""
    whole = math.floor(reports)
    found = math.fsum(max(1, place // reduction) / place for place in range(1, whole + 1))
    return found + (reports - whole) * max(1, (whole + 1) // reduction) / (whole + 1)


def reach(count: float, rungs: int, reduction: int, case: Case, spared: int = 0) -> list[float]:
    """How many of `count` competitors train each segment; none of them is stopped at the first `spared` rungs."""
    found = [float(count)]
    for rung in range(rungs - 1):
        before = found[-1]
        if case == "most" or rung < spared:
            found.append(before)
        else:
            found.append(min(1.0, before) if case == "least" else passes(before, reduction))
    return found


def forecast(work: Work, measured: Calibration, case: Case = "expected") -> Forecast:
    """Seconds, bytes and requests of a sweep whose run folder is empty."""
    reached = work.reach(case)
    segments = [high - low for low, high in zip((0, *work.rungs), work.rungs, strict=False)]
    tap_bytes = {(fill.title, tap): size for fill in measured.fills for tap, size in fill.tap_bytes.items()}
    gangs = dict.fromkeys(("training_s", "data_wait_s", "validation_s", "startup_s", "checkpoints_s"), 0.0)
    sizes = {"weights": 0.0, "checkpoints": 0.0, "features_read": 0.0}
    images = requests = tune_s = longest_s = 0.0
    for kind in work.kinds:
        size = measured.size(kind.family, kind.macs_per_pixel, kind.distilled)
        a_crop = sum(tap_bytes.get(tap, 0.0) for tap in kind.taps)
        shares = [each / reached[kind.competitors][0] for each in reached[kind.competitors]]
        trained = kind.count * sum(share * length for share, length in zip(shares, segments, strict=True))
        rungs, saved = kind.count * sum(shares), kind.count * sum(shares[:-1])
        images += trained
        waited_s = trained * size.wait_s + kind.count * size.first_wait_s
        gangs["training_s"] += trained * size.image_s + kind.count * size.first_s - waited_s
        gangs["data_wait_s"] += waited_s
        gangs["validation_s"] += rungs * size.validation_s
        gangs["startup_s"] += kind.count * size.build_s
        gangs["checkpoints_s"] += rungs * size.saving_s
        tune_s += rungs * RUNG_S + kind.count * TURN_S
        longest_s = max(
            longest_s,
            size.build_s
            + size.first_s
            + sum(length * size.image_s + size.validation_s + size.saving_s + RUNG_S for length in segments),
        )
        sizes["weights"] += kind.count * size.weights_bytes
        sizes["checkpoints"] += saved * size.checkpoint_bytes
        requests += rungs * RUNG_REQUESTS + 2 * saved * size.checkpoint_files
        if work.caches is None:
            ended = [now - after for now, after in zip(shares, (*shares[1:], 0.0), strict=True)]
            opened = zip(ended, work.opened_crops, work.opened_shards, strict=True)
            for share, crops, shards in opened:
                sizes["features_read"] += kind.count * share * crops * a_crop
                requests += kind.count * share * shards * len(kind.taps)
    if work.caches is not None:
        taps = {tap for kind in work.kinds for tap in kind.taps}
        sizes["features_read"] = work.caches * work.opened_crops[-1] * sum(tap_bytes.get(tap, 0.0) for tap in taps)
        requests += work.caches * work.opened_shards[-1] * len(taps)
    gangs["startup_s"] += work.gangs * measured.gang_s
    busy_s = sum(gangs.values()) + tune_s
    trials_s = TUNE_S + max(busy_s / work.gangs, measured.gang_s + longest_s)
    stored, fill_s, teacher_s, fill_requests = _filling(work, measured)
    phases = {
        "planning": measured.planning_s,
        "ray": measured.ray_s,
        "anchor": measured.anchor_s + (work.validation_crops - 1) * measured.anchor_crop_s,
        "features": fill_s,
        "trials": trials_s,
        "coding": _coding_s(work, measured),
        "registry": measured.registry_s
        + work.trials * measured.run_s
        + min(work.candidates, len({kind.complexity_class for kind in work.kinds})) * measured.version_s,
        "report": REPORT_S,
    }
    return Forecast(
        images=images,
        trial_hours=(sum(gangs.values()) - work.gangs * measured.gang_s) / 3600,
        teacher_hours=teacher_s / 3600,
        requests=requests + fill_requests,
        wall_s=sum(phases.values()),
        phases_s=phases,
        gangs=gangs | {"idle_s": work.gangs * trials_s - sum(gangs.values())},
        bytes={"features_stored": stored, **sizes},
    )


def _filling(work: Work, measured: Calibration) -> tuple[float, float, float, float]:
    """Bytes, wall seconds, the teachers' seconds and requests of what the store lacks."""
    fills = {each.title: each for each in measured.fills}
    stored = wall_s = teacher_s = requests = 0.0
    for lack in work.lacks:
        fill = fills[lack.title]
        of_teacher = set(fill.tap_bytes) != {"x"}
        seconds = lack.crops * fill.crop_s
        stored += lack.crops * sum(fill.tap_bytes.values())
        wall_s += seconds / max(1, min(lack.shards, work.gpus if of_teacher and work.gpus else work.cpus))
        teacher_s += seconds if of_teacher else 0.0
        # its record read, claimed and finished, the pixels' record and object read, each tap written
        requests += lack.shards * (3 + 2 * of_teacher + len(fill.tap_bytes))
    return stored, wall_s + (measured.fill_s if requests else 0.0), teacher_s, requests


def _coding_s(work: Work, measured: Calibration) -> float:
    """The candidates' and the anchor's bitstreams; candidates are spread over the classes."""
    networks = {kind.complexity_class: kind for kind in work.kinds}.values()
    sizes = [measured.size(kind.family, kind.macs_per_pixel, kind.distilled) for kind in networks]
    streams = work.validation_crops * work.rate_points
    each = sum(size.code_s + streams * size.stream_s for size in sizes) / len(sizes)
    anchor = measured.anchor_code_s + work.validation_crops * measured.anchor_points * measured.anchor_stream_s
    together = anchor + min(work.candidates, work.trials) * each
    return measured.coding_s + max(anchor, together / work.cpus)
