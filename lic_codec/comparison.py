"""BD-rates between curves of the same photographs: of the mean curves, and the mean of the photographs' own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lic_codec.bd_rate import BDRate, Point, bd_rate
from lic_codec.curves import Curve, Distortion
from lic_codec.json_values import Json

MINIMUM_OVERLAP = 0.75  # for figures to publish


@dataclass(frozen=True, kw_only=True)
class OfPhotographs:
    """BD-rates of single photographs.

    Attributes:
        mean_pct, least_pct, most_pct: of those that are valid.
        valid: photographs that have one.
        of: photographs.
    """

    mean_pct: float
    least_pct: float
    most_pct: float
    valid: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A codec's BD-rate against another's.

    Attributes:
        codec, against: names.
        file: of the other curve; None: it was measured in this run.
        distortion: of the quality that is held equal.
        pct: BD-rate of the mean curves, by pchip; None: there is none, for `reason`.
        akima_pct: by the other interpolation; None: it has no valid figure.
        overlap: share of the codec's own range of quality that was compared.
        interval_db: the range of quality that was compared.
        of_photographs: None: the other curve has no photographs of its own, or no photograph has a valid figure.
        reason: why there is no BD-rate.
        line: to print.
    """

    codec: str
    against: str
    file: str | None
    distortion: Distortion
    pct: float | None
    akima_pct: float | None
    overlap: float | None
    interval_db: tuple[float, float] | None
    of_photographs: OfPhotographs | None
    reason: str | None
    line: str

    def to_json(self) -> dict[str, Json]:
        """Without what there is none of."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def compare(codec: Curve, against: Curve, distortion: Distortion) -> Comparison:
    """The BD-rate of a curve against another; below 0 it needs fewer bits."""
    compared, by_akima = (_bd_rate(against.points, codec.points, method) for method in ("pchip", "akima"))
    of_photographs = _of_photographs(codec, against)
    title = f"BD-rate of {codec.name} against {against.name}"
    if not isinstance(compared, BDRate):
        return Comparison(
            codec=codec.name,
            against=against.name,
            file=against.file,
            distortion=distortion,
            pct=None,
            akima_pct=None,
            overlap=None,
            interval_db=None,
            of_photographs=of_photographs,
            reason=str(compared),
            line=f"{title}: none, {compared}",
        )
    low, high = compared.interval_db
    akima = f"{by_akima.pct:+.2f} %" if isinstance(by_akima, BDRate) else str(by_akima)
    line = f"{title}: {compared.pct:+.2f} % (pchip; akima {akima}; {low:.2f} to {high:.2f} dB, overlap"
    line += f" {compared.overlap:.2f}"
    if of_photographs:
        line += f"; mean of {of_photographs.valid} of {of_photographs.of} photographs {of_photographs.mean_pct:+.2f} %"
    return Comparison(
        codec=codec.name,
        against=against.name,
        file=against.file,
        distortion=distortion,
        pct=compared.pct,
        akima_pct=by_akima.pct if isinstance(by_akima, BDRate) else None,
        overlap=compared.overlap,
        interval_db=compared.interval_db,
        of_photographs=of_photographs,
        reason=None,
        line=f"{line})",
    )


def _of_photographs(codec: Curve, against: Curve) -> OfPhotographs | None:
    common = [digest for digest in codec.of_photograph if digest in against.of_photograph]
    results = [_bd_rate(against.of_photograph[digest], codec.of_photograph[digest], "pchip") for digest in common]
    valid = [result.pct for result in results if isinstance(result, BDRate)]
    if not valid:
        return None
    mean = math.fsum(valid) / len(valid)
    return OfPhotographs(mean_pct=mean, least_pct=min(valid), most_pct=max(valid), valid=len(valid), of=len(common))


def _bd_rate(anchor: Sequence[Point], test: Sequence[Point], method: Any) -> Any:
    return bd_rate(anchor, test, method=method, minimum_overlap=MINIMUM_OVERLAP)
