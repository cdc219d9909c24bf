"""What the report shows beside the front, measured in Ray tasks. A sweep does without where it cannot be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from models.weights import digest
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.classical import CODECS
from orchestrator.evaluation.front import spread
from orchestrator.features.fill.fill import answer_of
from orchestrator.logs import warn
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.report.illustrate import STUDENTS_SHOWN, chosen, codec_references, scenes
from orchestrator.results.files import read_file, write_file
from orchestrator.results.front import CODED_ANCHOR, CodedCurve, CodedStudent
from orchestrator.results.pictures import PICTURES, Pictures, Scene
from orchestrator.results.references import REFERENCES, Reference, References
from orchestrator.spec.sections import Teacher
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import pictures, rate_point_of
from orchestrator.trials.weights import read_weights

Crops = Sequence[tuple[Photograph, Crop]]


@ray.remote(num_cpus=1)
def _codecs(crops: Crops) -> list[Reference]:
    return codec_references(pictures(crops))


@ray.remote(num_cpus=1)
def _teacher(name: str, weights: bytes, made_by: str, crops: Crops, lambdas: Sequence[float]) -> Reference:
    import torch

    from models.bitstream import prepare_for_coding
    from models.weights import ladder_from
    from orchestrator.evaluation.rate_distortion import coded, curve

    torch.set_num_threads(1)
    ladder = ladder_from(weights)
    rate_points = [rate_point_of(ladder, lmbda) for lmbda in lambdas]
    rows = list(coded(prepare_for_coding(ladder), pictures(crops), rate_points))
    return Reference(name=name, kind="teacher", made_by=made_by, points=tuple(curve(rows)), validation=tuple(rows))


@ray.remote(num_cpus=1)
def _scenes(crops: Crops, wanted: Mapping[str, tuple[str, float]], weights: Mapping[str, bytes]) -> list[Scene]:
    import torch

    torch.set_num_threads(1)
    return scenes(pictures(crops), wanted, weights)


@dataclass
class Illustrations:
    """References are measured beside the coding of the front; pictures need the front."""

    spec: Spec
    crops: Crops
    run: Store
    anchor: Anchor
    _tasks: list[Any] = field(default_factory=list)

    def begin(self) -> None:
        """Start what does not need the front, unless coded/references.json has it. Ray must run."""
        try:
            others = {teacher: digest(teacher.weights) for teacher in self._others()}
            before = read_file(self.run, REFERENCES, References)
            made = {*others.values(), *(codec.described for codec in CODECS.values())}
            if before is not None and before.crops == self._boxes and made == {one.made_by for one in before.curves}:
                return
            for teacher, made_by in others.items():
                content = Path(teacher.weights).read_bytes()
                lambdas = self.spec.rate_ladder.lambdas
                self._tasks.append(_teacher.remote(teacher.name, content, made_by, self.crops, lambdas))
            self._tasks.append(_codecs.remote(self.crops))
        except Exception as error:
            _without("other teachers and classical codecs", error)

    def finish(self, front: Sequence[CodedStudent]) -> None:
        """Write coded/references.json and pictures.json, where they are not there for this front."""
        if self._tasks:
            try:
                answers = [answer_of(task) for task in self._tasks]
                *teachers, codecs = answers
                curves = (*teachers, *codecs)
                write_file(self.run, REFERENCES, References(crops=self._boxes, curves=curves))
            except Exception as error:
                _without("other teachers and classical codecs", error)
        try:
            self._pictures(front)
        except Exception as error:
            _without("photographs at equal rate", error)

    def _pictures(self, front: Sequence[CodedStudent]) -> None:
        shown = spread(sorted(front, key=lambda student: student.macs_per_pixel), STUDENTS_SHOWN)
        digests = {self.anchor.teacher: self.anchor.weights}
        digests |= {student.trial_id: student.weights_digest for student in shown}
        before, coded = read_file(self.run, PICTURES, Pictures), read_file(self.run, CODED_ANCHOR, CodedCurve)
        if coded is None or (before is not None and before.weights == digests):
            return
        wanted = chosen(coded.validation, len(self.anchor.lambdas) // 2)
        path = next(teacher.weights for teacher in self.spec.teachers if teacher.name == self.anchor.teacher)
        weights = {self.anchor.teacher: Path(path).read_bytes()}
        weights |= {student.trial_id: read_weights(self.run, student) for student in shown}
        made = answer_of(_scenes.remote(self.crops, wanted, weights))
        write_file(self.run, PICTURES, Pictures(weights=digests, scenes=tuple(made)))

    def _others(self) -> list[Teacher]:
        return [teacher for teacher in self.spec.teachers if teacher.name != self.anchor.teacher]

    @property
    def _boxes(self) -> tuple[tuple[str, int, int, int, int], ...]:
        return tuple((photograph.digest, crop.left, crop.top, crop.side, crop.size) for photograph, crop in self.crops)


def _without(what: str, error: Exception) -> None:
    """Whatever went wrong: the report is the poorer for it, the sweep is not."""
    warn(f"report: without {what}: {' '.join(str(error).split()) or type(error).__name__}")
