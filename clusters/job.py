"""What a launcher launches: a sweep, by its specification."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clusters.description import Cluster
from orchestrator.section import refusal
from orchestrator.spec import Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str  # the sweep's
    spec: Path  # absolute: its specification
    overrides: tuple[str, ...] = ()  # FIELD=VALUE, as the user gave them; the cluster's come before
    root: Path  # absolute: the repository

    def arguments(self, spec: str, cluster: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Python's, from the repository's root.

        Args:
            spec: the specification's path as the process sees it.
            cluster: overrides that are the cluster's to say.
        """
        given = (*cluster, *self.overrides)
        return ("jobs/sweep_feds.py", "--spec", spec, *(word for each in given for word in ("--set", each)))


def check(cluster: Cluster, spec: Spec) -> None:
    """Raises SpecError unless a trial fits onto the cluster: Ray would wait for ever."""
    training, faults = spec.training, []
    cpus, gpus = cluster.nodes * cluster.cpus_per_node, cluster.nodes * cluster.gpus_per_node
    if training.ranks_per_trial > cpus:
        most = f"at most {cpus}, the CPUs of {cluster.nodes} nodes"
        faults.append(refusal("training.ranks_per_trial", training.ranks_per_trial, most))
    if training.ranks_per_trial * training.gpus_per_rank > gpus:
        most = f"at most {gpus / training.ranks_per_trial:g}: {cluster.nodes} nodes have {gpus} GPUs"
        faults.append(refusal("training.gpus_per_rank", training.gpus_per_rank, most))
    if faults:
        raise SpecError(faults)
