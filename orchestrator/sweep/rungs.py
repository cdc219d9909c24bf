"""Stratified ASHA: early stopping within a complexity class (pure).

A trial reports at every rung. It goes on if it is among the best 1/reduction of all trials of its own class that
have reported at this rung so far, itself included: the best max(1, n // reduction) of n, so at least one place. Of
equal values the earlier is ahead. Scoring all sizes together would stop every small student first, and the Pareto
front would lose its cheap end.

The value compared is the BD-rate if every curve of the class at that rung gave a valid one, else the mean log
Lagrangian ratio of all of them; the two are never mixed in one comparison. Lower is better for both.

A decision depends only on the reports that came before it. So a report made again, after a crash, replaces its
first copy in its old place and gets the same decision, and a sweep with one gang that is killed and restored
decides as one left undisturbed.

ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (the stopping variant, as in
Ray Tune).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Action = Literal["continue", "stop", "end"]
Measure = Literal["bd_rate_pct", "log_lagrangian_ratio"]
FORMAT = "stratified-asha-1"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a trial says at a rung."""

    trial_id: str
    complexity_class: str
    images_seen: int  # must be one of the rungs
    bd_rate_pct: float | None  # None: the curve was not valid
    log_lagrangian_ratio: float  # always finite


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to the trial, and the comparison that decided it."""

    action: Action  # continue to the next rung, stop early, or end at the last rung
    rung: int  # images seen
    measure: Measure
    place: int  # 1 is best
    places: int  # so many go on
    reported: int  # trials of the class at this rung so far


class StratifiedASHA:
    """The state is the sequence of reports, each with the decision it got."""

    def __init__(self, *, rungs: Sequence[int], reduction: int) -> None:
        if not rungs or list(rungs) != sorted(set(rungs)) or rungs[0] < 1:
            raise ValueError(f"rungs must be rising numbers of images, not {list(rungs)}")
        if reduction < 2:
            raise ValueError(f"reduction must be at least 2, not {reduction}")
        self.rungs = tuple(rungs)
        self.reduction = reduction
        self._entries: list[tuple[Report, Decision]] = []

    def decide(self, report: Report) -> Decision:
        """Record the report and say what happens to its trial.

        Raises:
            ValueError: the report is not at a rung, or its value is not finite.
        """
        if report.images_seen not in self.rungs:
            raise ValueError(
                f"{report.trial_id} reports at {report.images_seen} images; the rungs are {list(self.rungs)}"
            )
        if not math.isfinite(report.log_lagrangian_ratio) or not math.isfinite(report.bd_rate_pct or 0.0):
            raise ValueError(f"{report.trial_id} reports a value that is not finite at {report.images_seen} images")
        key = (report.trial_id, report.images_seen)
        places = (
            index for index, (earlier, _) in enumerate(self._entries) if (earlier.trial_id, earlier.images_seen) == key
        )
        index = next(places, len(self._entries))
        decision = self._decide(report, [earlier for earlier, _ in self._entries[:index]])
        self._entries[index : index + 1] = [(report, decision)]
        return decision

    def decisions(self) -> tuple[tuple[Report, Decision], ...]:
        """All reports in the order they came, each with the decision it got."""
        return tuple(self._entries)

    def last(self, trial_id: str) -> Decision | None:
        """The decision of a trial's highest rung; None if it has not reported."""
        mine = [decision for report, decision in self._entries if report.trial_id == trial_id]
        return max(mine, key=lambda decision: decision.rung, default=None)

    def state(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        reports = [asdict(report) | {"decision": asdict(decision)} for report, decision in self._entries]
        return {"format": FORMAT, "rungs": list(self.rungs), "reduction": self.reduction, "reports": reports}

    def restore(self, state: Mapping[str, Any], progress: Mapping[str, int]) -> None:
        """Take over a saved state.

        `progress` maps trial ids to the images seen of their newest checkpoint (a finished trial: of its last
        rung). Reports above it will be made again, so they are dropped: kept, a trial would be compared with its
        own future.

        Raises:
            ValueError: the state is of another format, or of other rungs.
        """
        expected = {"format": FORMAT, "rungs": list(self.rungs), "reduction": self.reduction}
        for field, value in expected.items():
            if state.get(field) != value:
                raise ValueError(f"the saved rungs have {field} {state.get(field)!r}, the specification has {value!r}")
        names = Report.__dataclass_fields__
        saved = [(Report(**{n: entry[n] for n in names}), Decision(**entry["decision"])) for entry in state["reports"]]
        self._entries = [entry for entry in saved if entry[0].images_seen <= progress.get(entry[0].trial_id, 0)]

    def _decide(self, report: Report, before: Sequence[Report]) -> Decision:
        group = (report.complexity_class, report.images_seen)
        peers = [*(peer for peer in before if (peer.complexity_class, peer.images_seen) == group), report]
        rates = [peer.bd_rate_pct for peer in peers if peer.bd_rate_pct is not None]
        measure: Measure = "bd_rate_pct" if len(rates) == len(peers) else "log_lagrangian_ratio"
        values = rates if measure == "bd_rate_pct" else [peer.log_lagrangian_ratio for peer in peers]
        # the report's own value is the last, so all equal ones are ahead of it
        place = sum(value <= values[-1] for value in values)
        places = max(1, len(peers) // self.reduction)
        action: Action = "continue" if place <= places else "stop"
        if report.images_seen == self.rungs[-1]:
            action = "end"
        return Decision(
            action=action, rung=report.images_seen, measure=measure, place=place, places=places, reported=len(peers)
        )
