"""One trial of a sweep, as values."""

from __future__ import annotations

from pydantic import Field

from orchestrator.spec.loss import Loss
from orchestrator.spec.section import Section
from orchestrator.spec.sections import Inherited, Student


class Trial(Section):
    """One trial: a student, the teacher it learns from (None: the control) and the weights of its loss."""

    trial_id: str  # such as 03-hyperprior-n16-control
    student: Student
    teacher: str | None
    # the teacher that the first weights are made of, if they are: of a distilled trial its own; of a control that of
    # the distilled trials that it is compared with
    start_of: str | None = None
    loss: Loss
    seed: int
    # of a shelf: the trials whose encoder and decoder it begins with; null: it is no pair
    pair: tuple[str, str] | None = None
    # what a search drew, by the names of its parameters, see sweep/search.py; {}: nothing was drawn
    choices: dict[str, int | float | str] = Field(default_factory=dict)

    @property
    def init(self) -> str:
        """Where its first weights come from: one of `STARTS`, or a weights file."""
        return self.loss.init_of(self.student)

    @property
    def inherits(self) -> tuple[Inherited, ...]:
        """Parts that are the teacher's own at first.

        A network whose start is random by the loss's word has none, but of a half of a shelf only that half is random.
        """
        return () if self.loss.start == "random" and self.student.half is None else self.student.inherit

    @property
    def complexity_class(self) -> str:
        """Of its student."""
        return self.student.complexity_class
