"""A sweep whose trials Ray's own ASHA stops: `jobs/sweep_feds.py`, with the same arguments.

python -m benchmarks.stopping.rays_asha --spec SPEC --set early_stopping.rule=asha ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler

from benchmarks.common.command import exit_code
from orchestrator.spec.sections import StoppingRule
from orchestrator.sweep import run
from orchestrator.sweep.choose.rungs import Report, RungRule
from orchestrator.trials.record import Decision

INVALID_BD_RATE_PCT = 1e6  # what a user gives Ray for a curve without a BD-rate


class RaysAsha(RungRule):
    """Asks ray.tune.schedulers.AsyncHyperBandScheduler about every report; it knows nothing of classes.

    Its rungs are the first one times powers of the reduction, so these must be given.
    """

    def __init__(self, *, rule: StoppingRule, rungs: Sequence[int], reduction: int, brackets: int = 1) -> None:
        super().__init__(rule=rule, rungs=rungs, reduction=reduction, brackets=brackets)
        wanted = [rungs[0] * reduction**power for power in range(len(rungs))]
        if rule != "asha" or brackets != 1 or list(rungs) != wanted:
            raise ValueError(f"Ray's ASHA has rule asha, 1 bracket and rungs {wanted}, not {rule}, {brackets}, {rungs}")
        self._rays = AsyncHyperBandScheduler(
            time_attr="images_seen",
            metric="bd_rate_pct",
            mode="min",
            grace_period=rungs[0],
            max_t=rungs[-1],
            reduction_factor=reduction,
        )
        self._added: set[str] = set()

    def _decide(self, report: Report, peers: Sequence[Report], sequence: int) -> Decision:
        controller: Any = None  # it does not look at it
        trial: Any = SimpleNamespace(trial_id=report.trial_id)
        if report.trial_id not in self._added:
            self._added.add(report.trial_id)
            self._rays.on_trial_add(controller, trial)
        rate = INVALID_BD_RATE_PCT if report.bd_rate_pct is None else report.bd_rate_pct
        result = {"images_seen": report.images_seen, "bd_rate_pct": rate}
        stopped = self._rays.on_trial_result(controller, trial, result) == self._rays.STOP
        decision = super()._decide(report, peers, sequence)
        if decision.action == "end":
            return decision
        return decision.model_copy(update={"action": "stop" if stopped else "continue"})


def main() -> int:
    from jobs.sweep_feds import main as sweep

    run.RungRule = RaysAsha  # type: ignore[attr-defined, assignment] # for this process, in the place of ours
    return sweep()


if __name__ == "__main__":
    sys.exit(exit_code(main))
