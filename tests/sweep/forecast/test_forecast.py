from __future__ import annotations

import json
import random
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from orchestrator.results.format import FormatError, parse, serialised
from orchestrator.sweep.choose.rungs import Report, RungRule
from orchestrator.sweep.forecast.calibration import (
    AnchorSeconds,
    Calibration,
    CodingCost,
    CodingSeconds,
    FillSeconds,
    GangLayout,
    RegistrySeconds,
    StartSeconds,
    StudentCost,
    TrainingCost,
)
from orchestrator.sweep.forecast.forecast import Case, MissingFeatures, TrialGroup, Work, forecast, passes, reach
from orchestrator.sweep.forecast.text import advice, lack_of_space, lines, span

RUNGS = (100, 300, 900)


def student(macs: float, distilled: bool, scale: float = 1.0) -> StudentCost:
    training = TrainingCost(
        build_s=1.0,
        first_s=0.5,
        first_wait_s=0.1,
        image_s=0.01 * scale,
        wait_s=0.001 * scale,
        validation_s=2.0 * scale,
        saving_s=0.25,
        checkpoint_bytes=1e6 * scale,
        checkpoint_files=6,
        weights_bytes=1e5 * scale,
    )
    coding = CodingCost(code_s=0.1 * scale, stream_s=0.2 * scale)
    return StudentCost(family="hyperprior", macs_per_pixel=macs, distilled=distilled, training=training, coding=coding)


MEASURED = Calibration(
    cpus=2,
    gpus=0,
    start=StartSeconds(planning_s=1.0, ray_s=5.0, gang_s=10.0, refit_s=1.5),
    students=(student(1000, False), student(3000, False, 3.0), student(1000, True), student(3000, True, 5.0)),
    anchor=AnchorSeconds(first_crop_s=8.0, crop_s=1.0, points=11),
    fill_start_s=2.0,
    fills=(
        FillSeconds(title="pixels", crop_s=0.001, tap_bytes={"x": 1000}),
        FillSeconds(title="teacher a", crop_s=0.02, tap_bytes={"y": 300, "x_hat": 700}),
    ),
    coding=CodingSeconds(start_s=3.0, anchor=CodingCost(code_s=0.5, stream_s=0.5)),
    registry=RegistrySeconds(start_s=4.0, run_s=0.1, version_s=1.0),
    layouts=(GangLayout(ranks=1, gangs=2, seconds=0.010), GangLayout(ranks=2, gangs=1, seconds=0.013)),
)
PIXELS, TEACHER = (("pixels", "x"),), (("teacher a", "y"), ("teacher a", "x_hat"))
CONTROL = TrialGroup(
    complexity_class="n8",
    competitors="n8",
    spared=0,
    family="hyperprior",
    macs_per_pixel=1000,
    distilled=False,
    taps=PIXELS,
    count=1,
)
WORK = Work(
    groups=(CONTROL, replace(CONTROL, distilled=True, taps=PIXELS + TEACHER, count=5)),
    rungs=RUNGS,
    reduction=3,
    gangs=1,
    ranks=2,
    cpus=2,
    gpus=0,
    missing=(
        MissingFeatures(title="pixels", crops=100, shards=5),
        MissingFeatures(title="teacher a", crops=50, shards=3),
    ),
    opened_crops=(160, 200, 200),
    opened_shards=(8, 10, 10),
    caches=None,
    validation_crops=6,
    rate_points=5,
    candidates=4,
)

# Sizes between the measured ones, two gangs on GPUs, a bracket that stops none at its first rung, nodes with caches,
# and first weights to be made.
MIDDLE = replace(CONTROL, complexity_class="n16", macs_per_pixel=2000, distilled=True, taps=PIXELS + TEACHER, count=4)
MIXED = replace(
    WORK,
    groups=tuple(
        replace(group, competitors="all", spared=1)
        for group in (replace(CONTROL, count=2), MIDDLE, replace(CONTROL, complexity_class="n24", macs_per_pixel=3000))
    ),
    reduction=2,
    gangs=2,
    ranks=1,
    gpus=2,
    missing=(
        MissingFeatures(title="pixels", crops=0, shards=0),
        MissingFeatures(title="teacher a", crops=50, shards=3),
    ),
    caches=3,
    candidates=3,
    starts=5,
)


def test_expected_passes_are_what_the_rule_does_with_values_in_random_order() -> None:
    draw = random.Random(0)
    for count, reduction in ((3, 3), (8, 2), (12, 3)):
        went_on = []
        for _ in range(1500):
            rule = RungRule(rule="stratified", rungs=(10, 20), reduction=reduction)
            decisions = [
                rule.decide(
                    Report(
                        trial_id=str(number),
                        macs_per_pixel=1000.0,
                        complexity_class="n8",
                        images_seen=10,
                        bd_rate_pct=None,
                        bd_rate_reason="too-few-points",
                        log_lagrangian_ratio=draw.random(),
                    )
                )
                for number in range(count)
            ]
            went_on.append(sum(decision.action == "continue" for decision in decisions))
        assert passes(count, reduction) == pytest.approx(fmean(went_on), abs=0.1)
        assert min(went_on) == reach(count, 2, reduction, "least")[1] == 1
        assert max(went_on) <= reach(count, 2, reduction, "most")[1] == count


def test_between_whole_numbers_of_trials_passes_are_interpolated() -> None:
    assert passes(1, 3) == 1 and passes(2, 3) == 1.5
    assert passes(1.5, 3) == pytest.approx(1.25)
    assert reach(4, 3, 2, "expected") == [4, passes(4, 2), passes(passes(4, 2), 2)]
    assert reach(4, 3, 2, "expected", spared=1) == [4, 4, passes(4, 2)] and reach(4, 3, 2, "least", spared=2) == [4] * 3


def test_images_and_the_gangs_work_add_up() -> None:
    most = forecast(WORK, MEASURED, "most")
    assert most.images == 6 * 900
    assert most.gangs.training_s == pytest.approx(6 * 900 * 0.009 + 6 * 0.4)
    assert most.gangs.data_wait_s == pytest.approx(6 * 900 * 0.001 + 6 * 0.1)
    assert most.gangs.validation_s == 6 * 3 * 2.0
    assert most.gangs.startup_s == 10 + 6 * 1.0
    assert most.gangs.checkpoints_s == 6 * 3 * 0.25
    assert sum(most.gangs.model_dump().values()) == pytest.approx(most.phases_s["trials"])  # one gang
    assert most.wall_s == pytest.approx(sum(most.phases_s.values()))
    least = forecast(WORK, MEASURED, "least")
    assert least.images == pytest.approx(6 * 100 + 200 + 600)
    assert least.images < forecast(WORK, MEASURED).images < most.images
    assert least.wall_s < forecast(WORK, MEASURED).wall_s < most.wall_s


def test_every_figure_of_a_forecast() -> None:
    """By hand: all six trials train to the last rung, or one of them does and five end at the first one."""
    rest = {"planning": 1.0, "ray": 5.0, "anchor": 8 + 5 * 1.0, "features": 2 + 0.05 + 0.5, "starts": 0.0}
    # coding: the anchor's 6 x 11 bitstreams, which one CPU codes, take longer than all the others on two
    rest |= {"coding": 3 + (0.5 + 66 * 0.5), "registry": 4 + 6 * 0.1 + 1.0, "report": 0.3}
    cases: tuple[tuple[Case, int, int, int, float, float], ...] = (
        ("most", 5400, 18, 12, 200 * 11_000, 10 * 16),
        ("least", 1400, 8, 7, (5 * 160 + 200) / 6 * 11_000, (5 * 8 + 10) / 6 * 16),
    )
    for case, images, rungs, saved, read, requests in cases:
        gangs = {
            "training_s": images * 0.009 + 6 * 0.4,
            "data_wait_s": images * 0.001 + 6 * 0.1,
            "validation_s": rungs * 2.0,
            "startup_s": 10 + 6 * 1.0,
            "checkpoints_s": rungs * 0.25,
        }
        trials_s = 6 + sum(gangs.values()) + rungs * 0.15 + 6 * 0.3
        expected = {
            "images": images,
            "trial_hours": (sum(gangs.values()) - 10) / 3600,
            "teacher_hours": 1 / 3600,
            "requests": 10 * rungs + 2 * 6 * saved + requests + 5 * (3 + 1) + 3 * (3 + 2 + 2),
            "wall_s": sum(rest.values()) + trials_s,
            "phases_s": rest | {"trials": trials_s},
            "gangs": gangs | {"idle_s": trials_s - sum(gangs.values())},
            "bytes": {"features_stored": 150_000, "weights": 6e5, "checkpoints": saved * 1e6, "features_read": read},
        }
        assert_equal(forecast(WORK, MEASURED, case).model_dump(), expected)


def test_every_figure_of_a_forecast_of_several_sizes() -> None:
    """By hand: of seven trials `passed` train the last 600 images; the middle size costs three times the smallest."""
    passed = 1 + 1 / 2 + 1 / 3 + 2 / 4 + 2 / 5 + 3 / 6 + 3 / 7
    images, rungs = 300 + 600 * passed / 7, 2 + passed / 7  # of a trial
    gangs = {
        "training_s": (2 + 4 * 3 + 3) * images * 0.009 + 7 * 0.4,
        "data_wait_s": (2 + 4 * 3 + 3) * images * 0.001 + 7 * 0.1,
        "validation_s": (2 + 4 * 3 + 3) * rungs * 2.0,
        "startup_s": 2 * 10 + 7 * 1.0,
        "checkpoints_s": 7 * rungs * 0.25,
    }
    trials_s = 6 + (sum(gangs.values()) + 7 * rungs * 0.15 + 7 * 0.3) / 2
    candidate_s = (1 + 3 + 3) / 3 * (0.1 + 30 * 0.2)
    phases = {"planning": 1.0, "ray": 5.0, "anchor": 13.0, "features": 2 + 1 / 2, "starts": 3 * 1.5, "trials": trials_s}
    phases |= {"coding": 3 + (33.5 + 3 * candidate_s) / 2, "registry": 4 + 7 * 0.1 + 3 * 1.0, "report": 0.3}
    expected = {
        "images": 7 * images,
        "trial_hours": (sum(gangs.values()) - 20) / 3600,
        "teacher_hours": 1 / 3600,
        "requests": 70 * rungs + 2 * 6 * 14 + 3 * 10 * 3 + 3 * (3 + 2 + 2),
        "wall_s": sum(phases.values()),
        "phases_s": phases,
        "gangs": gangs | {"idle_s": 2 * trials_s - sum(gangs.values())},
        "bytes": {
            "features_stored": 50_000,
            "weights": 17e5,
            "checkpoints": 2 * 17e6,
            "features_read": 3 * 200 * (1000 + 300 + 700),
        },
    }
    assert_equal(forecast(MIXED, MEASURED).model_dump(), expected)
    longest_s = 1 + 0.5 + 900 * 0.03 + 3 * (6 + 0.25 + 0.15)  # no gang ends before the longest trial
    assert forecast(replace(MIXED, gangs=7), MEASURED).phases_s["trials"] == pytest.approx(6 + 10 + longest_s)


def test_a_tap_that_was_not_measured_counts_as_no_bytes() -> None:
    group = replace(CONTROL, taps=(*PIXELS, ("teacher b", "y")))
    for caches in (None, 1):
        assert forecast(replace(WORK, groups=(group,), caches=caches), MEASURED).bytes.features_read == 200 * 1000


def assert_equal(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Figures by their names, in as many sections as there are."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value), name


def test_bytes_and_teacher_hours_are_of_what_the_store_lacks() -> None:
    expected = forecast(WORK, MEASURED)
    assert expected.bytes.features_stored == 100 * 1000 + 50 * 1000
    assert expected.teacher_hours == pytest.approx(50 * 0.02 / 3600)
    assert expected.phases_s["features"] == pytest.approx(2.0 + 100 * 0.001 / 2 + 50 * 0.02 / 2)
    full = replace(WORK, missing=())
    assert forecast(full, MEASURED).phases_s["features"] == forecast(full, MEASURED).teacher_hours == 0
    assert forecast(full, MEASURED).requests < expected.requests
    gpu = replace(WORK, gpus=1)
    assert forecast(gpu, MEASURED).phases_s["features"] == pytest.approx(2.0 + 100 * 0.001 / 2 + 50 * 0.02)


def test_bytes_read_are_each_trials_own_without_a_nodes_cache() -> None:
    most = forecast(WORK, MEASURED, "most")
    assert most.bytes.features_read == 200 * (1000 + 5 * 2000)
    cached = forecast(replace(WORK, caches=2), MEASURED, "most")
    assert cached.bytes.features_read == 2 * 200 * 2000
    least = forecast(WORK, MEASURED, "least")
    assert least.bytes.features_read == pytest.approx((5 / 6 * 160 + 1 / 6 * 200) * (1000 + 5 * 2000))
    assert most.bytes.checkpoints == 6 * 2 * 1e6 and most.bytes.weights == 6 * 1e5


def test_sizes_between_the_measured_ones_are_interpolated_over_macs() -> None:
    assert MEASURED.student("hyperprior", 2000, False).training.image_s == pytest.approx(0.02)
    assert MEASURED.student("hyperprior", 2000, True).training.validation_s == pytest.approx(6.0)
    only_controls = MEASURED.model_copy(update={"students": MEASURED.students[:1]})
    assert only_controls.student("hyperprior", 1000, True).training.image_s == 0.01


def test_gangs_share_the_work_but_no_trial() -> None:
    one, two = (forecast(replace(WORK, gangs=gangs), MEASURED, "most").phases_s["trials"] for gangs in (1, 2))
    assert 0.5 < two / one < 0.65
    many = forecast(replace(WORK, gangs=100), MEASURED, "most").phases_s["trials"]
    assert many == forecast(replace(WORK, gangs=50), MEASURED, "most").phases_s["trials"]


def test_the_faster_use_of_the_same_resources_is_advised() -> None:
    two, one = MEASURED.layouts
    lead = "ranks per trial: 2 trials side by side of 1 rank train 30 % more images a second than 1 trial of 2 ranks"
    assert advice((two, one), 2, 1) == f"{lead}: training.ranks_per_trial=1 concurrent_trials=2 would be faster"
    assert advice((one, two), 1, 2) == f"{lead}, as the specification has it"
    close = one.model_copy(update={"seconds": 0.0102})
    assert advice((two, close), 2, 1) == f"{lead.replace('30', '2')}; that is no difference"
    enough = one.model_copy(update={"seconds": 0.0105})
    assert advice((two, enough), 1, 2) == f"{lead.replace('30', '5')}, as the specification has it"
    assert advice((), 1, 1) == "ranks per trial: nothing to compare on these resources"


def test_a_calibration_survives_its_file_and_another_version_does_not_pass() -> None:
    data = serialised(MEASURED)
    assert parse(data, Calibration, "file") == MEASURED
    for other in ({"of another version": 1}, {"format": 2}):
        with pytest.raises(FormatError):
            parse(json.dumps(json.loads(data) | other).encode(), Calibration, "file")


TABLE = """\
6 trials, 1 at a time, 2 ranks each, on 2 CPUs and 0 GPUs; rungs at 100, 300, 900 images
                                  at least  expected   at most
images trained on                    1,400     2,147     5,400
trial-hours                         0.0114    0.0149    0.0288
teacher-hours of one CPU          0.000278  0.000278  0.000278
MB, features stored                    0.1       0.1       0.1
MB, features read                      1.8       2.0       2.2
MB, checkpoints                        7.0       8.6      12.0
MB, weights                            0.6       0.6       0.6
requests to store and run folder       338       390       525
seconds, planning                      1.0       1.0       1.0
seconds, ray                           5.0       5.0       5.0
seconds, anchor                       13.0      13.0      13.0
seconds, features                      2.5       2.5       2.5
seconds, starts                        0.0       0.0       0.0
seconds, trials                       60.0      73.0     124.0
seconds, coding                       36.5      36.5      36.5
seconds, registry                      5.6       5.6       5.6
seconds, report                        0.3       0.3       0.3
wall time                          2.1 min   2.3 min   3.1 min"""


def test_the_table_has_a_column_a_case() -> None:
    *table, last = lines(WORK, MEASURED)
    assert table == TABLE.splitlines() and last == advice(MEASURED.layouts, 2, 1)
    head, _, images, _, hours, *_ = lines(MIXED, MEASURED)
    assert head == "7 trials, 2 at a time, 1 rank each, on 2 CPUs and 2 GPUs; rungs at 100, 300, 900 images"
    assert images.split() == ["images", "trained", "on", "2,700", "4,297", "6,300"]
    assert hours.startswith("teacher-hours of one GPU ")
    thousands = replace(WORK, rungs=(1000, 3000, 9000))
    assert lines(thousands, MEASURED)[0].endswith("; rungs at 1,000, 3,000, 9,000 images")


def test_a_store_that_what_is_published_does_not_fit_into_is_named() -> None:
    needed = forecast(WORK, MEASURED, "expected").bytes.features_stored
    assert needed > 0 and lack_of_space(WORK, MEASURED, "/store", None) is None
    assert lack_of_space(WORK, MEASURED, "/store", int(needed) + 1) is None
    line = f"store: /store has 0.0 MB free, and the sweep publishes {needed / 1e6:,.1f} MB there"
    assert lack_of_space(WORK, MEASURED, "/store", 0) == line


def test_a_span_is_written_in_the_unit_that_fits_it() -> None:
    assert (span(100), span(600), span(7200), span(90_000)) == ("100 s", "10.0 min", "2.0 h", "25.0 h")
