"""Pairs of an encoder and a decoder: which are worth scoring, and which are trained on as whole networks (pure).

A pair costs at most the sum of its halves: BD(encoder i, decoder j) is near BD(i, the teacher's decoder) + BD(the
teacher's encoder, j) where both are small, and below it where they are not. So the curves of E encoders and D decoders
bound those of E x D pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter

from orchestrator.evaluation.costs import Complexity
from orchestrator.evaluation.front import cost_axes, pareto_front, spread
from orchestrator.results.shelf import Pair
from orchestrator.spec.loss import Loss, Phase
from orchestrator.spec.sections import Axis, Half, Part, Shelf, Student
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.trials.record import TrialRecord

# Bounds of a pair's BD-rate, which held for all of benchmarks/results/shelf.json: above, the sum of its halves' and so
# many points; below, a share of the worse half's.
ABOVE_POINTS, BELOW_SHARE = 1.0, 0.8
COST = "log_lagrangian_ratio"


def halves_of(spec: Spec, half: Half) -> list[Student]:
    """The encoders or decoders of a specification whose halves are written out as students."""
    return [student for student in spec.students if student.half == half]


def pair_student(encoder: Student, decoder: Student) -> Student:
    """The network of a pair of halves."""
    return decoder.model_copy(update={"encoder_N": encoder.encoder_N, "inherit": ("entropy",), "half": None})


def pair_students(spec: Spec) -> list[Student]:
    """The networks of all pairs of a specification's halves."""
    decoders = halves_of(spec, "decoder")
    return [pair_student(encoder, decoder) for encoder in halves_of(spec, "encoder") for decoder in decoders]


def best_halves(records: Iterable[TrialRecord], half: Half) -> list[TrialRecord]:
    """Of each encoder or decoder the trial with the best BD-rate at its last rung, the smallest first.

    Where no trial of one has a BD-rate, as is so of small halves after a short training: the one with the lowest cost.
    """
    ended = [record for record in records if record.student.half == half and record.ended]
    best = {record.student: record for record in sorted(ended, key=_rank, reverse=True)}
    return sorted(best.values(), key=lambda record: record.student.width)


def _rank(record: TrialRecord) -> tuple[bool, float, str]:
    last = record.rungs[-1]
    has_none = last.bd_rate_pct is None
    return has_none, last.log_lagrangian_ratio if last.bd_rate_pct is None else last.bd_rate_pct, record.trial_id


def pairs_of(
    encoders: Sequence[TrialRecord], decoders: Sequence[TrialRecord], complexity: Mapping[str, Complexity]
) -> list[Pair]:
    """Every encoder, and the teacher's, with every decoder, and the teacher's. Those with a teacher's half are scored,
    since halves are validated in them; of the others there is a prediction.

    Args:
        encoders, decoders: from `best_halves`.
        complexity: by class, of the halves and of all pairs.
    """
    pairs = [_with_teacher(half, complexity) for half in (*encoders, *decoders)]
    for encoder in encoders:
        for decoder in decoders:
            student = pair_student(encoder.student, decoder.student)
            rates = [half.rungs[-1].bd_rate_pct for half in (encoder, decoder)]
            known = [rate for rate in rates if rate is not None]
            pairs.append(
                Pair(
                    encoder=encoder.trial_id,
                    decoder=decoder.trial_id,
                    encoder_N=encoder.student.width,
                    decoder_N=decoder.student.width,
                    **asdict(complexity[student.complexity_class]),
                    predicted_pct=sum(known) if len(known) == 2 else None,
                    bd_rate_pct=None,
                    log_lagrangian_ratio=None,
                )
            )
    return pairs


def _with_teacher(half: TrialRecord, complexity: Mapping[str, Complexity]) -> Pair:
    student, last, is_encoder = half.student, half.rungs[-1], half.student.half == "encoder"
    return Pair(
        encoder=half.trial_id if is_encoder else None,
        decoder=None if is_encoder else half.trial_id,
        encoder_N=student.encoder_N or student.N,
        decoder_N=student.N,
        **asdict(complexity[student.complexity_class]),
        predicted_pct=last.bd_rate_pct,
        bd_rate_pct=last.bd_rate_pct,
        log_lagrangian_ratio=last.log_lagrangian_ratio,
        points=last.points,
    )


def worth_scoring(pairs: Sequence[Pair], shelf: Shelf, axes: Sequence[Axis]) -> list[Pair]:
    """The pairs to be scored: all, or those that no other one is certain to dominate.

    Args:
        pairs: from `pairs_of`.
        shelf: says which.
        axes: of the front, beside BD-rate.
    """
    unscored = [pair for pair in pairs if pair.of_trained_halves]
    if shelf.scored == "all":
        return unscored
    rate_of = {half: pair.bd_rate_pct for pair in pairs for half in pair.halves if pair not in unscored and half}
    return [
        pair
        for pair in unscored
        if not any(
            other is not pair
            and all(getattr(other, axis) <= getattr(pair, axis) for axis in axes)
            and _at_most(other) < _at_least(pair, rate_of)
            for other in pairs
        )
    ]


def _at_most(pair: Pair) -> float:
    if pair.bd_rate_pct is not None:
        return pair.bd_rate_pct
    return math.inf if pair.predicted_pct is None else pair.predicted_pct + ABOVE_POINTS


def _at_least(pair: Pair, rate_of: Mapping[str, float | None]) -> float:
    worse = max(rate_of.get(str(half)) or 0.0 for half in pair.halves)
    return BELOW_SHARE * worse


def worth_joining(pairs: Sequence[Pair], shelf: Shelf, axes: Sequence[Axis]) -> list[Pair]:
    """The pairs that are trained on: those on the front of cost J and `axes`, evenly spread over it if there are too
    many. All scored pairs have a cost J; a BD-rate small ones have only when they have been trained on.

    A pair with a teacher's half may be on the front, but is not trained on.

    Args:
        pairs: scored, as far as they were worth it.
        shelf: says how many.
        axes: of the front.
    """
    scored = [pair for pair in pairs if pair.log_lagrangian_ratio is not None]
    front = pareto_front(scored, {COST: attrgetter(COST), **cost_axes(axes)})
    whole = [pair for pair in front if pair.of_trained_halves]
    return spread(whole, shelf.joined)


def joined_images(spec: Spec) -> int:
    """How many images a pair is trained on: a whole number of batches."""
    batch = spec.training.batch_size
    return max(1, round(spec.shelf.share * spec.early_stopping.rungs[-1] / batch)) * batch


def pair_trials(spec: Spec, chosen: Sequence[tuple[TrialRecord, TrialRecord]]) -> tuple[Trial, ...]:
    """The trials that train pairs on; their numbers follow the sweep's.

    Args:
        spec: of the sweep.
        chosen: encoder and decoder of each.
    """
    (teacher,) = spec.teachers
    frozen: tuple[Part, ...] = ("h_a", "h_s", "entropy") if spec.shelf.interchangeable else ()
    loss = Loss(phases=(Phase(freeze=frozen, learning_rate=spec.shelf.learning_rate),))
    digits = max(2, len(str(spec.trials)))
    return tuple(
        Trial(
            trial_id=f"{number:0{digits}d}-pair-e{encoder.student.width}-d{decoder.student.width}",
            student=pair_student(encoder.student, decoder.student),
            teacher=teacher.name,
            start_of=teacher.name,
            loss=loss,
            seed=spec.seed,
            pair=(encoder.trial_id, decoder.trial_id),
        )
        for number, (encoder, decoder) in enumerate(chosen, start=spec.trials + 1)
    )
