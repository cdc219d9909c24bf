"""A weights file on a folder of photographs: its rate-distortion curve, and its BD-rate against published ones.

Curves are files of CompressAI's form, {"name", "results": {"bpp": [...], "psnr-rgb": [...], "ms-ssim-rgb": [...]}}.
"""

from __future__ import annotations

import json
import math
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pydantic import JsonValue

from models.families import Distortion, Kind
from models.one_line import OneLineError, one_line
from models.weights import WeightsDescription, WeightsError, digest, load_ladder, read_metadata
from orchestrator.evaluation.bd_rate import BDRate, Point, bd_rate, invalid_curve, plain_curve
from orchestrator.evaluation.metric import METRICS, Measured, ms_ssim_db
from orchestrator.logs import say
from orchestrator.photographs.photos import Photograph, load_rgb

MINIMUM_OVERLAP = 0.75  # for figures to publish
COLUMNS: dict[Distortion, str] = {"mse": "psnr-rgb", "ms-ssim": "ms-ssim-rgb"}


class CurveError(OneLineError, ValueError):
    """A file that holds no curve; the message is one line."""


class WorkerDiedError(OneLineError, RuntimeError):
    """A process that measures photographs was killed; the message is one line."""


class CurveComparison(TypedDict):
    """A BD-rate against a published curve, as the result's file has it; or `reason`, why there is none."""

    against: str
    file: str
    reason: NotRequired[str]
    akima_pct: NotRequired[float | None]  # by the other interpolation; None: it has no valid figure
    pct: NotRequired[float]
    overlap: NotRequired[float]
    interval_db: NotRequired[tuple[float, float]]
    line: str  # to print


class EvaluatedWeights(TypedDict):
    """The weights file that was evaluated; all but the digest is what the file says of itself."""

    digest: str  # SHA-256
    family: str
    N: int
    M: int
    kind: Kind
    lambdas: list[float]
    distortion: Distortion


class Evaluation(TypedDict):
    """The document that `evaluate` makes, of CompressAI's form with further fields."""

    name: str
    description: str
    results: dict[str, list[float]]  # column -> a value for each rate point
    points: list[dict[str, float]]  # `CurvePoint.to_json`
    bd_rate: list[CurveComparison]
    weights: EvaluatedWeights
    averaging: str
    colour_space: str
    photographs: list[dict[str, object]]  # `Measured`: a row for each photograph and rate point
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A curve to compare with."""

    name: str
    file: str
    curve: tuple[Point, ...]  # (bpp, quality in dB)

    @classmethod
    def read(cls, path: Path, distortion: Distortion) -> Published:
        """The curve of this distortion's quality. Raises CurveError, also for one that no BD-rate can be taken of."""
        column = COLUMNS[distortion]
        document = _document(path)
        try:
            results: Any = document["results"]
            bpp, quality = results["bpp"], results[column]
            pairs = plain_curve(f"bpp and {column}", zip(bpp, quality, strict=True))
        except (ValueError, KeyError, TypeError) as error:
            why = f": {error}" if isinstance(error, ValueError) else ""
            raise CurveError(f"{path}: no curve with results.bpp and results.{column} of one length{why}") from None
        if distortion == "ms-ssim":
            if beyond := [value for _, value in pairs if not 0 <= value <= 1]:
                raise CurveError(f"{path}: results.{column}: {beyond[0]} is no MS-SSIM, which is 0 to 1 and not in dB")
            pairs = [(rate, ms_ssim_db(value)) for rate, value in pairs]
        name = document.get("name", path.stem)
        if not isinstance(name, str):
            raise CurveError(f"{path}: name: {name!r} is not allowed: text")
        if why_not := invalid_curve(f"results.bpp and results.{column}", pairs):
            raise CurveError(f"{path}: no curve to compare with: {why_not.detail}")
        return cls(name=one_line(name), file=one_line(path.name), curve=tuple(pairs))

    def compare(self, own: Sequence[Point]) -> CurveComparison:
        """BD-rate of a curve against this one."""
        compared = bd_rate(self.curve, own, method="pchip", minimum_overlap=MINIMUM_OVERLAP)
        by_akima = bd_rate(self.curve, own, method="akima", minimum_overlap=MINIMUM_OVERLAP)
        if not isinstance(compared, BDRate):
            line = f"BD-rate against {self.name}: none, {compared}"
            return {"against": self.name, "file": self.file, "reason": str(compared), "line": line}
        low, high = compared.interval_db
        akima = by_akima.pct if isinstance(by_akima, BDRate) else None
        line = f"BD-rate against {self.name}: {compared.pct:+.2f} % (pchip"
        line += f"; akima {akima:+.2f} %" if akima is not None else f"; akima {by_akima}"
        line += f"; {low:.2f} to {high:.2f} dB, overlap {compared.overlap:.2f})"
        return {
            "against": self.name,
            "file": self.file,
            "akima_pct": akima,
            "pct": compared.pct,
            "overlap": compared.overlap,
            "interval_db": compared.interval_db,
            "line": line,
        }


def _document(path: Path) -> dict[str, JsonValue]:
    """A file's JSON object. Raises CurveError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except OSError as error:
        raise CurveError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CurveError(f"{path}: it is not UTF-8 text; UTF-16 has to be converted") from None
    except RecursionError:
        raise CurveError(f"{path}: no JSON: nested too deep") from None
    except ValueError as error:
        raise CurveError(f"{path}: no JSON: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise CurveError(f"{path}: not an object with results")
    return document


def evaluate(
    weights: Path,
    photographs: Sequence[Photograph],
    against: Sequence[Published] = (),
    *,
    estimated: bool = False,
    processes: int = 1,
) -> Evaluation:
    """Measures all photographs at every rate point.

    Args:
        weights: a file of ours.
        against: curves of the quality that its ladder was trained for.
        estimated: rates from the likelihoods; else from real bitstreams, decoded and compared with the forward pass.
        processes: photographs measured at a time, one thread each.

    Raises:
        WeightsError: the weights file cannot be used, or its curve is not finite.
        PhotographError: a photograph cannot be read.
        MismatchError: a decoded image differs from the forward pass.
        WorkerDiedError: a process that measures was killed.
    """
    described = read_metadata(weights)
    quiet_compressai()
    load_ladder(weights)  # what is wrong with it is found before other processes load it
    measured = _measure(weights, photographs, estimated=estimated, processes=processes)
    from orchestrator.evaluation.rate_distortion import AVERAGING, COLOUR_SPACE, curve

    curve_points = curve(measured)
    points = [point.to_json() for point in curve_points]
    for point in points:
        if wrong := [name for name, value in point.items() if not math.isfinite(value)]:
            reached = f"{wrong[0]} is {point[wrong[0]]} at rate point {point['rate_point']}"
            raise WeightsError(f"{weights}: {reached}: the weights are damaged, or their training diverged")
    columns = {"bpp": "bpp", "psnr-rgb": "psnr_db", "ms-ssim-rgb": "ms_ssim"}
    own = METRICS[described.distortion].curve(curve_points) if against else []
    libraries = ("torch", "compressai", "pytorch-msssim", "numpy", "scipy", "bjontegaard", "pillow")
    return {
        "name": weights.stem,
        "description": "estimated from likelihoods" if estimated else "real bitstreams, header included",
        "results": {column: [point[name] for point in points] for column, name in columns.items() if name in points[0]},
        "points": points,
        "bd_rate": [published.compare(own) for published in against],
        "weights": _evaluated_weights(weights, described),
        "averaging": AVERAGING,
        "colour_space": COLOUR_SPACE,
        "photographs": [asdict(row) for row in measured],
        "versions": {name: version(name) for name in libraries},
    }


def _evaluated_weights(weights: Path, described: WeightsDescription) -> EvaluatedWeights:
    return {
        "digest": digest(weights),
        "family": described.family,
        "N": described.N,
        "M": described.M,
        "kind": described.kind,
        "lambdas": list(described.lambdas),
        "distortion": described.distortion,
    }


def _measure(weights: Path, photographs: Sequence[Photograph], *, estimated: bool, processes: int) -> list[Measured]:
    """Rows in the order of `photographs`, then of rate points."""
    rows: dict[str, list[Measured]] = {}
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(weights, estimated)
    ) as pool:
        with _interrupts_for_this_process_alone():
            waiting = {pool.submit(_measure_one, photograph): photograph.path for photograph in photographs}
        try:
            for done in as_completed(waiting):
                path = waiting[done]
                rows[path] = done.result()
                mean = math.fsum(row.bpp for row in rows[path]) / len(rows[path])
                name = Path(path).name
                say(f"[{len(rows)}/{len(photographs)}] {name}: {mean:.3f} bpp over {len(rows[path])} rate points")
        except BrokenProcessPool as error:
            died = "a process that measures photographs died, perhaps for want of memory: try fewer at a time"
            raise WorkerDiedError(died) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [row for photograph in photographs for row in rows[photograph.path]]


@contextmanager
def _interrupts_for_this_process_alone() -> Iterator[None]:
    """Processes that are started inside ignore Ctrl-C, which a terminal sends to all: each would print a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_worker: dict[str, Any] = {}  # a worker process's ladder, made once


def quiet_compressai() -> None:
    """CompressAI 1.2.8 scripts a function at import, which torch 2.14 announces as deprecated in every process."""
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)


def _start_worker(weights: Path, estimated: bool) -> None:
    quiet_compressai()
    import torch

    from models.bitstream import prepare_for_coding

    torch.set_num_threads(1)
    ladder = load_ladder(weights)
    _worker.update(ladder=ladder, coding=None if estimated else prepare_for_coding(ladder))


def _measure_one(photograph: Photograph) -> list[Measured]:
    from orchestrator.evaluation.rate_distortion import coded, estimate

    named = [(one_line(Path(photograph.path).name), load_rgb(photograph))]
    rate_points = range(len(_worker["ladder"].lambdas))
    if _worker["coding"] is None:
        return list(estimate(_worker["ladder"], named, rate_points))
    return list(coded(_worker["coding"], named, rate_points))
