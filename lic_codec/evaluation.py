"""What measuring codecs gives: mean curves, times and memory, and BD-rates between them; as one JSON document.

The document is a curve file of CompressAI's form: its `name` and `results` are the first codec's, and `others` has the
further ones in the same form.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import permutations

from lic_codec.bd_rate import needs_bjontegaard
from lic_codec.comparison import Comparison, compare
from lic_codec.counters import processor
from lic_codec.curves import COLUMNS, DISTORTIONS, Curve, Distortion
from lic_codec.errors import CodecError
from lic_codec.json_values import Json
from lic_codec.measuring import Measurement, Row
from lic_codec.metrics import ms_ssim_db
from lic_codec.sets import set_of

AVERAGING = "per photograph, then the mean over photographs"
BD_AVERAGING = "pct: of the mean curves; of_photographs: the mean of the photographs' own BD-rates"
COLOUR_SPACE = "RGB, 8 bits a channel, all three channels together"
LIBRARIES = (
    *("numpy", "pillow", "onnxruntime", "constriction", "bjontegaard", "pillow-jxl-plugin"),
    *("torch", "compressai"),
)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Means over photographs at one rate."""

    rate_point: int | float
    bpp: float
    psnr_db: float
    mse: float
    ms_ssim: float | None

    def to_json(self) -> dict[str, float]:
        """What was measured, with MS-SSIM also in dB."""
        in_db = None if self.ms_ssim is None else ms_ssim_db(self.ms_ssim)
        values = asdict(self) | {"ms_ssim_db": in_db}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Over photographs and rates."""

    median: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One codec's.

    Attributes:
        measurement: what they are of.
        points: the mean curve.
        encode_ms, decode_ms: per 10^6 pixels; None: estimated.
        more: what else is known of the codec.
    """

    measurement: Measurement
    points: tuple[CurvePoint, ...]
    encode_ms: Spread | None
    decode_ms: Spread | None
    more: Mapping[str, Json] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The codec's."""
        return self.measurement.candidate.name

    def curve(self, distortion: Distortion) -> Curve:
        """Over this distortion's quality. Raises CodecError: MS-SSIM was not measured."""
        rows: dict[str, list[tuple[float, float]]] = {}
        for row in self.measurement.rows:
            rows.setdefault(row.digest, []).append((row.bpp, _quality(row, distortion)))
        return Curve(
            name=self.name,
            points=tuple((point.bpp, _quality(point, distortion)) for point in self.points),
            of_photograph={digest: tuple(points) for digest, points in rows.items()},
        )

    @property
    def distortions(self) -> tuple[Distortion, ...]:
        """What was measured."""
        return DISTORTIONS if all(point.ms_ssim is not None for point in self.points) else ("mse",)

    def to_json(self) -> dict[str, Json]:
        """CompressAI's form, and further fields."""
        points = [point.to_json() for point in self.points]
        names = {"bpp": "bpp", COLUMNS["mse"]: "psnr_db", COLUMNS["ms-ssim"]: "ms_ssim"}
        columns = {column: name for column, name in names.items() if name in points[0]}
        measured = self.measurement
        times = {"encode_ms_per_megapixel": self.encode_ms, "decode_ms_per_megapixel": self.decode_ms}
        energy = measured.energy_joules
        return {
            "name": self.name,
            "description": measured.candidate.description,
            "results": {
                column: [point[name] for point in points] for column, name in columns.items() if name in points[0]
            },
            "points": points,
            **{name: asdict(spread) for name, spread in times.items() if spread},
            "threads": measured.threads,
            "processes": measured.processes,
            **_memory(measured),
            **({} if energy is None else {"energy_joules_of_all_processors_while_measured": energy}),
            **self.more,
            "photographs": [asdict(row) for row in measured.rows],
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All codecs on the same photographs.

    Attributes:
        codecs: in the order in which they were asked for.
        comparisons: of each codec with each other one, and with curves of files.
    """

    codecs: tuple[Figures, ...]
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Json]:
        """The document."""
        first, *others = (figures.to_json() for figures in self.codecs)
        rows = first.pop("photographs")
        digests = frozenset(row.digest for row in self.codecs[0].measurement.rows)
        return {
            **{name: first[name] for name in ("name", "description", "results", "points")},
            "bd_rate": [compared.to_json() for compared in self.comparisons],
            "bd_rate_averaging": BD_AVERAGING,
            "photograph_set": set_of(digests),
            "averaging": AVERAGING,
            "colour_space": COLOUR_SPACE,
            **first,
            "processor": processor(),
            "versions": _versions(),
            "others": others,
            "photographs": rows,
        }


def needed_for(codecs: int, against: Sequence[Curve]) -> None:
    """Raises CodecError: BD-rates will be taken, and the package for them is not installed."""
    if codecs > 1 or against:
        needs_bjontegaard()


def figures(measured: Measurement, more: Mapping[str, Json] | None = None) -> Figures:
    """A codec's figures. Raises CodecError: a mean is not finite, as of a training that diverged."""
    points = mean_curve(measured.rows)
    for point in points:
        if wrong := [name for name, value in point.to_json().items() if not math.isfinite(value)]:
            value = point.to_json()[wrong[0]]
            where = measured.candidate.source or measured.candidate.name
            reached = f"{where}: {wrong[0]} is {value} at rate point {point.rate_point}"
            raise CodecError(f"{reached}: the weights are damaged, or their training diverged")
    encode = [1e9 * row.encode_s / row.pixels for row in measured.rows if row.encode_s is not None]
    decode = [1e9 * row.decode_s / row.pixels for row in measured.rows if row.decode_s is not None]
    return Figures(
        measurement=measured, points=points, encode_ms=_spread(encode), decode_ms=_spread(decode), more=more or {}
    )


def evaluation(codecs: Sequence[Figures], against: Sequence[Curve] = (), distortion: Distortion = "mse") -> Evaluation:
    """BD-rates of each codec against each other one, and of the first ones against curves of files.

    Args:
        codecs: of the same photographs.
        against: curves of these photographs, of `distortion`'s quality.
        distortion: of what files are compared; codecs are by all that was measured.

    Raises:
        CurveError: a curve of a file is of other photographs.
        CodecError: the package for BD-rates is not installed.
    """
    needed_for(len(codecs), against)
    digests = frozenset(row.digest for row in codecs[0].measurement.rows)
    for curve in against:
        curve.check_photographs(digests)
    of_files = [compare(codec.curve(distortion), curve, distortion) for codec in codecs for curve in against]
    of_codecs = [
        compare(one.curve(by), other.curve(by), by)
        for by in codecs[0].distortions
        for one, other in permutations(codecs, 2)
    ]
    return Evaluation(codecs=tuple(codecs), comparisons=(*of_files, *of_codecs))


def mean_curve(rows: Sequence[Row]) -> tuple[CurvePoint, ...]:
    """The mean over photographs at each rate, in the order in which rates first occur; MS-SSIM if all have it."""
    of_rate: dict[int | float, list[Row]] = {}
    for row in rows:
        of_rate.setdefault(row.rate_point, []).append(row)
    has_ms_ssim = all(row.ms_ssim is not None for row in rows)

    def mean(of: Sequence[Row], name: str) -> float:
        return math.fsum(getattr(row, name) for row in of) / len(of)

    return tuple(
        CurvePoint(
            rate_point=rate_point,
            bpp=mean(of, "bpp"),
            psnr_db=mean(of, "psnr_db"),
            mse=mean(of, "mse"),
            ms_ssim=mean(of, "ms_ssim") if has_ms_ssim else None,
        )
        for rate_point, of in of_rate.items()
    )


def _quality(measured: Row | CurvePoint, distortion: Distortion) -> float:
    if distortion == "mse":
        return measured.psnr_db
    if measured.ms_ssim is None:
        raise CodecError("MS-SSIM was not measured: a side of a photograph is below 161 pixels")
    return ms_ssim_db(measured.ms_ssim)


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    if len(values) == 1:
        return Spread(median=values[0], lower_quartile=values[0], upper_quartile=values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median=median, lower_quartile=lower, upper_quartile=upper)


def _memory(measured: Measurement) -> dict[str, Json]:
    if measured.peak_memory_mb is None:
        return {}
    return {"peak_memory_mb": measured.peak_memory_mb, "peak_memory_of": measured.peak_memory_of}


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
