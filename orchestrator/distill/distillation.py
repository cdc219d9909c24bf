"""What a trial compares between its student and its teacher, and with which gains, widths and channel weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from models.ladder import RateLadder, ladder_gains
from models.weights import WeightsDescription
from orchestrator.distill.targets import Pair, pairs
from orchestrator.spec.loss import Loss, Phase
from orchestrator.spec.sections import Part
from orchestrator.spec.terms import TERMS

TRANSFORMS: frozenset[Part] = frozenset(("g_a", "g_s"))
MADE_BY: Mapping[str, Part] = {"y": "g_a", "x_hat": "g_s"}  # what there is in a phase of modules apart


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What is compared with a teacher's outputs, and when.

    Attributes:
        loss: its phases.
        pairs: what its terms compare.
        images: how many the whole trial trains on; the phases' shares are of these.
        gains: of the teacher, one for each rate point.
        widths: tap of the student -> its channels there and the teacher's, of the taps that terms compare.
        latent_channels: of the student, its M.
        frozen: parts that are trained in no phase.
        bits: of each channel of the teacher's y at each rate point of the student, [rate points][M]; None unless the
            loss weighs or chooses channels by them.
    """

    loss: Loss
    pairs: tuple[Pair, ...] = ()
    images: int = 1
    gains: tuple[float, ...] = ()
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    latent_channels: int = 0
    frozen: frozenset[Part] = frozenset()
    bits: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def of(
        cls,
        loss: Loss,
        student: RateLadder,
        teacher: WeightsDescription,
        images: int,
        bits: tuple[tuple[float, ...], ...] | None = None,
        frozen: frozenset[Part] = frozenset(),
    ) -> Distillation:
        """Of a student and its teacher.

        Args:
            student: the ladder that is trained.
            teacher: what its weights file says of it.
            loss, images, bits, frozen: see the attributes.
        """
        rate_points = len(student.lambdas)
        compared = pairs(loss, student=student.family, teacher=teacher.family, rate_points=rate_points)
        channels = {"y": (student.M, teacher.M), "z": (student.Z, teacher.Z)}
        encoders, decoders = (student.encoder_N, teacher.encoder_N), (student.N, teacher.N)
        return cls(
            loss=loss,
            pairs=compared,
            images=images,
            gains=ladder_gains(teacher.kind, student.lambdas),
            widths={
                pair.student: channels.get(pair.student, encoders if pair.student.startswith("g_a") else decoders)
                for pair in compared
                if TERMS[pair.term].has_channels
            },
            latent_channels=student.M,
            bits=bits,
            frozen=frozen,
        )

    def parts(self, phase: Phase) -> frozenset[Part] | None:
        """The transforms that run in a phase of modules apart: those that are trained. None: the whole codec runs."""
        return TRANSFORMS - phase.frozen - self.frozen if phase.apart else None

    def compared(self, phase: Phase) -> list[Pair]:
        """What a phase compares."""
        parts = self.parts(phase)
        pairs = [pair for pair in self.pairs if pair.term in phase.weights.of_teacher]
        return pairs if parts is None else [pair for pair in pairs if MADE_BY[pair.student] in parts]

    def read(self, phase: Phase) -> set[str]:
        """The teacher's taps that a phase reads."""
        parts = self.parts(phase)
        return {pair.teacher for pair in self.compared(phase)} | ({"y_hat"} if parts and "g_s" in parts else set())

    def gain(self, term: str, rate_point: int) -> float:
        """The gain of the teacher's rate point at which a term's target is computed.

        Args:
            term: one of `TERMS`.
            rate_point: the student's.
        """
        of_teacher = self.loss.rate_point(term, len(self.gains))
        return self.gains[rate_point if of_teacher is None else of_teacher]

    @cached_property
    def chosen(self) -> Tensor | None:
        """Indices of the teacher's channels of y that the student's stand for; None: all of them."""
        if self.bits is None or self.loss.widths != "top-entropy":
            return None
        return torch.tensor(self.bits).sum(dim=0).topk(self.latent_channels).indices.sort().values

    def channel_weights(self, rate_point: int) -> Tensor | None:
        """[M], the share of the teacher's bits of each channel that is compared; None if `bits` is."""
        if self.bits is None:
            return None
        bits = torch.tensor(self.bits[rate_point])
        bits = bits if self.chosen is None else bits[self.chosen]
        return bits / bits.sum()


NOTHING = Distillation(loss=Loss(preset="none"))
