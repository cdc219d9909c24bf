"""What a search makes of ended trials."""

from __future__ import annotations

from orchestrator.sweep.choose.outcomes import Outcome, RungValues, class_quantiles, comparable, mean, outcome
from testing.records import record, rung


def of(name: str, **rungs: tuple[float | None, float]) -> Outcome:
    return Outcome(name, 1.0, {int(images[1:]): RungValues(*measures) for images, measures in rungs.items()})


def test_an_outcome_is_made_of_a_record() -> None:
    measured = outcome(record("1-a", [rung(8, None, log_lagrangian_ratio=0.5)], macs_per_pixel=3.0, status="stopped"))
    assert measured == Outcome("hyperprior-n8-m16", 3.0, {8: RungValues(None, 0.5)})
    assert measured.last.log_lagrangian_ratio == 0.5


def test_replicates_count_by_their_mean_where_all_have_been() -> None:
    replicates = [of("a", r8=(10.0, 1.0), r16=(6.0, 0.6)), of("a", r8=(20.0, 3.0))]
    assert mean(replicates).rungs == {8: RungValues(15.0, 2.0)}
    assert mean([*replicates, of("a", r8=(None, 5.0))]).rungs == {8: RungValues(None, 3.0)}


def test_bd_rates_and_their_stand_in_are_never_mixed() -> None:
    assert comparable([RungValues(5.0, 0.1), RungValues(-3.0, 0.2)]) == [5.0, -3.0]
    assert comparable([RungValues(5.0, 0.1), RungValues(None, 0.2)]) == [0.1, 0.2]


def test_a_place_is_within_the_class_at_the_last_rung() -> None:
    """Small students, whose BD-rates are all worse, get the quantiles that large ones get."""
    large = [of("large", r8=(-60.0 + value, 0.0)) for value in (3, 1, 2)]
    small = [of("small", r8=(40.0 + value, 0.0)) for value in (3, 1, 2)]
    assert class_quantiles([*large, *small]) == [2 / 3, 0, 1 / 3] * 2
    further = of("small", r8=(90.0, 0.0), r16=(39.0, 0.0))
    assert class_quantiles([*small, further]) == [2 / 4, 0, 1 / 4, 0]  # it is the worst at 8 images and alone at 16
    assert class_quantiles([*small, of("small", r8=(None, -1.0))]) == [1 / 4, 1 / 4, 1 / 4, 0]
