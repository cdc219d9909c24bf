"""The arithmetic behind `benchmarks.stopping.rules`; how the rules themselves decide is tested in tests/sweep."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.stopping import recorded, rules
from benchmarks.stopping.curves import ClassFit, Fit, draw, fit
from benchmarks.stopping.hypervolume import hypervolume, reference
from benchmarks.stopping.recorded import Recorded
from orchestrator.store.store import Store
from orchestrator.sweep.choose.simulate import Listed, oracle, simulate
from testing.records import record, rung, write

RUNGS = (160, 480, 1440)
CORRELATION = np.array([[1.0, 0.6, 0.5], [0.6, 1.0, 0.8], [0.5, 0.8, 1.0]])
SPREAD = np.array([0.04, 0.03, 0.02])
KNOWN = Fit(
    rungs=RUNGS,
    classes=tuple(
        ClassFit(
            complexity_class=name,
            macs_per_pixel=macs,
            ln_rate=ln_rate,
            log_lagrangian_ratio=(0.6, 0.5, 0.4),
            seconds=(1.0, 2.0, 3.0),
        )
        for name, macs, ln_rate in (("n16", 2000.0, (None, 1.0, 0.9)), ("n32", 7000.0, (0.4, 0.3, 0.25)))
    ),
    covariance=tuple(map(tuple, (CORRELATION * np.outer(SPREAD, SPREAD)).tolist())),
    ratio_scale=(0.5, 0.4, 0.4),
    configuration_share=0.6,
    trials=1,
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
    curves = draw(KNOWN, np.random.default_rng(0), RUNGS, configurations=3000, seeds=3)
    trials = [
        Recorded(
            recording="one",
            complexity_class=curve.complexity_class,
            macs_per_pixel=curve.macs_per_pixel,
            configuration=str(number // 2 % 3000),  # classes take turns, then configurations, then seeds
            seed=number // 6000,
            images_seen=RUNGS,
            bd_rate_pct=curve.bd_rate_pct,
            log_lagrangian_ratio=curve.log_lagrangian_ratio,
            seconds=curve.seconds,
        )
        for number, curve in enumerate(curves)
    ]
    fitted = fit(trials)
    for law, known in zip(fitted.classes, KNOWN.classes, strict=True):
        assert law.ln_rate == pytest.approx(known.ln_rate, abs=0.005)
        assert law.log_lagrangian_ratio == pytest.approx(known.log_lagrangian_ratio, abs=0.005)
        assert law.seconds == pytest.approx(known.seconds)
    for one in RUNGS:
        assert fitted.spread(one) == pytest.approx(KNOWN.spread(one), rel=0.05)
        assert [fitted.correlation(one, other) for other in RUNGS] == pytest.approx(
            [KNOWN.correlation(one, other) for other in RUNGS], abs=0.06
        )
    assert fitted.ratio_scale == pytest.approx(KNOWN.ratio_scale)
    assert fitted.configuration_share == pytest.approx(KNOWN.configuration_share, abs=0.06)


def test_some_of_the_rungs_can_be_drawn() -> None:
    whole, some = (
        draw(KNOWN, np.random.default_rng(0), rungs, configurations=300, seeds=1) for rungs in (RUNGS, RUNGS[1:])
    )
    assert [curve.seconds for curve in some[:2]] == [(3.0, 3.0)] * 2 and len(whole) == len(some)
    values = np.log1p(np.array([curve.bd_rate_pct for curve in some[1::2]]) / 100)
    assert np.corrcoef(values.T)[0, 1] == pytest.approx(0.8, abs=0.06)
    assert {curve.bd_rate_pct[0] for curve in whole[::2]} == {None}


def test_the_committed_recordings_can_be_fitted() -> None:
    fitted = fit(recorded.load())
    assert len(fitted.classes) == 4 and fitted.trials == 48
    assert all(law.ln_rate[-1] is not None for law in fitted.classes) and 0 <= fitted.configuration_share <= 1
    assert set(rules.RUNGS[0]) <= set(fitted.rungs)


def test_shares_are_of_the_full_grid() -> None:
    curves = draw(KNOWN, np.random.default_rng(1), RUNGS, configurations=4, seeds=2)
    whole = rules.shares(
        curves, RUNGS, simulate(Listed(curves), lambda each: each, rules.Setting().rule("none"), slots=3)
    )
    assert (whole.hypervolume, whole.images, whole.classes_kept) == (1.0, 1.0, True)
    bound = rules.shares(curves, RUNGS, oracle(curves, RUNGS))
    assert bound.hypervolume >= 1.0 and bound.images == pytest.approx((2 + 14 / 9) / 16)


def test_an_altered_fit_has_other_correlations_and_spreads() -> None:
    more, less = rules.altered(KNOWN, 0.5, 4), rules.altered(KNOWN, -0.5, 1)
    assert [fitted.correlation(RUNGS[0], RUNGS[2]) for fitted in (more, less)] == pytest.approx([0.75, 0.25])
    assert [fitted.spread(RUNGS[2]) for fitted in (more, less)] == pytest.approx([0.08, 0.02])


def test_what_is_chosen_keeps_to_the_images() -> None:
    def row(hypervolume_share: float, images_share: float) -> dict[str, Any]:
        return {"hypervolume_share": {"mean": hypervolume_share}, "images_share": {"mean": images_share}}

    settings = [rules.Setting(reduction=reduction) for reduction in (2, 3, 4)]
    assert (
        rules.best(dict(zip(settings, [row(0.99, 0.4), row(0.97, 0.29), row(0.95, 0.2)], strict=True))) == settings[1]
    )


def test_a_run_folder_becomes_a_recording(tmp_path: Path) -> None:
    times = {"training_s": 1.0, "validation_s": 0.5, "saving_s": 0.25}
    run, rungs = Store(tmp_path / "run"), [rung(8, None, **times), rung(16, 5.0, **times)]
    write(run, record("01-hyperprior-n16-control", rungs, seed=3))
    write(run, record("02-hyperprior-n16-control", seed=4))
    out = tmp_path / "curves.json"
    assert recorded.main([f"name={tmp_path / 'run'}", "--out", str(out)]) == 0
    (trial,) = recorded.load(out)
    assert (trial.recording, trial.configuration, trial.seed) == ("name", "hyperprior-n16-control", 3)
    assert (trial.images_seen, trial.bd_rate_pct, trial.seconds) == ((8, 16), (None, 5.0), (1.75, 1.75))
