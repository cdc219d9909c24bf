"""What Slurm, Kubernetes and Ray have in common as launchers: each is a package that is a `Backend`."""

from __future__ import annotations

from typing import Protocol

from clusters.description import Cluster
from clusters.job import Job
from models.one_line import OneLineError
from orchestrator.spec.spec import Spec


class Backend(Protocol):
    """A package with three functions."""

    def check(self, cluster: Cluster, spec: Spec, /) -> None:
        """Raises SpecError for what this launcher cannot do with them."""

    def files(self, cluster: Cluster, job: Job, /) -> dict[str, str]:
        """Name -> text of the launch files; pure."""
        ...

    def launch(self, cluster: Cluster, job: Job, /) -> int:
        """Sends them, follows the job's log to its end, returns its exit code; raises LaunchError."""
        ...


class LaunchError(OneLineError, RuntimeError):
    """The job could not be sent, or not be followed; the message is one line."""
