"""Adam and SOAP from random weights: learning curves by images and by seconds.

    python -m benchmarks.engine.optimizers --train FOLDER --validation FOLDER --work FOLDER

Each optimizer at each learning rate is a training of the teacher's recipe by `jobs/train_teacher.py`: one rank of one
thread, two trainings side by side. ln J is the mean over the rate points of ln(bpp + lambda D) on the validation crops.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, ROOT, TRAIN, VALIDATION, facts, write
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.files import needed
from orchestrator.spec.messages import Parser
from orchestrator.store.store import Store
from orchestrator.teacher.record import RECORD, TeacherRecord

CHECKS = 8
ARMS = ("adam=1e-3", "soap=3e-3", "adam=2e-3", "soap=6e-3")
GOAL_IMAGES, GOAL_SECONDS = 0.5, 0.6  # SOAP's, of Adam's, to the same cost


@dataclass(frozen=True, kw_only=True)
class Run:
    """An optimizer's learning curve; every sequence has one entry a check."""

    optimizer: str
    learning_rate: float
    images: tuple[int, ...]
    seconds: tuple[float, ...]  # of steps alone
    ln_cost: tuple[float, ...]


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine = facts()
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda arm: trained(arm, options), options.arms))
    figures = {
        "recipe": {"network": options.network, "images": options.images},
        "runs": [asdict(run) for run in runs],
        "goals": goals(runs),
    }
    write(options.results, "optimizers", machine, figures)
    return 0


def trained(arm: str, options: argparse.Namespace) -> Run:
    """Trains, or reads what an earlier call trained. Raises CalledProcessError."""
    optimizer, learning_rate = arm.split("=")
    name = f"{optimizer}-{learning_rate}"
    sets = {
        "name": name,
        "seed": 7,
        "results": Path(options.work).absolute(),
        "network": options.network,
        "photographs.train": options.train,
        "photographs.validation": options.validation,
        "images": options.images,
        "checkpoint_every": options.images // CHECKS,
        "stage_one_share": 0,
        "training.optimizer": optimizer,
        "training.learning_rate": learning_rate,
        "training.zero_stage": 0,
    }
    words = [word for field, value in sets.items() for word in ("--set", f"{field}={value}")]
    command = ["torchrun", "--nproc-per-node", "1", "jobs/train_teacher.py", "--recipe", options.recipe, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.DEVNULL)
    print(f"trained: {name}", flush=True)
    checks = needed(Store(Path(options.work) / name), RECORD, TeacherRecord).checks
    return Run(
        optimizer=optimizer,
        learning_rate=float(learning_rate),
        images=tuple(check.images_seen for check in checks),
        seconds=tuple(accumulate(check.seconds for check in checks)),
        ln_cost=tuple(ln_cost(check.points) for check in checks),
    )


def ln_cost(points: Sequence[CurvePoint]) -> float:
    """The mean over the rate points of ln(bpp + lambda 255^2 MSE)."""
    return statistics.fmean(math.log(point.bpp + (point.lmbda or 0) * 255**2 * point.mse) for point in points)


def goals(runs: Sequence[Run]) -> dict[str, dict[str, float | str | None]]:
    """What SOAP takes of what Adam takes, each at its best learning rate, until it costs what Adam's end costs."""
    adam, soap = (min(_of(runs, name), key=lambda run: run.ln_cost[-1]) for name in ("adam", "soap"))
    place = next((place for place, cost in enumerate(soap.ln_cost) if cost <= adam.ln_cost[-1]), None)
    images = None if place is None else soap.images[place] / adam.images[-1]
    seconds = None if place is None else soap.seconds[place] / adam.seconds[-1]
    return {
        "soap_images_of_adams": {"value": images, "goal": GOAL_IMAGES, "at": "most"},
        "soap_seconds_of_adams": {"value": seconds, "goal": GOAL_SECONDS, "at": "most"},
    }


def _of(runs: Sequence[Run], optimizer: str) -> list[Run]:
    return [run for run in runs if run.optimizer == optimizer]


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--recipe", default=str(ROOT / "jobs" / "specs" / "teacher-hyperprior.yaml"))
    add("--network", default="{family: hyperprior, N: 64, M: 96}")
    add("--train", default=TRAIN, metavar="FOLDER")
    add("--validation", default=VALIDATION, metavar="FOLDER")
    add("--work", required=True, metavar="FOLDER", help="the run folders; keep it to go on later")
    add("--images", type=count, default=16000, help="a multiple of 64")
    add("--arms", nargs="+", default=list(ARMS), metavar="OPTIMIZER=RATE")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
