"""Rate-distortion curves of codecs on a folder of photographs, and their BD-rates.

    python jobs/evaluate.py models/weights/teacher-hyperprior.safetensors KODAK_FOLDER --classical jpeg webp avif jxl
    python jobs/evaluate.py A.safetensors B.safetensors BUNDLE_FOLDER models:/NAME@ALIAS FOLDER --out curves.json
    ray job submit --working-dir . -- python jobs/evaluate.py ...

Every photograph is coded into a real bitstream at every rate point, decoded, and what the decoder read is compared with
what the encoder wrote; `--estimate` reads the rates off the likelihoods instead. `--classical` runs other codecs on the
same photographs. A curve to compare with is a JSON file of CompressAI's form, {"name", "results": {"bpp": [...],
"psnr-rgb": [...]}} (`ms-ssim-rgb` for a network trained for MS-SSIM), and so is what `--out` writes, with a row for
each photograph and rate point. A curve of other photographs is refused. Exit code 2: bad input, named in one line; 1:
the decoder of a photograph read something else than its encoder wrote.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from lic_codec import outputs
from lic_codec.bundle import folder_of
from lic_codec.classical import CLASSICAL, classical
from lic_codec.curves import Curve, Distortion
from lic_codec.errors import CodecError, MismatchError, WorkerDiedError
from lic_codec.evaluation import Evaluation, evaluation, figures, needed_for
from lic_codec.learned import learned
from lic_codec.measuring import Candidate, distinct, measure
from lic_codec.photographs import digests
from lic_codec.sets import SETS
from models.families import LEAST_SIDE
from models.one_line import OneLineError
from models.weights import WeightsError
from orchestrator.caches import CacheError, settle_caches
from orchestrator.evaluation.on_folder import EvaluatedWeights, measured_photographs, of_weights
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
        result = evaluate(arguments)
    except (MismatchError, WorkerDiedError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except (InputError, CodecError, WeightsError, PhotographError, CacheError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    for line in outputs.lines(result):
        say(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="evaluate", description="Rate-distortion curves of codecs on a folder of photographs.")
    add = parser.add_argument
    add(
        "codecs",
        nargs="+",
        metavar="codec",
        help="a safetensors file of ours, a bundle (a folder, or a zip file of it), or models:/NAME@ALIAS",
    )
    add("folder", type=Path, help="photographs; those that are unfit are named and nothing is computed")
    add("--classical", nargs="+", default=[], choices=[*CLASSICAL], help="codecs that are run here, to compare with")
    add(
        "--against",
        type=Path,
        action="extend",
        default=[],
        nargs="+",
        metavar="CURVE.json",
        help="curves of the same photographs",
    )
    add("--published-on", choices=[*SETS], help="the set of photographs of curves that name none")
    add("--out", type=Path, metavar="FILE.json", help="where the result is written")
    add("--csv", type=Path, metavar="FILE.csv", help="where a table of all rows is written")
    add("--plot", type=Path, metavar="FILE.svg", help="where the curves are drawn; also .png and .pdf")
    add("--estimate", action="store_true", help="rates from the likelihoods instead of real bitstreams")
    cores = os.cpu_count() or 1
    add("--processes", type=int, default=cores, help="photographs coded at a time (default: one a core)")
    return parser


def evaluate(arguments: argparse.Namespace) -> Evaluation:
    """Checks the arguments before anything is computed, as far as possible; writes what is asked for.

    Raises:
        InputError, CodecError, WeightsError, PhotographError: bad input.
    """
    if arguments.processes < 1:
        raise InputError(f"--processes {arguments.processes}: at least 1")
    written = outputs.Outputs(out=arguments.out, table=arguments.csv, plot=arguments.plot)
    written.check()
    learned_ones = [_candidate(codec, arguments.estimate) for codec in arguments.codecs]
    candidates = distinct([*learned_ones, *map(classical, dict.fromkeys(arguments.classical))])
    distortion = cast(Distortion, candidates[0].distortion)
    against = [Curve.read(path, distortion, arguments.published_on) for path in arguments.against]
    by_ms_ssim = any(candidate.distortion == "ms-ssim" for candidate in candidates)
    surveyed = survey(arguments.folder, minimum_side=LEAST_SIDE if by_ms_ssim else 1)
    photographs = measured_photographs(surveyed.photographs)
    for curve in against:
        curve.check_photographs(digests(photographs))
    needed_for(len(candidates), against)
    say(f"photographs {surveyed.summary}")
    codecs = []
    for candidate in candidates:
        measured = measure(candidate, photographs, processes=arguments.processes, progress=say)
        of_weights_file = _is_weights(candidate.source)
        more = {"weights": asdict(EvaluatedWeights.of(Path(candidate.source)))} if of_weights_file else {}
        codecs.append(figures(measured, more))
    result = evaluation(codecs, against, distortion)
    written.write(result)
    return result


def _candidate(codec: str, estimated: bool) -> Candidate:
    if _is_weights(codec):
        return of_weights(Path(codec), estimated=estimated)
    if estimated:
        raise InputError(f"--estimate: rates are estimated of weights files, and {codec} is none")
    return learned(codec)


def _is_weights(codec: str) -> bool:
    """Whether it can be nothing but a weights file."""
    return bool(codec) and not codec.startswith("models:") and folder_of(codec) is None


if __name__ == "__main__":
    sys.exit(exit_code(main))
