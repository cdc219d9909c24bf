"""What a study's students gain over controls, and what its sweeps cost, from rows as the study writes them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.whole import gains, savings
from benchmarks.whole.gains import REFITTED, SLICE, OverSeeds


def row(arm: str, seed: int = 0, *, pct: float | None = 0.0, ratios=(0.5, 0.2), size: int = 16) -> dict[str, Any]:
    """A student of two rungs, 100 and 400 images, 10 and 30 seconds of training."""
    rates = (None if pct is None else pct + 20, pct)
    rungs = [
        {
            "images_seen": images,
            "bd_rate_pct": rate,
            "log_lagrangian_ratio": ratio,
            "training_s": s,
            "validation_s": 1.0,
        }
        for images, rate, ratio, s in zip((100, 400), rates, ratios, (10.0, 30.0), strict=True)
    ]
    named = {"trial_id": f"{arm}-{size}-{seed}", "arm": arm, "seed": seed, "complexity_class": f"n{size}"}
    return {**named, "macs_per_pixel": 100.0 * size, "bd_rate_pct": pct, "seconds": [10.0, 40.0], "validation": rungs}


def test_a_spread_is_of_all_seeds_or_has_no_mean():
    assert OverSeeds.of([3.0, 1.0]) == OverSeeds(mean=2.0, least=1.0, most=3.0, seeds=2)
    assert OverSeeds.of([3.0, None]) == OverSeeds(mean=None, least=3.0, most=3.0, seeds=2)
    assert [OverSeeds.of(values).shown for values in ([3.0, 1.0], [-1.25], [None], [])] == [
        "+2.0 (+1.0 to +3.0)",
        "-1.2",
        "none",
        "",
    ]


@pytest.mark.parametrize(
    ("values", "certain"),
    [([5.0, 6.0, 7.0], True), ([1.0, 6.0, 7.0], False), ([-0.1, 6.0], False), ([-5.0, -6.0], True), ([5.0], False)],
)
def test_a_gain_is_certain_if_it_is_larger_than_its_spread(values, certain):
    assert OverSeeds.of(values).certain is certain


def test_gains_are_within_a_seed():
    rows = [row("inherit", 0, pct=5.0), row(SLICE, 0, pct=25.0), row("inherit", 1, pct=6.0), row(SLICE, 1, pct=16.0)]
    rows += [row("inherit", 2, pct=7.0), row(REFITTED, 0, pct=None)]
    assert gains.bd_rate(rows, "n16", "inherit").mean == 6.0
    assert gains.at_equal_images(rows, "n16", "inherit", SLICE) == OverSeeds(mean=15.0, least=10.0, most=20.0, seeds=2)
    assert gains.at_equal_images(rows, "n16", "inherit", REFITTED).mean is None
    assert gains.at_equal_images(rows, "n24", "inherit", SLICE).shown == ""


def test_at_equal_time_the_method_is_taken_where_the_control_ended():
    control, slower = row(SLICE, ratios=(0.6, 0.3)), row("inherit", ratios=(0.5, 0.2))
    slower["seconds"] = [20.0, 60.0]
    halfway = gains.at_equal_time([control, slower], "n16", "inherit", SLICE)
    assert halfway.mean == pytest.approx(100 * (0.3 - 0.35))  # at 40 of 60 seconds
    slower["seconds"] = [45.0, 60.0]  # filling and refitting alone took longer than the control's training
    assert gains.at_equal_time([control, slower], "n16", "inherit", SLICE).mean is None


def test_early_stopping_is_replayed_over_the_recorded_rungs():
    ratios = {"a": (0.3, 0.1), "b": (0.5, 0.2), "c": (0.6, 0.3)}
    rows = [
        row(arm, pct=100 * of[1] + (50 if size == 16 else 0), ratios=of, size=size)
        for size in (16, 32)
        for arm, of in ratios.items()
    ]
    stopped = savings.stopped_early(rows)
    assert stopped is not None and stopped.best_kept and stopped.hypervolume == 1.0
    assert 400 * 2 / 2400 < stopped.images < 1 and stopped.seconds < 1
    whole = savings.stopped_early(rows, "none")
    assert whole is not None and (whole.images, whole.seconds, whole.hypervolume) == (1.0, 1.0, 1.0)
    assert savings.stopped_early([row("a", pct=None)]) is None


def test_a_teacher_in_the_loop_is_asked_where_a_loss_reads_it():
    filled = {"features_stored": 10**6}
    sweep = {"phases_s": {"features": 10.0}, "gangs": {"training_s": 180.0}, "bytes": filled}  # 20 s for 100 crops
    assert savings.teacher_in_the_loop(sweep, crops=100, images=500) == (180 + 100) / (180 + 20)
    found = {**sweep, "bytes": {"features_stored": 0}}  # by an earlier sweep
    assert savings.teacher_in_the_loop(found, crops=100, images=500) is None
    phases = '{"phases": [{"share": 0.1, "apart": true}, {"share": 0.9}]}'
    shares = {SLICE: 0.0, "inherit": 0.5, "prim-l1": 1.0, 'feds, {"start": "random"}': 0.7, phases: 0.1}
    for arm, share in shares.items():
        trained = row(arm)
        asked = savings.images_with_teacher(trained)
        assert asked == pytest.approx(share * trained["validation"][-1]["images_seen"]), arm
