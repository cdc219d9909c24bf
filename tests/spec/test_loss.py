"""Schedules: presets as they are documented, weights that replace a preset's, phases in their order."""

import pytest
from pydantic import ValidationError

from orchestrator.distill.targets import entropy_tap, pairs, taps
from orchestrator.spec.loss import PRESETS, Loss, LossWeights, Phase, Preset, TeacherRatePoints, phase_at
from orchestrator.spec.sections import Student


def test_what_each_preset_reads_of_a_teacher() -> None:
    attention = {f"{path}:{kind}" for path in ("g_a.3", "g_a.5", "g_s.1") for kind in ("spatial", "channel")}
    expected = {
        "none": set(),
        "prim-l1": {"y", "x_hat"},
        "prim-l2": {"y", "x_hat", "z"},
        "prim-hybrid": {"y@4", "x_hat@4", "z@0"},
        "feds": {"y", "entropy", *attention},
        "feds-no-entropy": {"y", *attention},
        "feds-no-alignment": {"y", "entropy"},
        "feds-single-phase": {"y", "entropy", *attention},
        **{name: {"y", "y_hat", "x_hat"} for name in ("inherit", "inherit-slice", "inherit-frozen", "inherit-apart")},
        "inherit-plain": set(),
        "prim-l1-inherit": {"y", "x_hat"},
        "feds-inherit": {"y", "entropy", *attention},
    }
    read = {
        name: set(taps([(Loss(preset=name), "hyperprior")], teacher="mean-scale", rate_points=5)) for name in PRESETS
    }
    assert read == expected


def test_presets_that_inherit_begin_with_weights_of_their_teacher() -> None:
    student = Student(family="hyperprior", N=8, M=96)
    starts = {name: Loss(preset=name).init_of(student) for name in PRESETS}
    refitted = {"inherit", "inherit-plain", "inherit-frozen", "inherit-apart", "prim-l1-inherit", "feds-inherit"}
    assert {name for name, start in starts.items() if start == "teacher-refit"} == refitted
    assert {name for name, start in starts.items() if start == "teacher-slice"} == {"inherit-slice"}
    assert Loss(preset="inherit", start="random").init_of(student) == "random"
    same: list[tuple[Preset, Preset]] = [
        ("prim-l1-inherit", "prim-l1"),
        ("feds-inherit", "feds"),
        ("inherit-plain", "none"),
    ]
    for of, by in same:
        assert Loss(preset=of).schedule == Loss(preset=by).schedule
    apart, joint = Loss(preset="inherit-frozen").schedule
    assert apart.apart and not joint.apart
    assert apart.frozen == joint.frozen == {"h_a", "h_s", "entropy"}
    assert [phase.frozen for phase in Loss(preset="inherit").schedule] == [{"h_a", "h_s", "entropy"}, set()]


def test_a_phase_apart_has_only_terms_of_y_and_x_hat() -> None:
    wrong = Loss(phases=(Phase(apart=True, weights=LossWeights(spatial_attention=0.1)),))
    (line,) = wrong.problems()
    assert line.startswith("phases.0.weights.spatial_attention: 0.1 is not allowed: 0 in a phase apart")
    decoder = Loss(phases=(Phase(apart=True, freeze=("g_a",)),))
    assert list(decoder.problems()) == [] and not decoder.is_control


def test_feds_aligns_then_weighs_channels_then_trains_on_rate_and_distortion_alone() -> None:
    terms = [set(phase.weights.of_teacher) for phase in Loss(preset="feds").schedule]
    assert terms == [{"spatial_attention", "channel_attention"}, {"channel_entropy"}, set()]
    assert [set(phase.weights.of_teacher) for phase in Loss(preset="feds-no-alignment").schedule] == [
        set(),
        {"channel_entropy"},
        set(),
    ]
    assert [set(phase.weights.of_teacher) for phase in Loss(preset="feds-no-entropy").schedule] == [
        terms[0],
        {"latent"},
        set(),
    ]
    assert [set(phase.weights.of_teacher) for phase in Loss(preset="feds-single-phase").schedule] == [
        terms[0] | terms[1]
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_covers_the_whole_trial(preset) -> None:
    assert sum(phase.share for phase in PRESETS[preset].phases) == pytest.approx(1)


def test_the_phase_of_a_step_is_that_in_which_it_begins() -> None:
    schedule = [Phase(share=share, learning_rate=rate) for share, rate in ((0.3, 1.0), (0.4, 2.0), (0.3, 3.0))]
    shares = (0.0, 0.299, 0.3, 0.699, 0.7, 0.999, 1.0)
    assert [schedule.index(phase_at(schedule, share)) for share in shares] == [0, 0, 1, 1, 2, 2, 2]
    # ten steps of a tenth each, whose sums are not exact
    assert [schedule.index(phase_at(schedule, step * 8 / 80)) for step in range(10)] == [0] * 3 + [1] * 4 + [2] * 3


def test_a_weight_replaces_the_presets_wherever_it_has_the_term() -> None:
    phases = Loss(preset="feds", channel_entropy=0.5, rate_distortion=2.0).schedule
    assert [phase.weights.channel_entropy for phase in phases] == [0.0, 0.5, 0.0]
    assert [phase.weights.rate_distortion for phase in phases] == [2.0] * 3


def test_weights_alone_are_one_phase() -> None:
    (phase,) = Loss(latent=0.1).schedule
    assert phase.share == 1 and phase.weights == LossWeights(latent=0.1)
    assert Loss(rate_distortion=2.0).is_control and not Loss(latent=0.1).is_control


def test_two_right_fields_that_are_wrong_together() -> None:
    halves = (Phase(share=0.5), Phase(share=0.4))
    assert list(Loss(phases=halves).problems()) == ["phases: [0.5, 0.4] is not allowed: shares that sum to 1"]
    assert "beside phases" in next(Loss(preset="feds", phases=(Phase(),)).problems())
    (line,) = Loss(preset="prim-l1", hyper_latent=0.1).problems()
    assert line.startswith("hyper_latent: 0.1 is not allowed: a weight that prim-l1 has: latent, rate_distortion")
    weightless = (Phase(weights=LossWeights(rate_distortion=0, latent=1)),)
    assert "above 0 in at least one phase" in next(Loss(phases=weightless).problems())
    assert [list(Loss(preset=name).problems()) for name in PRESETS] == [[]] * len(PRESETS)


def test_the_teachers_rate_point_of_a_term_at_stages() -> None:
    """Each term at its own rate point, at every stage, as the pairs have it and as the stored taps do."""
    chosen = TeacherRatePoints(spatial_attention=3, channel_attention="same")
    loss = Loss(spatial_attention=1, channel_attention=1, teacher_rate_point=chosen)
    read: dict[str, list[str]] = {}
    for pair in pairs(loss, student="hyperprior", teacher="hyperprior", rate_points=5):
        read.setdefault(pair.term, []).append(pair.teacher)
        assert "@" not in pair.student
    assert read["spatial_attention"] == ["g_a.3:spatial@3", "g_a.5:spatial@3", "g_s.1:spatial@3"]
    assert read["channel_attention"] == ["g_a.3:channel", "g_a.5:channel", "g_s.1:channel"]
    stored = taps([(loss, "hyperprior")], teacher="hyperprior", rate_points=5)
    assert set(stored) == {tap for term in read.values() for tap in term}


def test_the_teachers_rate_point_of_a_term() -> None:
    loss = Loss(latent=1, hyper_latent=1, teacher_rate_point=TeacherRatePoints(latent=3))
    taps_read = {
        pair.term: pair.teacher for pair in pairs(loss, student="hyperprior", teacher="hyperprior", rate_points=5)
    }
    assert taps_read == {"latent": "y@3", "hyper_latent": "z"}
    loss = Loss(channel_entropy=1, teacher_rate_point=TeacherRatePoints(channel_entropy=2))
    assert entropy_tap(loss, 5) == "entropy@2"
    assert entropy_tap(Loss(latent=1), 5) is None and entropy_tap(Loss(latent=1, widths="top-entropy"), 5) == "entropy"
    for wrong in (-1, True, 1.5, "highest"):
        with pytest.raises(ValidationError, match="same or an index"):
            Loss.model_validate({"latent": 1, "teacher_rate_point": {"latent": wrong}})
