"""The rate-distortion curve of a weights file on a folder of photographs, and its BD-rate against other curves.

    python jobs/evaluate.py models/weights/teacher-hyperprior.safetensors KODAK_FOLDER --against jpeg.json
    ray job submit --working-dir . -- python jobs/evaluate.py ...

Every photograph is coded into a real bitstream at every rate point, decoded, and compared with the encoder's forward
pass; `--estimate` reads the rates off the likelihoods instead. A curve to compare with is a JSON file of CompressAI's
form, {"name", "results": {"bpp": [...], "psnr-rgb": [...]}}, and so is what `--out` writes, with a row a photograph
beside it. Exit code 2: bad input, named in one line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.weights import WeightsError, digest, read_metadata
from orchestrator.evaluation.bd_rate import BDRate, bd_rate
from orchestrator.photos import Photograph, PhotographError, load_rgb, survey

if TYPE_CHECKING:
    from orchestrator.evaluation.rate_distortion import Measured

MINIMUM_OVERLAP = 0.75  # for figures to publish


class InputError(ValueError):
    """Input that cannot be used; the message is one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, evaluates, prints. Returns the exit code."""
    arguments = parser().parse_args(argv)
    try:
        result = evaluate(arguments)
    except (InputError, WeightsError, PhotographError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    for point in result["points"]:
        print(f"rate point {point['rate_point']}: {point['bpp']:.4f} bpp, {point['psnr_db']:.3f} dB")
    for against in result["bd_rate"]:
        print(against["line"])
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="evaluate", description="Rate-distortion curve of a weights file on a folder of photographs."
    )
    made.add_argument("weights", type=Path, help="a safetensors file of ours")
    made.add_argument("folder", type=Path, help="photographs; those that are unfit are named and nothing is computed")
    made.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        nargs="+",
        metavar="CURVE.json",
        help="curves to compare with",
    )
    made.add_argument("--out", type=Path, metavar="FILE.json", help="where the result is written")
    made.add_argument("--estimate", action="store_true", help="rates from the likelihoods instead of real bitstreams")
    made.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="photographs coded at a time (default: one a core)"
    )
    return made


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures all photographs and writes `--out`.

    Raises:
        InputError, WeightsError, PhotographError: before anything is computed where possible.
    """
    metadata = read_metadata(arguments.weights)
    curves = [(path, *read_curve(path)) for group in arguments.against for path in group]
    photographs = survey(arguments.folder, minimum_side=1).photographs
    if arguments.processes < 1:
        raise InputError(f"--processes {arguments.processes}: at least 1")
    if arguments.out and not arguments.out.absolute().parent.is_dir():
        raise InputError(f"--out {arguments.out}: no such folder")
    measured = measure(
        arguments.weights,
        photographs,
        estimate=arguments.estimate,
        processes=min(arguments.processes, len(photographs)),
    )

    quiet_compressai()
    from orchestrator.evaluation.rate_distortion import AVERAGING, COLOUR_SPACE, curve

    points = curve(measured)
    own = [(point["bpp"], point["psnr_db"]) for point in points]
    result = {
        "name": arguments.weights.stem,
        "description": "estimated from likelihoods" if arguments.estimate else "real bitstreams, header included",
        "results": {"bpp": [bpp for bpp, _ in own], "psnr-rgb": [psnr for _, psnr in own]},
        "points": points,
        "bd_rate": [compare(path, name, anchor, own) for path, name, anchor in curves],
        "weights": {
            "digest": digest(arguments.weights),
            **{name: metadata[name] for name in ("family", "N", "M", "kind", "lambdas")},
        },
        "averaging": AVERAGING,
        "colour_space": COLOUR_SPACE,
        "photographs": [asdict(each) for each in measured],
        "versions": {
            name: version(name) for name in ("torch", "compressai", "numpy", "scipy", "bjontegaard", "pillow")
        },
    }
    if arguments.out:
        temporary = arguments.out.with_name(f".{arguments.out.name}.{os.getpid()}")
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        temporary.replace(arguments.out)
    return result


def compare(path: Path, name: str, anchor: list[tuple[float, float]], own: list[tuple[float, float]]) -> dict[str, Any]:
    """BD-rate against one curve, with its line to print."""
    compared, beside = (
        bd_rate(anchor, own, method=each, minimum_overlap=MINIMUM_OVERLAP) for each in ("pchip", "akima")
    )
    if not isinstance(compared, BDRate):
        return {
            "against": name,
            "file": path.name,
            "reason": str(compared),
            "line": f"BD-rate against {name}: none, {compared}",
        }
    low, high = compared.psnr_interval_db
    akima = beside.pct if isinstance(beside, BDRate) else None
    line = f"BD-rate against {name}: {compared.pct:+.2f} % (pchip"
    line += f"; akima {akima:+.2f} %" if akima is not None else f"; akima {beside}"
    line += f"; {low:.2f} to {high:.2f} dB, overlap {compared.overlap:.2f})"
    return {"against": name, "file": path.name, "akima_pct": akima, **asdict(compared), "line": line}


def read_curve(path: Path) -> tuple[str, list[tuple[float, float]]]:
    """The name and the (bpp, psnr_db) points of a published curve."""
    try:
        document = json.loads(path.read_text())
        rates, psnrs = document["results"]["bpp"], document["results"]["psnr-rgb"]
        points = [(float(rate), float(psnr)) for rate, psnr in zip(rates, psnrs, strict=True)]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no curve with results.bpp and results.psnr-rgb of one length") from error
    return str(document.get("name", path.stem)), points


def measure(weights: Path, photographs: Sequence[Photograph], *, estimate: bool, processes: int) -> list[Measured]:
    """Measures photographs side by side, one thread each; rows in the order of `photographs`, then of rate points."""
    rows: dict[str, list[Measured]] = {}
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=start_worker, initargs=(weights, estimate)
    ) as pool:
        waiting = {pool.submit(measure_one, each): each.path for each in photographs}
        try:
            for done in as_completed(waiting):
                path = waiting[done]
                rows[path] = done.result()
                mean = math.fsum(row.bpp for row in rows[path]) / len(rows[path])
                name = Path(path).name
                print(
                    f"[{len(rows)}/{len(photographs)}] {name}: {mean:.3f} bpp over {len(rows[path])} rate points",
                    flush=True,
                )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [row for each in photographs for row in rows[each.path]]


_worker: dict[str, Any] = {}  # a worker process's ladder, made once


def quiet_compressai() -> None:
    """CompressAI 1.2.8 scripts a function at import, which torch 2.14 announces as deprecated in every process."""
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)


def start_worker(weights: Path, estimate: bool) -> None:
    quiet_compressai()
    import torch

    from models.weights import load_ladder
    from orchestrator.codec import prepare_for_coding

    torch.set_num_threads(1)
    ladder = load_ladder(weights)
    _worker.update(ladder=ladder, coding=None if estimate else prepare_for_coding(ladder))


def measure_one(photograph: Photograph) -> list[Measured]:
    from orchestrator.evaluation.rate_distortion import coded, estimate

    named = [(Path(photograph.path).name, load_rgb(photograph))]
    rate_points = range(len(_worker["ladder"].lambdas))
    if _worker["coding"] is None:
        return list(estimate(_worker["ladder"], named, rate_points))
    return list(coded(_worker["coding"], named, rate_points))


if __name__ == "__main__":
    sys.exit(main())
