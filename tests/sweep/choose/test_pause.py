"""The rule that pauses: losers of a rung go on once later reports put them among the first."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from orchestrator.sweep.choose.rungs import Report, RungRule
from orchestrator.sweep.choose.simulate import Curve, Ended, Listed, SimulatedSweep, simulate
from orchestrator.trials.record import Decision

RUNGS = (10, 30, 90)


def rule(name: str = "pause", brackets: int = 1) -> RungRule:
    return RungRule(rule=name, rungs=RUNGS, reduction=3, brackets=brackets)


def report(trial_id: str, images: int, value: float, size: str = "n8") -> Report:
    return Report(
        trial_id=trial_id,
        complexity_class=size,
        macs_per_pixel=800.0 if size == "n8" else 6750.0,
        images_seen=images,
        bd_rate_pct=value,
        bd_rate_reason=None,
        log_lagrangian_ratio=value / 100,
    )


def test_all_are_paused_and_the_best_third_promoted() -> None:
    """Two reports have no place to give, three have one, six two."""
    pausing = rule()
    for value in (1.0, 3.0):
        assert pausing.decide(report(f"t{value}", 10, value)).action == "pause"
    assert pausing.promote() is None
    assert pausing.decide(report("t2.0", 10, 2.0)).action == "pause"
    promoted = pausing.promote()
    assert promoted is not None and promoted[0] == "t1.0"
    assert (promoted[1].action, promoted[1].rung, promoted[1].sequence) == ("continue", 10, 0)
    assert pausing.promote() is None  # it is given out once
    for value in (4.0, 5.0, 6.0):
        assert pausing.decide(report(f"t{value}", 10, value)).action == "pause"
    assert [name for name, _ in everyone_promoted(pausing)] == ["t2.0"]


def test_the_best_goes_on_in_any_case_when_no_new_trial_is_left() -> None:
    pausing = rule()
    for value in (2.0, 1.0):
        pausing.decide(report(f"t{value}", 10, value))
    assert pausing.promote() is None
    promoted = pausing.promote(last=True)
    assert promoted is not None and promoted[0] == "t1.0"
    assert pausing.promote(last=True) is None
    pausing.decide(report("t1.0", 30, 1.0))
    promoted = pausing.promote(last=True)
    assert promoted is not None and (promoted[0], promoted[1].rung) == ("t1.0", 30)


def test_of_equal_ones_the_first_to_report_goes_on() -> None:
    pausing = rule()
    for name in "abc":
        pausing.decide(report(name, 10, 5.0))
    promoted = pausing.promote()
    assert promoted is not None and promoted[0] == "a" and pausing.promote() is None


def test_the_decision_says_what_it_was_that_promoted() -> None:
    pausing = rule()
    first = pausing.decide(report("a", 10, 5.0))
    assert (first.place, first.reported) == (1, 1)
    for value in (6.0, 4.0, 7.0, 8.0, 9.0):
        pausing.decide(report(f"t{value}", 10, value))
    found = {}
    while (promoted := pausing.promote()) is not None:
        found[promoted[0]] = (promoted[1].place, promoted[1].places, promoted[1].reported)
    assert found == {"t4.0": (1, 2, 6), "a": (2, 2, 6)}


def everyone_promoted(pausing: RungRule) -> list[tuple[str, int]]:
    found = []
    while (promoted := pausing.promote()) is not None:
        found.append((promoted[0], promoted[1].rung))
    return found


def test_the_highest_rung_is_promoted_first_and_of_a_rung_what_is_on_the_front() -> None:
    """The best of three each; by cost and MACs `large` is on a later front than `small`."""
    pausing = rule()
    for name, rung, values, size in (
        ("large", 10, (90.0, 95.0, 96.0), "n32"),
        ("small", 10, (50.0, 60.0, 61.0), "n8"),
        ("far", 30, (9.0, 11.0, 12.0), "n32"),
    ):
        for value in values:
            pausing.decide(report(f"{name}-{value:.0f}", rung, value, size))
    assert everyone_promoted(pausing) == [("far-9", 30), ("small-50", 10), ("large-90", 10)]


def test_what_is_still_paused_at_the_end_is_stopped() -> None:
    pausing = rule()
    for value in (1.0, 3.0, 2.0):
        pausing.decide(report(f"t{value}", 10, value))
    pausing.promote()
    assert [(name, decision.action) for name, decision in pausing.stop_paused()] == [("t3.0", "stop"), ("t2.0", "stop")]
    assert pausing.stop_paused() == [] and pausing.promote(last=True) is None


def test_a_bracket_that_spares_a_rung_pauses_nobody_there() -> None:
    pausing = rule(brackets=2)
    first, second, third = (pausing.decide(report(f"t{value}", 10, value)) for value in (1.0, 2.0, 3.0))
    assert [decision.bracket for decision in (first, second, third)] == [0, 1, 0]
    assert [decision.action for decision in (first, second, third)] == ["pause", "continue", "pause"]


def curves(seed: int, count: int = 24) -> list[Curve]:
    source = random.Random(seed)
    made = []
    for number in range(count):
        last = source.uniform(0, 50)
        made.append(
            Curve(
                trial_id=f"{number:02}",
                complexity_class=("n8", "n32")[number % 2],
                macs_per_pixel=(800.0, 6750.0)[number % 2],
                bd_rate_pct=tuple(last + source.gauss(0, spread) for spread in (12.0, 6.0, 0.0)),
                log_lagrangian_ratio=(last / 100,) * 3,
                seconds=(source.uniform(0.5, 1.5), 2.0, 6.0),
            )
        )
    return made


def simulated(name: str, given: Sequence[Curve], slots: int = 2) -> SimulatedSweep:
    return simulate(Listed(given), lambda curve: curve, rule(name), slots)


@pytest.mark.parametrize("seed", range(5))
def test_every_trial_ends_and_none_twice(seed: int) -> None:
    given = curves(seed)
    outcome = simulated("pause", given)
    assert sorted(ended.trial_id for ended in outcome.ended) == [curve.trial_id for curve in given]
    assert outcome.images == sum(RUNGS[ended.rungs - 1] for ended in outcome.ended)
    assert all(decision.action != "pause" for _, decision in outcome.decisions)


@pytest.mark.parametrize("seed", range(5))
def test_at_least_the_best_third_of_a_rung_goes_on(seed: int) -> None:
    """Whatever the order of the reports: what stopping rules get wrong early, promotions mend."""
    given = curves(seed)
    reached: dict[str, Ended] = {ended.trial_id: ended for ended in simulated("pause", given).ended}
    for size in ("n8", "n32"):
        of_class = [curve for curve in given if curve.complexity_class == size]
        ordered = sorted(of_class, key=lambda curve: curve.bd_rate_pct[0] or 0.0)
        assert all(reached[curve.trial_id].rungs >= 2 for curve in ordered[: len(of_class) // 3])


@pytest.mark.parametrize("seed", range(5))
def test_a_state_that_is_restored_decides_alike(seed: int) -> None:
    """As after SIGKILL: at any moment the decisions in the files are all that the rule knows."""
    source = random.Random(seed)
    first, second = rule(), rule()
    written: dict[tuple[str, int], tuple[Report, Decision]] = {}
    by_name = {curve.trial_id: curve for curve in curves(seed)}
    waiting = dict.fromkeys(by_name, 0)  # trial -> its next rung
    decisions: list[tuple[str, Decision]] = []
    while waiting:
        name = source.choice(sorted(waiting))
        curve, rung = by_name[name], waiting[name]
        told = report(name, RUNGS[rung], curve.bd_rate_pct[rung] or 0.0, curve.complexity_class)
        decision = first.decide(told)
        assert second.decide(told) == decision
        written[name, RUNGS[rung]] = (told, decision)
        if decision.action == "continue":
            waiting[name] += 1
        else:
            del waiting[name]
        second = rule()
        second.restore(written.values())
        promoted = first.promote(last=not waiting)
        assert second.promote(last=not waiting) == promoted
        if promoted is not None:
            name, decision = promoted
            written[name, decision.rung] = (written[name, decision.rung][0], decision)
            waiting[name] = RUNGS.index(decision.rung) + 1
        decisions.append((name, decision))
    assert {decision.action for _, decision in decisions} == {"continue", "pause", "end"}
