"""Brings a run folder's trials and front into MLflow; what is there already stays as it is.

    python jobs/register_front.py runs/quickstart
    python jobs/register_front.py s3://bucket/runs/quickstart --tracking-uri http://HOST:PORT

Without --tracking-uri it goes where MLFLOW_TRACKING_URI names, else into mlflow.db in the run folder, whose addresses
are set right if the folder was moved or copied. Of a sweep that has not finished, trials are logged.
"""

from __future__ import annotations

import sys

from models.one_line import OneLineError
from orchestrator.caches import CacheError, settle_caches
from orchestrator.logs import exit_code, say, warn
from orchestrator.report.page import REPORT
from orchestrator.results.files import read_file
from orchestrator.results.format import FormatError
from orchestrator.results.front import FRONT, Front
from orchestrator.spec.messages import Parser, without_credentials
from orchestrator.store.store import Store
from orchestrator.sweep.front.publish import attach_report, register
from orchestrator.sweep.run_folder.inputs import INPUTS, sweep_id
from orchestrator.sweep.run_folder.records import read_json
from orchestrator.trials.files import read_trials


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0: registered; 1: MLflow, the run folder or Ray cannot be used, or weights are gone; 2: no run
    folder of a sweep, or one of another version."""
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", metavar="FOLDER", help="a run folder: a path, or s3://BUCKET/PREFIX")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="of MLflow; default: MLFLOW_TRACKING_URI, else the folder"
    )
    given = parser.parse_args(arguments)
    try:
        for line in settle_caches():
            warn(line)
        _register(Store(given.folder), given.tracking_uri)
    except (FormatError, CacheError) as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 2
    except OneLineError as error:  # MLflow's, the store's, Ray's, or lost weights
        print(without_credentials(str(error)), file=sys.stderr)
        return 1
    return 0


def _register(run: Store, tracking_uri: str | None) -> None:
    if not run.exists(INPUTS):
        raise FormatError(f"{run.url}: no run folder of a sweep: it has no {INPUTS}")
    inputs = read_json(run, INPUTS)
    if not isinstance(inputs, dict):
        raise FormatError(f"{run.url}/{INPUTS}: it holds no inputs of a sweep")
    sweep, trials, front = sweep_id(inputs), read_trials(run), read_file(run, FRONT, Front)
    register(run, sweep, trials, () if front is None else front.students, say, tracking_uri)
    if run.exists(REPORT):
        attach_report(run, sweep, trials, REPORT, tracking_uri)


if __name__ == "__main__":
    sys.exit(exit_code(main))
