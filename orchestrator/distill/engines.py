"""Which engine trains a trial."""

from __future__ import annotations

from orchestrator.distill.engine import Engine
from orchestrator.distill.engine_deepspeed import DeepSpeedEngine
from orchestrator.distill.engine_plain import PlainEngine
from orchestrator.distill.learner import Learner
from orchestrator.spec.sections import Training


def engine_for(learner: Learner, training: Training, world: int, *, seed: int) -> Engine:
    """One rank at ZeRO 0 or 1 does without DeepSpeed; all others need it. For the arguments see `Engine`."""
    alone = world == 1 and training.zero_stage < 2
    return (PlainEngine if alone else DeepSpeedEngine)(learner, training, world, seed=seed)
