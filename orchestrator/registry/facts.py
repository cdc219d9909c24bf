"""What a run folder says of its sweep as a whole: what model cards and runs are made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.metric import METRICS, Metric
from orchestrator.results.anchor import ANCHOR, AnchorFile
from orchestrator.results.bundles import BUNDLES, CodingCosts, costs_file
from orchestrator.results.files import needed, read_file
from orchestrator.results.format import FormatError, json_value
from orchestrator.results.front import CANDIDATES, CODED_ANCHOR, Candidates, CodedCurve, CodedStudent
from orchestrator.results.versions import VERSIONS, Versions
from orchestrator.spec.spec import Spec
from orchestrator.spec.strict_yaml import YamlProblem, parse
from orchestrator.store.store import Store

INPUTS, SPEC = "inputs.json", "spec.yaml"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Photographs of a sweep."""

    name: str  # train or validation
    digests: tuple[str, ...]  # SHA-256 of each

    @property
    def digest(self) -> str:
        """SHA-256 of the sorted digests, one a line."""
        return hashlib.sha256("\n".join(sorted(self.digests)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SweepFacts:
    """Of a sweep; None and () where the run folder does not say."""

    name: str
    sweep: str  # its id
    spec: Spec | None
    spec_text: bytes | None
    versions: Versions | None
    anchor: Anchor | None
    anchor_coded: CodedCurve | None
    datasets: tuple[Dataset, ...]
    coded: tuple[CodedStudent, ...]  # all that were coded with real bitstreams
    costs: Mapping[str, CodingCosts]  # of bundles, by their files' names

    @property
    def metric(self) -> Metric:
        """How curves are read."""
        return METRICS["mse"] if self.anchor is None else self.anchor.metric

    def costs_of(self, student: CodedStudent) -> CodingCosts | None:
        """What coding with the student's bundle took; None: it was not measured."""
        return self.costs.get(costs_file(student.trial_id, student.weights_digest))


def read_facts(run: Store, sweep: str) -> SweepFacts:
    """What a run folder says; files that are not there yet are left out.

    Args:
        run: the run folder.
        sweep: its id.

    Raises:
        FormatError: a file is of another format.
    """
    text = _read(run, SPEC)
    anchor = read_file(run, ANCHOR, AnchorFile)
    candidates = read_file(run, CANDIDATES, Candidates)
    return SweepFacts(
        name=run.url.rpartition("/")[2],
        sweep=sweep,
        spec=None if text is None else _spec(text),
        spec_text=text,
        versions=read_file(run, VERSIONS, Versions),
        anchor=None if anchor is None else anchor.anchor,
        anchor_coded=read_file(run, CODED_ANCHOR, CodedCurve),
        datasets=_datasets(run),
        coded=() if candidates is None else candidates.students,
        costs={name: needed(run, name, CodingCosts) for name in run.list(BUNDLES) if name.endswith(".json")},
    )


def _read(run: Store, name: str) -> bytes | None:
    try:
        return run.read(name)
    except FileNotFoundError:
        return None


def _spec(text: bytes) -> Spec | None:
    """The specification; None: it is of another version, and its text says enough."""
    try:
        return Spec.model_validate_json(json.dumps(Spec.written_out(parse(text.decode()))))
    except (ValueError, YamlProblem):  # pydantic's ValidationError is a ValueError
        return None


def _datasets(run: Store) -> tuple[Dataset, ...]:
    content = _read(run, INPUTS)
    if content is None:
        return ()
    match json_value(content, f"{run.url}/{INPUTS}"):
        case {"photographs": {"train": [*train], "validation": [*validation]}}:
            return _dataset("train", train), _dataset("validation", validation)
    raise FormatError(f"{run.url}/{INPUTS}: it does not name the sweep's photographs")


def _dataset(name: str, digests: Sequence[object]) -> Dataset:
    return Dataset(name=name, digests=tuple(map(str, digests)))
