"""Which pairs of halves are scored and which are trained on."""

from __future__ import annotations

from typing import Any

import pytest

from models.catalogue import SHIPPED
from orchestrator.evaluation.costs import Complexity
from orchestrator.results.shelf import Pair
from orchestrator.spec.loss_space import LossSpace
from orchestrator.spec.messages import SpecError
from orchestrator.spec.networks import with_halves, with_inherited
from orchestrator.spec.sections import (
    Axis,
    EarlyStopping,
    HalfNetwork,
    Photographs,
    RateLadderSection,
    SearchSection,
    Shelf,
    Student,
    Teacher,
)
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.pairs import (
    best_halves,
    pair_students,
    pair_trials,
    pairs_of,
    worth_joining,
    worth_scoring,
)
from orchestrator.sweep.choose.space import trials
from orchestrator.trials.record import TrialRecord
from testing.records import record, rung

AXES: tuple[Axis, ...] = ("macs_per_pixel",)


def spec(**fields: Any) -> Spec:
    given: dict[str, Any] = {
        "name": "shelf",
        "trials": 4,
        "photographs": Photographs(train="a", validation="b"),
        "teachers": (Teacher(name="t", weights=str(SHIPPED / "teacher-hyperprior.safetensors")),),
        "encoders": (HalfNetwork(family="hyperprior", N=32), HalfNetwork(family="hyperprior", N=8)),
        "decoders": (HalfNetwork(family="hyperprior", N=16), HalfNetwork(family="hyperprior", N=32)),
        "losses": (LossSpace(preset="inherit-apart"),),
    }
    return Spec(**given | fields)


def written_out(**fields: Any) -> Spec:
    return with_inherited(with_halves(spec(**fields)))


def test_halves_are_students_between_their_teachers_other_parts() -> None:
    listed = trials(written_out())
    assert [trial.trial_id for trial in listed] == [
        "01-encoder-n8-t-inherit-apart",
        "02-decoder-n16-t-inherit-apart",
        "03-encoder-n32-t-inherit-apart",
        "04-decoder-n32-t-inherit-apart",
    ]
    encoder, decoder = listed[0].student, listed[1].student
    assert (encoder.N, encoder.encoder_N, encoder.M, encoder.Z) == (64, 8, 96, 64)
    assert (decoder.N, decoder.encoder_N, decoder.M, decoder.Z) == (16, 64, 96, 64)
    assert encoder.frozen == {"g_s", "h_a", "h_s", "entropy"} and decoder.frozen == {"g_a", "h_a", "h_s", "entropy"}
    assert [trial.inherits for trial in listed[:2]] == [("entropy", "g_s"), ("entropy", "g_a")]
    assert all(trial.teacher == trial.start_of == "t" and trial.init == "teacher-refit" for trial in listed)
    assert list(written_out(trials=4).problems()) == []


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"encoders": (HalfNetwork(family="mean-scale", N=8),)},
            "encoders.0.family: 'mean-scale' is not allowed: hyperprior, the teacher's",
        ),
        (
            {"decoders": (HalfNetwork(family="hyperprior", N=64),)},
            "decoders.0.N: 64 is not allowed: less than 64, the teacher's own, which is on the shelf by itself",
        ),
        (
            {"teachers": tuple(Teacher(name=name, weights="a.safetensors") for name in "ab")},
            "teachers: ['a', 'b'] is not allowed: one, whose latent space encoders and decoders share",
        ),
        (
            {"rate_ladder": RateLadderSection(kind="fixed-lambda")},
            "rate_ladder.kind: 'fixed-lambda' is not allowed: variable-rate, the teacher's",
        ),
        (
            {"students": (Student(family="hyperprior", N=64, encoder_N=8, M=96, half="encoder"),)},
            "students.0.inherit: [] is not allowed: entropy and g_s, all that is not the encoder",
        ),
    ],
)
def test_what_is_no_half_of_the_teacher_is_one_line(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as raised:
        with_halves(spec(**fields))
    assert raised.value.problems == (line,)


def test_a_random_half_still_has_its_teachers_other_parts() -> None:
    half = trials(written_out(losses=(LossSpace(preset="inherit-apart", start="random"),)))[0]
    assert half.init == "random" and half.inherits == ("entropy", "g_s") and half.start_of == "t"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"losses": (LossSpace(preset="inherit-plain"),)},
            "losses: [{preset: 'inherit-plain'}] is not allowed: one that reads a teacher's outputs, "
            "which encoders and decoders learn from",
        ),
        ({"trials": 5}, "trials: 5 is not allowed: at most 4: 4 networks x 1 teacher x 1 loss"),
        (
            {"early_stopping": EarlyStopping(rule="pause"), "search": SearchSection(method="tpe")},
            "early_stopping.rule: 'pause' is not allowed: another rule with search.method tpe, which learns from "
            "trials that have ended",
        ),
        ({"encoders": (), "decoders": ()}, "students: [] is not allowed: at least one student, encoder or decoder"),
    ],
)
def test_what_no_shelf_can_be_made_of_is_one_line(fields: dict[str, Any], line: str) -> None:
    assert [problem for problem in spec(**fields).problems() if problem == line] == [line]


def test_the_networks_of_all_pairs() -> None:
    students = pair_students(written_out())
    assert [(student.encoder_N, student.N, student.half) for student in students] == [
        (32, 16, None),
        (32, 32, None),
        (8, 16, None),
        (8, 32, None),
    ]
    assert all(student.inherit == ("entropy",) and student.frozen == frozenset() for student in students)


def half(name: str, student: Student, rate: float | None, **fields: Any) -> TrialRecord:
    reached = [rung(100, rate, log_lagrangian_ratio=0.1)]
    return record(name, reached, student=student, teacher="t", status="finished", **fields)


def records() -> list[TrialRecord]:
    """Encoders cost 5 and 30 points, decoders 40 and 12; a second trial of the small encoder is worse, one has no
    BD-rate."""
    by_name = {trial.trial_id: trial.student for trial in trials(written_out())}
    rates = (30.0, 40.0, 5.0, 12.0)
    found = [half(name, student, rate) for (name, student), rate in zip(by_name.items(), rates, strict=True)]
    first = next(iter(by_name.values()))
    return [*found, half("05-worse", first, 31.0), half("06-without", first, None)]


def complexity() -> dict[str, Complexity]:
    found = {}
    for student in (*written_out().students, *pair_students(written_out())):
        encoder, decoder = 10.0 * (student.encoder_N or 0), 20.0 * student.N
        found[student.complexity_class] = Complexity(
            params=1, macs_per_pixel=encoder + decoder, encoder_macs_per_pixel=encoder, decoder_macs_per_pixel=decoder
        )
    return found


def pairs() -> list[Pair]:
    return pairs_of(best_halves(records(), "encoder"), best_halves(records(), "decoder"), complexity())


def test_a_pair_is_predicted_by_the_sum_of_its_halves() -> None:
    assert [record.trial_id[:2] for record in best_halves(records(), "encoder")] == ["01", "03"]
    found = {(pair.encoder_N, pair.decoder_N): pair for pair in pairs()}
    predicted = {key: pair.predicted_pct for key, pair in found.items()}
    assert predicted == {
        (8, 64): 30.0,
        (32, 64): 5.0,
        (64, 16): 40.0,
        (64, 32): 12.0,
        (8, 16): 70.0,
        (8, 32): 42.0,
        (32, 16): 45.0,
        (32, 32): 17.0,
    }
    assert {key for key, pair in found.items() if pair.bd_rate_pct is not None} == {
        (8, 64),
        (32, 64),
        (64, 16),
        (64, 32),
    }
    assert found[8, 16].macs_per_pixel == 80 + 320 and found[8, 16].decoder_macs_per_pixel == 320


def test_a_half_without_a_bd_rate_is_paired_by_its_cost() -> None:
    encoder, decoder = (trial.student for trial in trials(written_out())[:2])
    one = half("07-one", decoder, None)
    other = half("08-other", decoder, None).changed(rungs=(rung(100, None, log_lagrangian_ratio=0.05),))
    assert best_halves([one, other], "decoder") == [other]
    assert best_halves([one, other, half("09-valid", decoder, 90.0)], "decoder")[0].trial_id == "09-valid"
    small = pairs_of([half("01-a", encoder, 30.0)], [other], complexity())
    assert [(pair.encoder_N, pair.decoder_N, pair.predicted_pct) for pair in small] == [
        (8, 64, 30.0),
        (64, 16, None),
        (8, 16, None),
    ]
    scored = [pair.model_copy(update={"log_lagrangian_ratio": 1.0}) for pair in small]
    assert worth_joining(scored, Shelf(), AXES) == [scored[2]]


def test_pairs_that_are_surely_dominated_need_no_score() -> None:
    """The small encoder alone costs 30 points, so its pairs cost 24 at least; 32 with 32 costs 18 at most."""
    everything = worth_scoring(pairs(), Shelf(), AXES)
    assert [(pair.encoder_N, pair.decoder_N) for pair in everything] == [(8, 16), (8, 32), (32, 16), (32, 32)]
    assert worth_scoring(pairs(), Shelf(scored="predicted"), AXES) == everything  # the better ones cost more
    cheap = [
        pair.model_copy(update={"macs_per_pixel": 1.0}) if (pair.encoder_N, pair.decoder_N) == (32, 32) else pair
        for pair in pairs()
    ]
    fewer = worth_scoring(cheap, Shelf(scored="predicted"), AXES)
    assert [(pair.encoder_N, pair.decoder_N) for pair in fewer] == [(32, 32)]


def scored() -> list[Pair]:
    rates = {pair.halves: pair.predicted_pct or 0.0 for pair in pairs()}
    return [
        pair.model_copy(update={"bd_rate_pct": rates[pair.halves], "log_lagrangian_ratio": rates[pair.halves] / 100})
        for pair in pairs()
    ]


def test_pairs_on_the_front_are_trained_on_and_the_teachers_halves_are_not() -> None:
    chosen = worth_joining(scored(), Shelf(), AXES)
    # by MACs: 8+16 (400, 70), 32+16 (640, 45), 8+32 (720, 42), 64+16 (960, 40), 32+32 (960, 17), ...
    assert [(pair.encoder_N, pair.decoder_N) for pair in chosen] == [(8, 16), (32, 16), (8, 32), (32, 32)]
    assert [pair.decoder_N for pair in worth_joining(scored(), Shelf(joined=2), AXES)] == [16, 32]
    # by the decoder alone the teacher's encoder is best
    assert worth_joining(scored(), Shelf(), ("decoder_macs_per_pixel",)) == []


@pytest.mark.parametrize("interchangeable", [True, False])
def test_trials_of_pairs_follow_the_others(interchangeable: bool) -> None:
    whole = written_out(shelf=Shelf(interchangeable=interchangeable, learning_rate=0.3))
    encoder, decoder = best_halves(records(), "encoder")[1], best_halves(records(), "decoder")[0]
    (trial,) = pair_trials(whole, [(encoder, decoder)])
    assert trial.trial_id == "05-pair-e32-d16" and trial.pair == (encoder.trial_id, decoder.trial_id)
    (phase,) = trial.loss.schedule
    assert phase.frozen == ({"h_a", "h_s", "entropy"} if interchangeable else frozenset())
    assert phase.learning_rate == 0.3 and not phase.apart and trial.student.frozen == frozenset()
