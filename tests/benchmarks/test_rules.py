"""The arithmetic behind `benchmarks.rules`; how the rules themselves decide is tested in tests/sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recorded, rules
from benchmarks.curves import ClassFit, Fit, draw, fit
from benchmarks.hypervolume import hypervolume, reference
from benchmarks.recorded import Recorded
from orchestrator.sweep.simulate import Listed, oracle, simulate

RUNGS = (160, 480, 1440)
LAWS = (("n16", 2000.0, 150.0, 20.0, 0.4), ("n32", 7000.0, 30.0, 5.0, 0.8))
KNOWN = Fit(
    classes=tuple(
        ClassFit(
            complexity_class=name, macs_per_pixel=macs, a=a, b=b, c=c, points=1, rms_pct=0.0, seconds_per_image=0.01
        )
        for name, macs, a, b, c in LAWS
    ),
    sigma=(0.02, -0.3),
    memory=1.5,
    configuration_share=0.6,
    trials=1,
    values=1,
)


def test_a_hypervolume_is_the_area_up_to_the_reference() -> None:
    front = [(10.0, math.e**2), (20.0, math.e)]
    assert reference(front) == pytest.approx((22.0, 2.2))
    dominated, beyond = (21.0, math.e**2.1), (5.0, math.e**3)
    assert hypervolume([*front, dominated, beyond], (22.0, 2.2)) == pytest.approx(12 * 0.2 + 2 * 1.0)
    assert hypervolume([beyond], (22.0, 2.2)) == 0.0


def test_a_reference_is_worse_than_a_front_better_than_its_anchor() -> None:
    assert reference([(-30.0, math.e), (-20.0, 1.0)]) == pytest.approx((-18.0, 1.1))


def test_the_fit_finds_what_curves_were_drawn_from() -> None:
    source = np.random.default_rng(0)
    trials = [
        Recorded(
            recording="one",
            budget=RUNGS[-1],
            complexity_class=curve.complexity_class,
            macs_per_pixel=curve.macs_per_pixel,
            configuration=str(number // 2 % 150),  # classes take turns, then configurations, then seeds
            seed=number // 300,
            images_seen=RUNGS,
            bd_rate_pct=tuple(value for value in curve.bd_rate_pct if value is not None),
            seconds=curve.seconds,
        )
        for number, curve in enumerate(draw(KNOWN, source, RUNGS, configurations=150, seeds=3))
    ]
    found = fit(trials)
    for law, known in zip(found.classes, KNOWN.classes, strict=True):
        for share in (1 / 9, 1 / 3, 1):
            values = [each.a + each.b * share**-each.c for each in (law, known)]
            assert values[0] == pytest.approx(values[1], abs=1.0)
        assert law.seconds_per_image == pytest.approx(0.01)
    assert found.sigma == pytest.approx(KNOWN.sigma, rel=0.15)
    assert found.memory == pytest.approx(KNOWN.memory, rel=0.2)
    assert found.configuration_share == pytest.approx(KNOWN.configuration_share, abs=0.1)


def test_the_committed_recordings_can_be_fitted() -> None:
    found = fit(recorded.load())
    assert len(found.classes) == 4 and found.values > 150
    assert all(law.b > 0 for law in found.classes) and 0 <= found.configuration_share < 1


def test_shares_are_of_the_full_grid() -> None:
    curves = draw(KNOWN, np.random.default_rng(1), RUNGS, configurations=4, seeds=2)
    whole = rules.shares(
        curves, RUNGS, simulate(Listed(curves), lambda each: each, rules.Setting().rule("none"), slots=3)
    )
    assert (whole.hypervolume, whole.images, whole.classes_kept) == (1.0, 1.0, True)
    bound = rules.shares(curves, RUNGS, oracle(curves, RUNGS))
    assert bound.hypervolume >= 1.0 and bound.images == pytest.approx((2 + 14 / 9) / 16)


def test_an_altered_fit_has_the_correlation_asked_for() -> None:
    found = rules.altered(KNOWN, 0.8, 4)
    assert found.correlation(160 / 1440, 1.0) == pytest.approx(0.8)
    assert found.spread(1.0) == pytest.approx(4 * KNOWN.spread(1.0))


def test_what_is_chosen_keeps_to_the_images() -> None:
    def row(hypervolume_share: float, images_share: float) -> dict:
        return {"hypervolume_share": {"mean": hypervolume_share}, "images_share": {"mean": images_share}}

    settings = [rules.Setting(reduction=reduction) for reduction in (2, 3, 4)]
    assert (
        rules.best(dict(zip(settings, [row(0.99, 0.4), row(0.97, 0.29), row(0.95, 0.2)], strict=True))) == settings[1]
    )


def test_a_run_folder_becomes_a_recording(tmp_path: Path) -> None:
    def rung(images: int, pct: float | None) -> dict:
        return {"images_seen": images, "bd_rate_pct": pct, "training_s": 1.0, "validation_s": 0.5, "saving_s": 0.25}

    record = {"trial_id": "01-hyperprior-n16-control", "complexity_class": "n16", "macs_per_pixel": 2.0, "seed": 3}
    (tmp_path / "run" / "trials").mkdir(parents=True)
    for number, rungs in enumerate(([rung(8, None), rung(16, 5.0)], [])):
        (tmp_path / "run" / "trials" / f"{number}.json").write_text(json.dumps(record | {"rungs": rungs}))
    out = tmp_path / "curves.json"
    assert recorded.main([f"name={tmp_path / 'run'}", "--out", str(out)]) == 0
    (trial,) = recorded.load(out)
    assert (trial.recording, trial.budget, trial.configuration, trial.seed) == ("name", 16, "hyperprior-n16-control", 3)
    assert (trial.images_seen, trial.bd_rate_pct, trial.seconds) == ((16,), (5.0,), (3.5,))
