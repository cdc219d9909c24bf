"""Trains one rate ladder on a folder of photographs: a teacher, or a small ladder for students to start from.

Under Ray Train, on a laptop or a cluster (`ranks_per_trial` workers):

    python jobs/train_teacher.py --recipe jobs/specs/teacher-hyperprior.yaml --set photographs.train=FOLDER ...
    ray job submit --working-dir . -- python jobs/train_teacher.py --recipe jobs/specs/teacher-hyperprior.yaml ...

Without Ray: `torchrun --nproc-per-node 2 jobs/train_teacher.py ...`. Started again, it continues from its
last checkpoint.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from models.weights import WeightsError
from orchestrator.photographs.photos import PhotographError
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.recipe import Recipe


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code. 0: trained; 2: the recipe, a photograph or a weights file cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="a YAML file, see orchestrator/spec/recipe.py")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrides one value, e.g. training.batch_size=16",
    )
    arguments = parser.parse_args(argv)
    from orchestrator import teacher
    from orchestrator.sweep.cluster import connected

    try:
        recipe = load_spec(arguments.recipe, arguments.set, model=Recipe).resolved(Path.cwd())
        recipe.check_paths()
        if "RANK" in os.environ:
            teacher.train_here(recipe)
        else:
            with connected():
                teacher.train_with_ray(recipe)
    except (SpecError, PhotographError, WeightsError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
