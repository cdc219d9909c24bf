"""Early stopping at rungs: decides which trials continue (pure).

A trial reports at every rung. It continues if its place is among the first of its group: the trials that have reported
at this rung so far, itself included. A rule defines the group, the place, and how many places continue; `RULES` has
all rules:

    stratified  the trials of the same complexity class compete, by their value
    pause       the trials of the same complexity class compete, by their value, but none goes on at once: it is paused,
                and promoted once a slot is free and n // reduction of n reports have not promoted better ones. When no
                new trial is left, the best of a class goes on in any case; what is still paused at the end is stopped
    asha        all trials compete, by their value: small students, whose values are worse, are stopped first, and the
                Pareto front loses its cheap end
    moasha      all trials compete, by the non-dominated rank of (value, ln MACs per pixel), see `non_dominated`
    none        nothing is stopped

Unless the rule says otherwise, the best max(1, n // reduction) of n continue. Of equal values the earlier is better.

The value compared is the BD-rate if every curve of the group at that rung has a valid one, else the mean log Lagrangian
ratio of all of them. The two are never mixed in one comparison. Lower is better for both.

With brackets, the trials of a complexity class are assigned to brackets 0, 1, ... in turn, as they first report.
Bracket b stops no trial before rung b (0 is the first), and brackets do not compete with each other: the later brackets
guard against misleading first rungs.

A decision depends only on the reports that came before it. So a report that is repeated after a crash replaces the
first copy in its old position and gets the same decision, and a sweep with one gang that is killed and restored makes
the same decisions as one that was not interrupted.

ASHA and its brackets: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; the stopping
variant, as in Ray Tune, and with `pause` the published one, which promotes. Stopping trains the first to report to the
end, whatever comes after it; promoting waits for something to compare it with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.evaluation.front import fronts
from orchestrator.spec.messages import one_of
from orchestrator.sweep.choose.non_dominated import place_of_last
from orchestrator.trials.record import Action, Decision, Measure


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a trial says at a rung."""

    trial_id: str
    complexity_class: str
    macs_per_pixel: float
    images_seen: int  # must be one of the rungs
    bd_rate_pct: float | None  # None: the curve was not valid
    bd_rate_reason: str | None  # why it was not
    log_lagrangian_ratio: float  # always finite


def by_value(values: Sequence[float], peers: Sequence[Report]) -> int:
    """The last trial's place by its value alone, from 1."""
    return sum(value <= values[-1] for value in values)  # of equal values all others came earlier


def by_value_and_cost(values: Sequence[float], peers: Sequence[Report]) -> int:
    """The last trial's place by the non-dominated rank of (value, ln MACs per pixel), from 1."""
    costs = [math.log(peer.macs_per_pixel) for peer in peers]
    return place_of_last(list(zip(values, costs, strict=True)))


def best_share(reported: int, reduction: int) -> int:
    """How many of `reported` trials continue: the best 1/reduction of them, at least one."""
    return max(1, reported // reduction)


def everyone(reported: int, reduction: int) -> int:
    """How many of `reported` trials continue: all."""
    return reported


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which trials compete at a rung, and which of them continue. The functions are pure, so that a decision can be
    repeated."""

    across_classes: bool  # all trials compete; else those of the same complexity class
    # the values and reports of the group so far, lower values being better -> the place of the last one, 1 is best
    place: Callable[[Sequence[float], Sequence[Report]], int] = by_value
    # trials of the group that have reported, `early_stopping.reduction` -> how many places continue
    places: Callable[[int, int], int] = best_share
    pauses: bool = False  # every trial is paused, and goes on when it is promoted, by value


# A name here is one of `StoppingRule` in orchestrator/spec/sections.py; docs/extending.md shows how to add one.
RULES: dict[str, Rule] = {
    "stratified": Rule(across_classes=False),
    "pause": Rule(across_classes=False, pauses=True),
    "asha": Rule(across_classes=True),
    "moasha": Rule(across_classes=True, place=by_value_and_cost),
    "none": Rule(across_classes=False, places=everyone),
}


class RungRule:
    """Decides at rungs. Its state is the sequence of reports, each with its decision."""

    def __init__(self, *, rule: str, rungs: Sequence[int], reduction: int, brackets: int = 1) -> None:
        """
        Args:
            rule: a name of `RULES`.
            rungs: images seen at each, rising.
            reduction: the best 1/reduction continue, unless the rule says otherwise.
            brackets: how many.

        Raises:
            ValueError: an argument is not allowed.
        """
        if rule not in RULES:
            raise ValueError(f"rule must be {one_of(RULES)}, not {rule}")
        if not rungs or list(rungs) != sorted(set(rungs)) or rungs[0] < 1:
            raise ValueError(f"rungs must be rising numbers of images, not {list(rungs)}")
        if reduction < 2:
            raise ValueError(f"reduction must be at least 2, not {reduction}")
        if not 1 <= brackets <= len(rungs):
            raise ValueError(f"brackets must be 1 to {len(rungs)}, the number of rungs, not {brackets}")
        self.rungs, self.reduction, self.brackets = tuple(rungs), reduction, brackets
        self._rule = RULES[rule]
        self._entries: dict[tuple[str, int], tuple[Report, Decision]] = {}  # by trial and rung, in sequence
        self._groups: dict[Hashable, dict[str, Report]] = {}  # trials that compete -> reports by trial id, in sequence
        self._classes: dict[str, dict[str, int]] = {}  # complexity class -> trial -> bracket
        self._paused: dict[int, dict[str, None]] = {images: {} for images in rungs}  # by rung, trials in sequence
        self._next = 0

    @property
    def pauses(self) -> bool:
        """Whether trials wait for their promotion."""
        return self._rule.pauses

    def decide(self, report: Report) -> Decision:
        """Record a report and decide on its trial.

        Raises:
            ValueError: the report is not at a rung, or its value is not finite.
        """
        if report.images_seen not in self.rungs:
            raise ValueError(
                f"{report.trial_id} reports at {report.images_seen} images; the rungs are {list(self.rungs)}"
            )
        if not math.isfinite(report.log_lagrangian_ratio) or not math.isfinite(report.bd_rate_pct or 0.0):
            raise ValueError(f"{report.trial_id} reports a value that is not finite at {report.images_seen} images")
        group = self._groups.setdefault(self._group(report), {})
        if report.trial_id in group:
            before = list(group)[: list(group).index(report.trial_id)]
            _, first = self._entries[report.trial_id, report.images_seen]
            decision = self._decide(report, [*(group[trial_id] for trial_id in before), report], first.sequence)
        else:
            decision = self._decide(report, [*group.values(), report], self._next)
        self._record(report, decision)
        return decision

    def promote(self, *, last: bool = False) -> tuple[str, Decision] | None:
        """The paused trial that goes on now, with the decision that replaces the one by which it was paused.

        By all reports so far it is among the first n // reduction of n, by value; of equal ones the earlier. Of several
        the one at the highest rung; there the one on the earliest front of cost and MACs per pixel, over all groups.

        Args:
            last: no new trial is left, so the best of a group goes on however few have reported.

        Returns:
            None: there is none.
        """
        for images in reversed(self.rungs[:-1]):
            found = [entry for group in self._paused_at(images) for entry in self._promotable(group, last)]
            if found:
                numbers = fronts([(report.log_lagrangian_ratio, report.macs_per_pixel) for report, _ in found])
                first = min(range(len(found)), key=lambda index: (numbers[index], found[index][1].sequence))
                report, decision = found[first]
                self._replace(report, decision)
                return report.trial_id, decision
        return None

    def _paused_at(self, images: int) -> list[Mapping[str, Report]]:
        """The groups of a rung that have a paused trial."""
        paused = {self._group(self._entries[trial_id, images][0]): None for trial_id in self._paused[images]}
        return [self._groups[group] for group in paused]

    def _promotable(self, group: Mapping[str, Report], last: bool) -> list[tuple[Report, Decision]]:
        """The paused trials of a group that have a place, each with the decision that it goes on."""
        reports = list(group.values())
        values, reasons = _compared(reports)
        before = [self._entries[report.trial_id, report.images_seen][1] for report in reports]
        order = sorted(range(len(reports)), key=lambda index: (values[index], before[index].sequence))
        places = best_share(len(reports), self.reduction) if last else len(reports) // self.reduction
        measure: Measure = "log_lagrangian_ratio" if reasons else "bd_rate_pct"
        figures: dict[str, object] = {"action": "continue", "measure": measure, "places": places}
        figures |= {
            "reported": len(reports),
            "invalid": len(reasons),
            "invalid_reason": reasons[0] if reasons else None,
        }
        return [
            (reports[index], before[index].model_copy(update={**figures, "place": place}))
            for place, index in enumerate(order[:places], start=1)
            if before[index].action == "pause"
        ]

    def stop_paused(self) -> list[tuple[str, Decision]]:
        """Stops the trials that are paused; returns each with the decision that replaces the one before."""
        paused = [self._entries[trial_id, images] for images in self.rungs for trial_id in self._paused[images]]
        stopped = []
        for report, decision in sorted(paused, key=lambda entry: entry[1].sequence):
            changed = decision.model_copy(update={"action": "stop"})
            self._replace(report, changed)
            stopped.append((report.trial_id, changed))
        return stopped

    def _replace(self, report: Report, decision: Decision) -> None:
        """Another decision on a report that was paused."""
        self._entries[report.trial_id, report.images_seen] = report, decision
        del self._paused[report.images_seen][report.trial_id]

    def decisions(self) -> tuple[tuple[Report, Decision], ...]:
        """All reports in the order they came, each with its decision."""
        return tuple(self._entries.values())

    def restore(self, entries: Iterable[tuple[Report, Decision]]) -> None:
        """Restore the state from reports and their decisions, in any order.

        Leave out reports whose work is lost: they will be repeated, and a trial would be compared with its own future.
        """
        for report, decision in sorted(entries, key=lambda entry: entry[1].sequence):
            self._record(report, decision)

    def _record(self, report: Report, decision: Decision) -> None:
        self._classes.setdefault(report.complexity_class, {})[report.trial_id] = decision.bracket
        self._entries[report.trial_id, report.images_seen] = report, decision
        if decision.action == "pause":
            self._paused[report.images_seen][report.trial_id] = None
        else:
            self._paused.get(report.images_seen, {}).pop(report.trial_id, None)
        self._groups.setdefault(self._group(report), {})[report.trial_id] = report
        self._next = max(self._next, decision.sequence + 1)

    def _group(self, report: Report) -> Hashable:
        class_ = None if self._rule.across_classes else report.complexity_class
        return report.images_seen, self._bracket(report), class_

    def _bracket(self, report: Report) -> int:
        of_class = self._classes.setdefault(report.complexity_class, {})
        return of_class.setdefault(report.trial_id, len(of_class) % self.brackets)

    def _decide(self, report: Report, peers: Sequence[Report], sequence: int) -> Decision:
        """The decision on a report, which is the last of its peers."""
        values, reasons = _compared(peers)
        place = self._rule.place(values, peers)
        places = self._rule.places(len(peers), self.reduction)
        rung, bracket = self.rungs.index(report.images_seen), self._bracket(report)
        wins = rung < bracket or (place <= places and not self._rule.pauses)
        action: Action = "continue" if wins else "pause" if self._rule.pauses else "stop"
        return Decision(
            action="end" if rung == len(self.rungs) - 1 else action,
            rung=report.images_seen,
            sequence=sequence,
            bracket=bracket,
            measure="log_lagrangian_ratio" if reasons else "bd_rate_pct",
            invalid=len(reasons),
            invalid_reason=reasons[0] if reasons else None,
            place=place,
            places=places,
            reported=len(peers),
        )


def _compared(peers: Sequence[Report]) -> tuple[list[float], list[str | None]]:
    """The values by which reports are compared, and why some have no BD-rate: if there are any, they are not that."""
    reasons = [peer.bd_rate_reason for peer in peers if peer.bd_rate_pct is None]
    rates = [peer.bd_rate_pct for peer in peers if peer.bd_rate_pct is not None]
    return [peer.log_lagrangian_ratio for peer in peers] if reasons else rates, reasons
