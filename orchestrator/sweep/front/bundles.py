"""Exports the front's students as bundles and times them, in Ray tasks, so that the driver does not import torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import ray

from orchestrator.features.fill.fill import answer_of
from orchestrator.logs import warn
from orchestrator.results.bundles import CodingCosts, bundle_file, costs_file, packed, unpacked
from orchestrator.results.files import read_file
from orchestrator.results.format import FormatError, serialised
from orchestrator.results.front import CodedStudent
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected
from orchestrator.sweep.front.timing import TimingError, coding_costs
from orchestrator.trials.weights import read_weights

Figures = Mapping[str, str | int | float]


class Made(NamedTuple):
    """A bundle, zipped, and what coding with it takes; or why that was not measured."""

    bundle: bytes
    costs: CodingCosts | TimingError


@ray.remote(num_cpus=1)
def export_bundle(weights: bytes, name: str, figures: Figures) -> Made:
    """A ladder as a bundle.

    Args:
        weights: the content of the ladder's file.
        name: of the model.
        figures: what is known of it.
    """
    import torch

    from models.export import export
    from models.weights import ladder_from

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = export(ladder_from(weights), Path(temporary, "bundle"), name=name, figures=figures)
        costs: CodingCosts | TimingError
        try:
            costs = coding_costs(folder)
        except TimingError as error:
            costs = error
        return Made(packed(folder), costs)


def make_bundles(run: Store, students: Sequence[CodedStudent], say: Callable[[str], None]) -> None:
    """Write the students' bundles into the run folder, where one is missing or damaged, and what coding with it takes.
    Starts Ray only for those, if it does not run.

    Args:
        run: the run folder.
        students: of front.json.
        say: takes a line of progress.

    Raises:
        LostWeights: a network that is to be exported is gone or damaged.
        ClusterError: Ray cannot be used.
    """
    lacking = {student.trial_id: student for student in students if not _is_whole(run, _file(student))}
    if not lacking:
        return
    weights = {trial_id: read_weights(run, student) for trial_id, student in lacking.items()}
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(connected())
        pending: dict[Any, CodedStudent] = {
            export_bundle.remote(weights[trial_id], trial_id, figures_of(student)): student
            for trial_id, student in lacking.items()
        }
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            _keep(run, pending.pop(ready), answer_of(ready))
    say(f"bundles: {len(lacking)} of {len(students)} students exported to run without torch")


def _keep(run: Store, student: CodedStudent, made: Made) -> None:
    """The bundle last: one that is there is neither made nor timed again. Of one that was lost the first costs stay,
    which a card may state."""
    costs = costs_file(student.trial_id, student.weights_digest)
    if isinstance(made.costs, CodingCosts):
        run.publish(costs, serialised(made.costs))
    elif read_file(run, costs, CodingCosts) is None:
        warn(f"bundles: {student.trial_id} was not timed, its card does without: {made.costs}")
    run.replace(_file(student), made.bundle)


def figures_of(student: CodedStudent) -> dict[str, str | int | float]:
    """What a bundle says of its student; `lic info` shows it."""
    known: dict[str, str | int | float | None] = {
        "trial": student.trial_id,
        "weights_digest": student.weights_digest,
        "teacher": student.teacher,
        "bd_rate_pct": student.bd_rate_pct,
        "params": student.params,
        "encoder_macs_per_pixel": student.encoder_macs_per_pixel,
        "decoder_macs_per_pixel": student.decoder_macs_per_pixel,
        "images_seen": student.images_seen,
    }
    return {name: value for name, value in known.items() if value is not None}


def _file(student: CodedStudent) -> str:
    return bundle_file(student.trial_id, student.weights_digest)


def _is_whole(run: Store, name: str) -> bool:
    try:
        return bool(unpacked(run.read(name), name))
    except (FileNotFoundError, FormatError):
        return False
