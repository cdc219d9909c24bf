"""Runs a sweep, or what is left of it: trains and stops trials, codes the best, registers their Pareto front.

On this machine:
    python jobs/sweep_feds.py --spec jobs/specs/quickstart.yaml
    python jobs/sweep_feds.py --spec jobs/specs/quickstart.yaml --plan    # what it would take, from a calibration

On a running Ray (photographs, weights, results and store where every node sees them):
    ray job submit --working-dir . -- python jobs/sweep_feds.py --spec jobs/specs/quickstart.yaml \\
      --set results=/shared/runs --set store=s3://bucket/store
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lic_codec.errors import MismatchError
from models.weights import WeightsError
from orchestrator.caches import CacheError, settle_caches
from orchestrator.features.format.key import FeatureError
from orchestrator.logs import exit_code, say, warn
from orchestrator.photographs.crops import CropError
from orchestrator.photographs.photos import PhotographError
from orchestrator.registry.reach import RegistryError
from orchestrator.results.format import FormatError
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser, SpecError, without_credentials
from orchestrator.spec.spec import Spec
from orchestrator.store.errors import StoreError
from orchestrator.sweep.run_folder.records import NotOwner
from orchestrator.trials.weights import LostWeights

QUICKSTART = "jobs/specs/quickstart.yaml"  # in the repository's root, as the paths inside it


def main(arguments: list[str] | None = None) -> int:
    """The exit code.

    0: finished; 1: trials failed, Ray, the feature store or MLflow cannot be used, weights of the run folder are gone,
    or another process took the sweep over; 2: the specification, MLFLOW_TRACKING_URI, a photograph, a run folder of
    another version or this machine's folders for caches cannot be used, nothing was written; 75: SIGTERM, running
    trials are saved and the same command continues; 130: interrupted.
    """
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--spec", default=QUICKSTART, help="a YAML file; default: %(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides a field of it")
    parser.add_argument("--plan", action="store_true", help="only measure and say what it would take")
    given = parser.parse_args(arguments)
    try:
        for line in settle_caches():
            warn(line)
    except CacheError as error:
        print(error, file=sys.stderr)
        return 2
    return _run(given)


def _run(given: argparse.Namespace) -> int:
    """The exit code of the sweep or its plan."""
    # Ray asks for the home folder when it is imported.
    from orchestrator.sweep.cluster import ClusterError
    from orchestrator.sweep.forecast.calibrate import show_plan
    from orchestrator.sweep.gang.gang import RankError
    from orchestrator.sweep.preemption import EXIT_CODE, Preempted
    from orchestrator.sweep.run import run_sweep

    try:
        spec: Spec = load_spec(given.spec, given.set).resolved(Path.cwd())
        if given.plan:
            show_plan(spec, say)
            return 0
        return 1 if run_sweep(spec) else 0
    except (SpecError, PhotographError, CropError, WeightsError, FormatError) as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 2
    except (
        ClusterError,
        NotOwner,
        RankError,
        StoreError,
        FeatureError,
        RegistryError,
        LostWeights,
        MismatchError,
    ) as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 1
    except Preempted as notice:
        print(f"preempted: {notice}; the same command goes on", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {interrupt}" if str(interrupt) else "interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(exit_code(main))
