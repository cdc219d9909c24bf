"""What each loss term compares: a tap of the student with a tap of its teacher. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from models.families import FAMILIES
from orchestrator.spec.loss import Loss
from orchestrator.spec.terms import TERMS


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One comparison of a term.

    Attributes:
        term: one of `TERMS`.
        student: its tap, as `Learner.forward` returns it.
        teacher: its tap, with `@k` behind it if it is of the teacher's rate point k rather than of the student's.

    Raises:
        ValueError: there is no such term.
    """

    term: str
    student: str
    teacher: str

    def __post_init__(self) -> None:
        if self.term not in TERMS:
            raise ValueError(f"{self.term!r} is not a loss term; these are: {', '.join(TERMS)}")


def pairs(loss: Loss, *, student: str, teacher: str, rate_points: int) -> tuple[Pair, ...]:
    """All comparisons that a loss makes, in any of its phases.

    Args:
        student, teacher: their families.
        rate_points: how many the teacher has.

    Raises:
        KeyError: no such family, for a loss with terms at stages.
    """
    compared = []
    for name in sorted(loss.terms):
        term, rate_point = TERMS[name], loss.rate_point(name, rate_points)
        suffix = "" if rate_point is None else f"@{rate_point}"
        if not term.at_stages:
            compared.append(Pair(term=name, student=term.reads, teacher=term.reads + suffix))
            continue
        for stage in loss.stages:
            student_tap = f"{FAMILIES[student].stages[stage]}:{term.reads}"
            teacher_tap = f"{FAMILIES[teacher].stages[stage]}:{term.reads}{suffix}"
            compared.append(Pair(term=name, student=student_tap, teacher=teacher_tap))
    return tuple(compared)


def entropy_tap(loss: Loss, rate_points: int) -> str | None:
    """The tap of the teacher's bits for each channel of y, if the loss weighs or chooses channels by them.

    It is of the rate point that the first term with channel weights reads, else the first that reads y.
    """
    present = [term for name, term in TERMS.items() if name in loss.terms]
    by_bits = [term for term in present if "channel_weights" in term.takes]
    if loss.widths == "top-entropy":
        by_bits += [term for term in present if term.reads == "y"]
        if loss.apart and not by_bits:
            return "entropy"
    if not by_bits:
        return None
    rate_point = loss.rate_point(by_bits[0].name, rate_points)
    return "entropy" if rate_point is None else f"entropy@{rate_point}"


def taps(losses: Iterable[tuple[Loss, str]], *, teacher: str, rate_points: int) -> tuple[str, ...]:
    """The taps that losses read of a teacher. Nothing else of it is stored.

    Args:
        losses: each with the family of its student.
        teacher: its family.
        rate_points: how many the teacher has.
    """
    read: set[str] = set()
    for loss, student in losses:
        compared = pairs(loss, student=student, teacher=teacher, rate_points=rate_points)
        entropy = entropy_tap(loss, rate_points)
        read |= {pair.teacher for pair in compared} | ({entropy} if entropy else set())
        read |= {"y_hat"} if loss.apart else set()
    first = ("y", "y_hat", "z", "x_hat")
    return tuple(sorted(read, key=lambda tap: (first.index(tap) if tap in first else len(first), tap)))
