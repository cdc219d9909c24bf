from __future__ import annotations

import random
from typing import get_args

import pytest

from orchestrator.spec.messages import one_of
from orchestrator.spec.sections import StoppingRule
from orchestrator.sweep.choose.rungs import RULES, Report, RungRule
from orchestrator.trials.record import Decision

RUNGS = (512, 1536, 4608)
MACS = {"n8": 800.0, "n32": 6750.0}


def report(trial_id: str, images: int, bd_rate: float | None, ratio: float = 0.0, size: str = "n8") -> Report:
    return Report(
        trial_id=trial_id,
        complexity_class=size,
        macs_per_pixel=MACS[size],
        images_seen=images,
        bd_rate_pct=bd_rate,
        bd_rate_reason="not-rising: a reason" if bd_rate is None else None,
        log_lagrangian_ratio=ratio,
    )


def rule(name: str = "stratified", brackets: int = 1) -> RungRule:
    return RungRule(rule=name, rungs=RUNGS, reduction=3, brackets=brackets)


def test_a_specification_may_name_every_rule_and_no_other() -> None:
    assert get_args(StoppingRule) == tuple(RULES)
    with pytest.raises(ValueError, match=f"rule must be {one_of(RULES)}, not hyperband"):
        rule("hyperband")


def test_first_of_a_class_goes_on_and_a_worse_one_stops() -> None:
    asha = rule()
    assert asha.decide(report("a", 512, 10.0)).action == "continue"
    assert asha.decide(report("b", 512, 12.0)).action == "stop"
    assert asha.decide(report("c", 512, 8.0)).action == "continue"


@pytest.mark.parametrize(
    ("name", "action"), [("stratified", "continue"), ("asha", "stop"), ("moasha", "stop"), ("none", "continue")]
)
def test_a_small_student_competes_with_those_of_its_rules_group(name: str, action: str) -> None:
    """A small student after a better large one: with one place for the two, the large one has it by its value."""
    asha = rule(name)
    asha.decide(report("large", 512, -40.0, size="n32"))
    assert asha.decide(report("small", 512, 90.0)).action == action


def test_moasha_keeps_both_ends_of_the_front_where_asha_keeps_one() -> None:
    expectations: dict[StoppingRule, str] = {"moasha": "continue", "asha": "stop"}
    for name, expected in expectations.items():
        made = rule(name)
        for value in range(5):
            made.decide(report(f"large{value}", 512, float(value), size="n32"))
        assert made.decide(report("small", 512, 90.0)).action == expected


def test_without_a_rule_the_worst_goes_on_to_the_end() -> None:
    made = rule("none")
    for value in range(5):
        last = [made.decide(report(f"t{value}", images, float(value))).action for images in RUNGS]
        assert last == ["continue", "continue", "end"]


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
    first = asha.decide(report("a", 512, bd_rate=1.0, ratio=0.9))
    assert (first.measure, first.invalid, first.invalid_reason) == ("bd_rate_pct", 0, None)
    # better by the ratio, though its BD-rate is unknown
    decision = asha.decide(report("b", 512, bd_rate=None, ratio=0.5))
    assert (decision.measure, decision.action) == ("log_lagrangian_ratio", "continue")
    # valid again, best by BD-rate, but the class is compared by the ratio as long as b is in it
    decision = asha.decide(report("c", 512, bd_rate=0.5, ratio=0.7))
    assert (decision.measure, decision.action) == ("log_lagrangian_ratio", "stop")
    assert (decision.invalid, decision.invalid_reason) == (1, "not-rising: a reason")
    # the next rung of the same class has only valid curves
    assert asha.decide(report("a", 1536, bd_rate=1.0)).measure == "bd_rate_pct"


def test_a_report_made_again_replaces_its_first_copy_and_gets_the_same_decision() -> None:
    asha = rule()
    first = asha.decide(report("a", 512, 5.0))
    asha.decide(report("b", 512, 1.0))  # better: a would be stopped if it were compared with b
    before = asha.decisions()
    assert asha.decide(report("a", 512, 5.0)) == first
    assert asha.decisions() == before


def test_reports_off_the_rungs_and_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="reports at 500 images"):
        rule().decide(report("a", 500, 1.0))
    with pytest.raises(ValueError, match="not finite"):
        rule().decide(report("a", 512, float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        rule().decide(report("a", 512, None, ratio=float("inf")))
    with pytest.raises(ValueError, match="brackets must be 1 to 3"):
        rule(brackets=4)


def test_a_bracket_stops_nobody_before_its_rung_and_competes_alone() -> None:
    made = rule(brackets=3)
    for number in range(3):  # of the bracket of the trial that comes next, in turn
        made.decide(report(f"good{number}", RUNGS[0], -90.0))
    for number, images in enumerate(RUNGS):  # the first rung of each bracket that stops anybody
        earlier = [rung for rung in RUNGS if rung < images]
        assert all(made.decide(report(f"good{number}", rung, -90.0)) for rung in (*earlier, images))
        bad = [made.decide(report(f"bad{number}", rung, 90.0)) for rung in (*earlier, images)]
        assert [decision.action for decision in bad[:-1]] == ["continue"] * len(earlier)
        assert bad[-1].action == ("end" if images == RUNGS[-1] else "stop")
        assert {decision.bracket for decision in bad} == {number} and {decision.reported for decision in bad} == {2}


def test_each_class_has_trials_in_each_bracket() -> None:
    made = rule(brackets=2)
    turns = [made.decide(report(f"{size}{number}", 512, 1.0, size=size)) for number in range(4) for size in MACS]
    assert [decision.bracket for decision in turns] == [0, 0, 1, 1] * 2


def run(
    asha: RungRule, trials: list[str], values: dict[tuple[str, int], float | None], done: dict[str, Decision]
) -> None:
    """One gang trains the trials one after the other, each from where it had stopped."""
    for trial in trials:
        if trial in done and done[trial].action != "continue":
            continue
        for rung in RUNGS:
            if trial in done and rung <= done[trial].rung:
                continue
            value = values[trial, rung]
            size = "n8" if trial[0] == "x" else "n32"
            ratio = random.Random(f"{trial}{rung}").uniform(-1, 1)
            if asha.decide(report(trial, rung, value, ratio, size)).action != "continue":
                break


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", range(10))
def test_a_restored_sweep_decides_as_the_undisturbed_one(name: str, seed: int) -> None:
    source = random.Random(seed)
    trials = [f"{size}{number}" for number in range(8) for size in "xyz"]
    values = {(t, r): (None if source.random() < 0.1 else source.uniform(-50, 50)) for t in trials for r in RUNGS}
    undisturbed = rule(name, brackets=1 + seed % 3)
    run(undisturbed, trials, values, {})
    history = undisturbed.decisions()
    assert [decision.sequence for _, decision in history] == list(range(len(history)))

    # killed before the decision `cut` was written down; the trials' files are read in no particular order
    cut = source.randrange(1, len(history))
    saved = source.sample(history[:cut], cut)
    progress: dict[str, Decision] = {}
    for made, decision in history[:cut]:
        progress[made.trial_id] = decision
    restored = rule(name, brackets=1 + seed % 3)
    restored.restore(saved)
    assert restored.decisions() == history[:cut]
    run(restored, trials, values, progress)
    assert restored.decisions() == history
