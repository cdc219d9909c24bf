from __future__ import annotations

from orchestrator.spec.sections import StoppingRule
from orchestrator.sweep.choose.rungs import RungRule
from orchestrator.sweep.choose.simulate import (
    Curve,
    Listed,
    SimulatedSweep,
    SimulatedTrial,
    full_grid,
    oracle,
    simulate,
)

RUNGS = (10, 30, 90)


def curve(number: int, value: float | None, size: str = "n8", seconds: float = 1.0) -> Curve:
    """A trial that has the same value at every rung."""
    return Curve(
        trial_id=f"{number:02}",
        complexity_class=size,
        macs_per_pixel=800.0 if size == "n8" else 6750.0,
        bd_rate_pct=(value,) * 3,
        log_lagrangian_ratio=(0.0 if value is None else value,) * 3,
        seconds=(seconds, 2 * seconds, 6 * seconds),
    )


def run(curves: list[Curve], name: StoppingRule = "stratified", slots: int = 1) -> SimulatedSweep:
    rule = RungRule(rule=name, rungs=RUNGS, reduction=3)
    return simulate(Listed(curves), lambda curve_: curve_, rule, slots)


def test_one_slot_decides_as_one_gang() -> None:
    outcome = run([curve(1, 5.0), curve(2, 9.0), curve(3, 1.0)])
    actions = [(report.trial_id, report.images_seen, decision.action) for report, decision in outcome.decisions]
    first, second, third = [[("01", rung) for rung in RUNGS], [("02", 10)], [("03", rung) for rung in RUNGS]]
    assert [action[:2] for action in actions] == [*first, *second, *third]
    assert (outcome.images, outcome.seconds) == (90 + 10 + 90, 9 + 1 + 9)
    assert [(ended.curve.trial_id, ended.rungs) for ended in outcome.ended] == [("01", 3), ("02", 1), ("03", 3)]


def test_the_full_grid_trains_everything() -> None:
    curves = [curve(1, 5.0), curve(2, 9.0), curve(3, None)]
    simulated, computed = run(curves, "none", slots=2), full_grid(curves, RUNGS)
    assert simulated.images == computed.images == 3 * 90
    assert {ended.curve.trial_id: ended.rungs for ended in simulated.ended} == {"01": 3, "02": 3, "03": 3}
    assert set(simulated.ended) == set(computed.ended)


def test_slots_work_side_by_side_and_a_slow_trial_reports_late() -> None:
    slow, fast = curve(1, 5.0, seconds=10.0), [curve(number, 9.0 - number) for number in (2, 3)]
    outcome = run([slow, *fast], "none", slots=2)
    assert outcome.seconds == 90.0
    assert [report.trial_id for report, _ in outcome.decisions] == ["02"] * 3 + ["01"] + ["03"] * 3 + ["01"] * 2


def test_a_searcher_is_asked_when_a_slot_is_free_and_told_of_ends() -> None:
    events: list[str] = []

    class Recording(Listed[Curve]):
        def ask(self) -> Curve | None:
            trial = super().ask()
            events.append(f"ask {trial.trial_id if trial else None}")
            return trial

        def tell(self, trial_id: str, record: SimulatedTrial) -> None:
            events.append(f"{trial_id} {record.status} {[rung.images_seen for rung in record.rungs]}")

    rule = RungRule(rule="stratified", rungs=RUNGS, reduction=3)
    simulate(Recording([curve(1, 5.0), curve(2, 9.0)]), lambda ended: ended, rule, 1)
    assert events == ["ask 01", "01 finished [10, 30, 90]", "ask 02", "02 stopped [10]", "ask None"]


def test_an_oracle_trains_the_final_front_and_no_other() -> None:
    curves = [curve(1, 50.0), curve(2, 60.0), curve(3, 5.0, "n32"), curve(4, None)]
    outcome = oracle(curves, RUNGS)
    assert {ended.curve.trial_id: ended.rungs for ended in outcome.ended} == {"01": 3, "02": 1, "03": 3, "04": 1}
    assert outcome.images == 90 + 10 + 90 + 10
