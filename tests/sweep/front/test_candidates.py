from __future__ import annotations

from orchestrator.results.front import Candidate
from orchestrator.sweep.front.candidates import choose, estimated, front_of
from orchestrator.trials.record import Status, TrialRecord
from testing import records
from testing.records import rung
from tests.results.builders import candidate, coded_student


def entry(trial_id: str, macs: float, bd_rate: float) -> Candidate:
    return candidate(trial_id=trial_id, macs_per_pixel=float(macs), bd_rate_pct=float(bd_rate))


def names(candidates: list[Candidate]) -> set[str]:
    return {candidate.trial_id for candidate in candidates}


def test_the_front_first_then_the_front_of_the_rest() -> None:
    entries = [entry("a1", 1, 30), entry("a2", 1, 40), entry("a3", 1, 50), entry("b1", 2, 10), entry("b2", 2, 20)]
    assert names(choose(entries, 2)) == {"a1", "b1"}
    assert names(choose(entries, 4)) == {"a1", "b1", "a2", "b2"}
    assert names(choose(entries, 9)) == {"a1", "a2", "a3", "b1", "b2"}


def test_a_front_too_large_keeps_both_its_ends() -> None:
    entries = [entry(str(size), size, 100 - size) for size in range(10)]
    chosen = choose(entries, 4)
    assert len(chosen) == 4 and {"0", "9"} <= names(chosen)


def test_only_ended_trials_with_a_valid_curve_are_candidates() -> None:
    def record(trial_id: str, status: Status, *bd_rates: float | None) -> TrialRecord:
        rungs = [rung(8 * number, value) for number, value in enumerate(bd_rates, start=1)]
        error = "a wrong setting" if status == "failed" else None
        return records.record(trial_id, rungs, status=status, error=error, weights="w", weights_digest="0" * 64)

    candidates = estimated(
        [
            record("stopped", "stopped", 3.0),
            record("finished", "finished", None, 1.0),
            record("invalid", "finished", 1.0, None),
            record("failed", "failed", 1.0),
            record("failed-at-once", "failed"),
        ]
    )
    assert {student.trial_id: student.bd_rate_pct for student in candidates} == {"stopped": 3.0, "finished": 1.0}


def test_a_coded_curve_that_is_not_valid_is_not_on_the_front() -> None:
    students = [("b", 2.0, 10.0), ("a", 1.0, 20.0), ("worse", 2.0, 30.0), ("invalid", 0.0, None)]
    coded = [coded_student(trial_id=name, macs_per_pixel=macs, bd_rate_pct=rate) for name, macs, rate in students]
    assert [student.trial_id for student in front_of(coded)] == ["a", "b"]
