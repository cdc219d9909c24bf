from __future__ import annotations

import json
import random

import pytest

from orchestrator.sweep.rungs import Report, StratifiedASHA

RUNGS = (512, 1536, 4608)


def report(trial_id: str, images: int, bd_rate: float | None, ratio: float = 0.0, size: str = "n8") -> Report:
    return Report(
        trial_id=trial_id, complexity_class=size, images_seen=images, bd_rate_pct=bd_rate, log_lagrangian_ratio=ratio
    )


def rule() -> StratifiedASHA:
    return StratifiedASHA(rungs=RUNGS, reduction=3)


def test_first_of_a_class_goes_on_and_a_worse_one_stops() -> None:
    asha = rule()
    assert asha.decide(report("a", 512, 10.0)).action == "continue"
    assert asha.decide(report("b", 512, 12.0)).action == "stop"
    assert asha.decide(report("c", 512, 8.0)).action == "continue"


def test_classes_do_not_compete() -> None:
    asha = rule()
    asha.decide(report("large", 512, -40.0, size="n32"))
    assert asha.decide(report("small", 512, 90.0, size="n8")).action == "continue"


def test_places_are_a_third_of_those_reported() -> None:
    asha = rule()
    for value in range(5):
        asha.decide(report(f"t{value}", 512, float(value)))
    decision = asha.decide(report("sixth", 512, 0.5))
    assert (decision.place, decision.places, decision.reported, decision.action) == (2, 2, 6, "continue")


def test_the_earlier_of_equal_values_is_ahead() -> None:
    asha = rule()
    asha.decide(report("a", 512, 5.0))
    assert asha.decide(report("b", 512, 5.0)).action == "stop"


def test_last_rung_ends_even_the_worst() -> None:
    asha = rule()
    asha.decide(report("a", 4608, 1.0))
    assert asha.decide(report("b", 4608, 99.0)).action == "end"


def test_one_invalid_curve_moves_the_comparison_to_the_lagrangian() -> None:
    asha = rule()
    asha.decide(report("a", 512, bd_rate=1.0, ratio=0.9))
    # better by the ratio, though its BD-rate is unknown
    decision = asha.decide(report("b", 512, bd_rate=None, ratio=0.5))
    assert (decision.measure, decision.action) == ("log_lagrangian_ratio", "continue")
    # valid again, best by BD-rate, but the class is compared by the ratio as long as b is in it
    decision = asha.decide(report("c", 512, bd_rate=0.5, ratio=0.7))
    assert (decision.measure, decision.action) == ("log_lagrangian_ratio", "stop")
    # the next rung of the same class has only valid curves
    assert asha.decide(report("a", 1536, bd_rate=1.0)).measure == "bd_rate_pct"


def test_a_report_made_again_replaces_its_first_copy_and_gets_the_same_decision() -> None:
    asha = rule()
    first = asha.decide(report("a", 512, 5.0))
    asha.decide(report("b", 512, 1.0))
    asha.decide(report("c", 512, 2.0))
    before = asha.state()
    assert asha.decide(report("a", 512, 5.0)) == first
    assert asha.state() == before


def test_reports_off_the_rungs_and_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="reports at 500 images"):
        rule().decide(report("a", 500, 1.0))
    with pytest.raises(ValueError, match="not finite"):
        rule().decide(report("a", 512, float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        rule().decide(report("a", 512, None, ratio=float("inf")))


def run(
    asha: StratifiedASHA, trials: list[str], values: dict[tuple[str, int], float | None], done: dict[str, int]
) -> None:
    """One gang: trials one after the other, each from where it was."""
    for trial in trials:
        last = asha.last(trial)
        if last is not None and last.action != "continue":
            continue
        for rung in RUNGS:
            if rung <= done.get(trial, 0):
                continue
            value = values[trial, rung]
            if asha.decide(report(trial, rung, value, hash((trial, rung)) % 97, size=trial[0])).action != "continue":
                break


@pytest.mark.parametrize("seed", range(20))
def test_a_restored_sweep_decides_as_the_undisturbed_one(seed: int) -> None:
    source = random.Random(seed)
    trials = [f"{size}{number}" for number in range(8) for size in "xyz"]
    values = {(t, r): (None if source.random() < 0.1 else source.uniform(-50, 50)) for t in trials for r in RUNGS}
    undisturbed = rule()
    run(undisturbed, trials, values, {})
    history = undisturbed.decisions()

    # killed while the report `cut` was made but its checkpoint not yet written: that rung will be trained again
    cut = source.randrange(1, len(history))
    killed = rule()
    for made, _ in history[: cut + 1]:
        killed.decide(made)
    progress: dict[str, int] = {}
    for made, _ in history[:cut]:
        progress[made.trial_id] = max(made.images_seen, progress.get(made.trial_id, 0))
    restored = rule()
    restored.restore(json.loads(json.dumps(killed.state())), progress)
    assert len(restored.decisions()) == cut
    run(restored, trials, values, progress)
    assert restored.decisions() == history


def test_a_state_of_other_rungs_is_refused() -> None:
    state = StratifiedASHA(rungs=(1, 2), reduction=3).state()
    with pytest.raises(ValueError, match="rungs"):
        rule().restore(state, {})
