"""What a launcher launches: a sweep, by its specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusters.description import OWNED, Cluster
from orchestrator.spec.messages import SpecError
from orchestrator.spec.section import refusal
from orchestrator.spec.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str  # the sweep's
    spec: Path  # absolute: its specification
    overrides: tuple[str, ...] = ()  # FIELD=VALUE, as the user gave them
    root: Path  # absolute: the repository

    def arguments(self, spec: str, cluster: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Python's, from the repository's root.

        Args:
            spec: the specification's path as the process sees it.
            cluster: overrides that are the cluster's to say.
        """
        given = (*cluster, *self.overrides)
        return ("jobs/sweep_feds.py", "--spec", spec, *(word for override in given for word in ("--set", override)))


def check(cluster: Cluster, spec: Spec, overrides: Sequence[str]) -> None:
    """Raises SpecError for a trial that fits nowhere, as Ray would wait for ever, and for an override of what is OWNED.

    Args:
        overrides: of the specification, as the user gave them.
    """
    training, nodes, problems = spec.training, f"{cluster.nodes} nodes", []
    for override in overrides:
        field = override.partition("=")[0].strip()
        owned = next((name for name in OWNED if f"{name}.".startswith(f"{field}.")), None)
        if owned:
            problems.append(f"--set {field}: not allowed: the cluster says it, so --on {OWNED[owned]}=...")
    ranks = training.ranks_per_trial or 1  # as few as a trial may get
    cpus, gpus = cluster.nodes * cluster.cpus_per_node, cluster.nodes * cluster.gpus_per_node
    if ranks > cpus:
        most = f"at most {cpus}, the CPUs of {nodes}"
        problems.append(refusal("training.ranks_per_trial", ranks, most))
    elif training.ranks_on(cluster.cpus_per_node, cluster.gpus_per_node) * cluster.nodes < ranks:
        most = f"less for {ranks} ranks a trial: {gpus} GPUs, {cluster.gpus_per_node} on each node"
        problems.append(refusal("training.gpus_per_rank", training.gpus_per_rank, most))
    if problems:
        raise SpecError(problems)
