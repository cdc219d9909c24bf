"""What each loss term compares: a tap of the student with a tap of its teacher (pure, and without torch)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from models.families import FAMILIES
from orchestrator.spec.loss import Loss

LATENTS = {"latent": "y", "latent_kl": "y", "channel_entropy": "y", "hyper_latent": "z", "reconstruction": "x_hat"}
ATTENTION = {"spatial_attention": "spatial", "channel_attention": "channel"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One comparison of a term.

    Attributes:
        term: of `LossWeights`.
        student: what `Learner.forward` returns it as.
        teacher: the same of the teacher, with `@k` behind it if it is of the teacher's rate point k rather than of the
            student's.
    """

    term: str
    student: str
    teacher: str


def pairs(loss: Loss, *, student: str, teacher: str, rate_points: int) -> tuple[Pair, ...]:
    """All comparisons of a loss between two families, in any of its phases."""
    found = []
    for term in sorted(loss.terms):
        at = loss.rate_point(term, rate_points)
        suffix = "" if at is None else f"@{at}"
        if term in LATENTS:
            found.append(Pair(term=term, student=LATENTS[term], teacher=LATENTS[term] + suffix))
            continue
        for stage in loss.stages:
            own, other = (f"{FAMILIES[family].stages[stage]}:{ATTENTION[term]}" for family in (student, teacher))
            found.append(Pair(term=term, student=own, teacher=other + suffix))
    return tuple(found)


def entropy_tap(loss: Loss, rate_points: int) -> str | None:
    """The teacher's bits a channel of y, if the loss weighs or chooses channels by them."""
    if "channel_entropy" in loss.terms:
        at = loss.rate_point("channel_entropy", rate_points)
    elif loss.widths == "top-entropy" and loss.terms & {"latent", "latent_kl"}:
        at = loss.rate_point("latent", rate_points)
    else:
        return None
    return "entropy" if at is None else f"entropy@{at}"


def taps(losses: Iterable[tuple[Loss, str]], *, teacher: str, rate_points: int) -> tuple[str, ...]:
    """What losses, each with the family of its student, read of a teacher; nothing else is stored."""
    found: set[str] = set()
    for loss, student in losses:
        compared = pairs(loss, student=student, teacher=teacher, rate_points=rate_points)
        entropy = entropy_tap(loss, rate_points)
        found |= {pair.teacher for pair in compared} | ({entropy} if entropy else set())
    first = ("y", "z", "x_hat")
    return tuple(sorted(found, key=lambda tap: (first.index(tap) if tap in first else len(first), tap)))
