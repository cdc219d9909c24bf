"""The rate-distortion curve of a weights file on a folder of photographs, and its BD-rate against other curves.

    python jobs/evaluate.py models/weights/teacher-hyperprior.safetensors KODAK_FOLDER --against jpeg.json
    ray job submit --working-dir . -- python jobs/evaluate.py ...

Every photograph is coded into a real bitstream at every rate point, decoded, and compared with the encoder's forward
pass; `--estimate` reads the rates off the likelihoods instead. A curve to compare with is a JSON file of CompressAI's
form, {"name", "results": {"bpp": [...], "psnr-rgb": [...]}} (`ms-ssim-rgb` for a network trained for MS-SSIM), and so
is what `--out` writes, with a row for each photograph and rate point. Exit code 2: bad input, named in one line; 1: a
decoded photograph differs from the encoder's forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from models.families import LEAST_SIDE
from models.one_line import OneLineError
from models.weights import WeightsError, read_metadata
from orchestrator.caches import CacheError, settle_caches
from orchestrator.evaluation.on_folder import CurveError, Evaluation, Published, WorkerDiedError, evaluate
from orchestrator.evaluation.rate_distortion import MismatchError
from orchestrator.logs import exit_code, say, warn
from orchestrator.photographs.photos import PhotographError
from orchestrator.photographs.survey import survey
from orchestrator.spec.messages import Parser


class InputError(OneLineError, ValueError):
    """Arguments that cannot be used; the message is one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code.

    0: evaluated; 1: a decoded image differs from the forward pass, or a process died; 2: the weights, a photograph, a
    curve or an argument cannot be used; 130: interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        for line in settle_caches():
            warn(line)
        result = _evaluated(arguments)
    except (InputError, CurveError, WeightsError, PhotographError, CacheError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except (MismatchError, WorkerDiedError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    for point in result["points"]:
        similarity = f", MS-SSIM {point['ms_ssim']:.5f}" if "ms_ssim" in point else ""
        say(f"rate point {point['rate_point']}: {point['bpp']:.4f} bpp, {point['psnr_db']:.3f} dB{similarity}")
    for against in result["bd_rate"]:
        say(against["line"])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="evaluate", description="Rate-distortion curve of a weights file on a folder of photographs.")
    parser.add_argument("weights", type=Path, help="a safetensors file of ours")
    parser.add_argument("folder", type=Path, help="photographs; those that are unfit are named and nothing is computed")
    parser.add_argument(
        "--against",
        type=Path,
        action="extend",
        default=[],
        nargs="+",
        metavar="CURVE.json",
        help="curves to compare with",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where the result is written")
    parser.add_argument("--estimate", action="store_true", help="rates from the likelihoods instead of real bitstreams")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="photographs coded at a time (default: one a core)"
    )
    return parser


def _evaluated(arguments: argparse.Namespace) -> Evaluation:
    """Checks the arguments before anything is computed, as far as possible; writes `--out`.

    Raises:
        InputError, CurveError, WeightsError, PhotographError: bad input.
    """
    distortion = read_metadata(arguments.weights).distortion
    against = [Published.read(path, distortion) for path in arguments.against]
    side = LEAST_SIDE if distortion == "ms-ssim" else 1
    surveyed = survey(arguments.folder, minimum_side=side)
    photographs = surveyed.photographs
    if arguments.processes < 1:
        raise InputError(f"--processes {arguments.processes}: at least 1")
    if arguments.out is not None:
        _check_out(arguments.out)
    say(f"photographs {surveyed.summary}")
    result = evaluate(
        arguments.weights,
        photographs,
        against,
        estimated=arguments.estimate,
        processes=min(arguments.processes, len(photographs)),
    )
    if arguments.out is not None:
        temporary = arguments.out.with_name(f".{arguments.out.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            temporary.replace(arguments.out)
        except OSError as error:  # such as a disk that has become full
            raise InputError(f"--out {arguments.out}: {error.strerror}") from None
    return result


def _check_out(out: Path) -> None:
    """Raises InputError unless the file can be written, as far as looking at the disk tells.

    A rename puts the result in its place, so anything but a result there, such as weights or a device, would be lost.
    """
    folder = out.absolute().parent
    if out.suffix != ".json":
        raise InputError(f"--out {out}: its name has to end in .json")
    if not folder.is_dir():
        raise InputError(f"--out {out}: no such folder")
    if out.is_dir():
        raise InputError(f"--out {out}: a folder; it has to be a file")
    if out.exists() and not out.is_file():
        raise InputError(f"--out {out}: a pipe or a device; it has to be a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: {folder} cannot be written")


if __name__ == "__main__":
    sys.exit(exit_code(main))
