"""Sends a sweep to a cluster, follows its log to the end, and says where the results are.

    python jobs/launch.py slurm      --cluster clusters/specs/slurm.yaml --spec jobs/specs/quickstart.yaml
    python jobs/launch.py kubernetes --cluster clusters/specs/cpu-test.yaml --spec jobs/specs/quickstart.yaml
    python jobs/launch.py ray        --cluster clusters/specs/ray.yaml --spec jobs/specs/quickstart.yaml

With --dry-run the launch files are printed, and nothing is sent.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clusters.backend import Backend, LaunchError
from clusters.description import load_cluster
from clusters.job import Job, check
from orchestrator.logs import exit_code, put, say
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser, SpecError, without_credentials

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("slurm", "kubernetes", "ray")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: the job's own; 1: it could not be sent or followed; 2: a specification cannot be used; 130:
    interrupted, the job continues."""
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend", choices=BACKENDS, help="what starts the job")
    parser.add_argument("--cluster", required=True, help="a YAML file, see clusters/description.py")
    parser.add_argument("--on", action="append", default=[], metavar="FIELD=VALUE", help="overrides a field of it")
    parser.add_argument("--spec", required=True, help="the sweep's YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides a field of it")
    parser.add_argument("--dry-run", action="store_true", help="print the launch files and send nothing")
    given = parser.parse_args(arguments)
    backend = _backend(given.backend)
    try:
        cluster = load_cluster(given.cluster, given.on)
        spec = load_spec(given.spec, given.set)
        check(cluster, spec, given.set)
        job = Job(name=spec.name, spec=Path(given.spec).resolve(), overrides=tuple(given.set), root=ROOT)
        backend.check(cluster, spec)
        if cluster.gpus_per_node and spec.training.gpus_per_rank == 0:
            print("training.gpus_per_rank is 0: trials train on CPUs, though nodes have GPUs", file=sys.stderr)
        if given.dry_run:
            for name, text in backend.files(cluster, job).items():
                print(f"{name}:", file=sys.stderr)  # so that what is printed is a file as it has to be
                put("---\n" * name.endswith(".yaml") + text)
            return 0
        code = backend.launch(cluster, job)
        say(f"results: {cluster.results}/{job.name}")
        return code
    except SpecError as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 2
    except LaunchError as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the job goes on", file=sys.stderr)
        return 130


def _backend(name: str) -> Backend:
    """One of BACKENDS; loaded only when chosen, as Ray takes a second."""
    match name:
        case "slurm":
            from clusters import slurm

            return slurm
        case "kubernetes":
            from clusters import kubernetes

            return kubernetes
        case _:
            from clusters import ray_cluster

            return ray_cluster


if __name__ == "__main__":
    sys.exit(exit_code(main))
