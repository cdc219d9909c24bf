"""Trains one rate ladder on a folder of photographs: a teacher, or a small ladder for students to start from.

Under Ray Train, on this machine or a cluster (`ranks_per_trial` workers):

    python jobs/train_teacher.py --recipe jobs/specs/teacher-hyperprior.yaml --set photographs.train=FOLDER ...
    ray job submit --working-dir . -- python jobs/train_teacher.py --recipe jobs/specs/teacher-hyperprior.yaml \\
      --set results=/shared/teachers ...

Without Ray: `torchrun --nproc-per-node 2 jobs/train_teacher.py ...`. Started again, it goes on from its last
checkpoint. It says step, loss, images a second and time left every half minute, and a rate-distortion curve at each
check (`checkpoint_every` images).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from models.weights import WeightsError
from orchestrator.caches import CacheError, settle_caches
from orchestrator.logs import exit_code, warn
from orchestrator.photographs.crops import CropError
from orchestrator.photographs.photos import PhotographError
from orchestrator.results.format import FormatError
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser, SpecError, without_credentials
from orchestrator.spec.recipe import Recipe
from orchestrator.store.errors import StoreError
from orchestrator.sweep.run_folder.records import NotOwner


def main(argv: list[str] | None = None) -> int:
    """The exit code, as a sweep's.

    0: trained; 1: the training failed, Ray or the run folder cannot be used, or another process took it over; 2: the
    recipe, a photograph, a weights file or a run folder of something else cannot be used, nothing was written; 75:
    SIGTERM, the training is saved and the same command goes on; 130: interrupted. Under torchrun, rank 0 alone says
    why.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="a YAML file, see orchestrator/spec/recipe.py")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrides one value, e.g. training.batch_size=16",
    )
    arguments = parser.parse_args(argv)
    try:
        for line in settle_caches():
            warn(line)
    except CacheError as error:
        print(error, file=sys.stderr)
        return 2
    return _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    """The exit code of the training."""
    # Ray asks for the home folder when it is imported.
    from orchestrator.sweep.cluster import ClusterError
    from orchestrator.sweep.preemption import EXIT_CODE, Preempted
    from orchestrator.sweep.run_folder.checkpoints import CheckpointError
    from orchestrator.teacher.plan import TrainingError
    from orchestrator.teacher.run import train_here, train_with_ray

    try:
        recipe = load_spec(arguments.recipe, arguments.set, model=Recipe).resolved(Path.cwd())
        recipe.check_paths()
        if "RANK" in os.environ:
            train_here(recipe)
        else:
            train_with_ray(recipe)
    except (SpecError, PhotographError, CropError, WeightsError, FormatError) as error:
        return _ended(str(error), 2)
    except (TrainingError, CheckpointError, ClusterError, NotOwner, StoreError) as error:
        return _ended(str(error), 1)
    except Preempted as notice:
        return _ended(f"preempted: {notice}; the same command goes on", EXIT_CODE)
    except KeyboardInterrupt:
        return _ended("interrupted", 130)
    return 0


def _ended(line: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")
    if rank == "0" or not rank.isdecimal():
        print(without_credentials(line), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(exit_code(main))
