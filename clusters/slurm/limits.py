"""What Slurm cannot do with a description, said before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clusters.description import Cluster
from clusters.slurm.script import seconds
from orchestrator.spec.messages import SpecError
from orchestrator.spec.section import refusal
from orchestrator.spec.spec import Spec

RESOLUTION_S = 60  # Slurm may send its signal so much earlier
# Options that the script sets itself, in ways that it counts on.
TAKEN = (
    "array chdir cpus-per-task error export export-file get-user-env gpus-per-node input job-name mem nodes no-requeue"
)
TAKEN += " ntasks ntasks-per-node open-mode output parsable requeue signal time wait wrap"
UNSAFE = r"[\\\x00-\x1f]"  # Slurm takes a backslash in a log's path for a sign of its own


def check(cluster: Cluster, spec: Spec) -> None:
    """Raises SpecError for what cannot work."""
    problems = list(_problems(cluster))
    if problems:
        raise SpecError(problems)


def _problems(cluster: Cluster) -> Iterator[str]:
    slurm = cluster.slurm
    least = cluster.grace_s + RESOLUTION_S
    if slurm.time_limit is not None and seconds(slurm.time_limit) <= least:
        instead = f"more than grace_s and the minute by which Slurm may be early, {least} s"
        yield refusal("slurm.time_limit", slurm.time_limit, instead)
    for number, directive in enumerate(slurm.directives):
        option = re.fullmatch(r"--([a-z-]+)(=\S+)?", directive)
        if not option:
            yield refusal(f"slurm.directives.{number}", directive, "a long option of sbatch, such as --exclusive")
        elif option[1] in TAKEN.split():
            yield refusal(f"slurm.directives.{number}", directive, "an option that the script does not set itself")
    for field in ("results", "store"):
        value = getattr(cluster, field)
        if re.search(UNSAFE, value):
            yield refusal(field, value, "a path without backslashes and control characters")
        elif slurm.container and re.search("[,:]", value.removeprefix("file:").removeprefix("s3:")):
            yield refusal(field, value, "a path without commas and colons, which separate a container's mounts")
