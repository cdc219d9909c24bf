"""The sweep specification: typed, strict, values only.

A specification is a YAML file. `load_spec` turns it, with overrides from the command line, into a frozen `Spec`, or raises
`SpecError` whose message is one line a fault: the field, the value and what is allowed. Nothing here touches a disk but that
one file, and nothing imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PRIM_LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)


class Section(BaseModel):
    """A part of the specification: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class Photographs(Section):
    train: str  # folder of training photographs
    validation: str  # folder of photographs that early stopping and the front are computed on
    unfit: Literal["fail", "skip"] = "fail"  # what a truncated, CMYK, 16-bit, too small ... photograph does


class Crops(Section):
    """The finite crop plan: every training step reads crops of this plan, so teacher outputs can be computed once."""

    count: Annotated[int, Field(ge=8)] = 1024
    size: Annotated[int, Field(ge=64, multiple_of=64)] = 128  # pixels a side
    flip: bool = True  # mirror half of them left to right
    downscale: tuple[float, float] = (1.0, 1.0)  # a crop is cut from a box of size/f pixels, f uniform in this range, and resized


class Validation(Section):
    crops: Annotated[int, Field(ge=1)] = 6
    size: Annotated[int, Field(ge=64, multiple_of=64)] = 256


class Network(Section):
    family: Literal["hyperprior", "mean-scale"]
    N: Annotated[int, Field(ge=1, le=512)]  # channels of the transforms' hidden layers and of z
    M: Annotated[int, Field(ge=1, le=1024)]  # channels of the latent y


class Teacher(Section):
    name: str
    weights: str  # a safetensors file of ours, or zoo:NAME:QUALITY for a CompressAI zoo model


class Student(Network):
    init: str = "random"  # random | teacher-slice (leading channels of the teacher) | a safetensors file


class LossWeights(Section):
    """Weights of the terms; units in orchestrator/distill/losses.py. All distillation weights 0 is the control."""

    rate_distortion: Annotated[float, Field(ge=0)] = 1.0
    latent: Annotated[float, Field(ge=0)] = 0.0
    reconstruction: Annotated[float, Field(ge=0)] = 0.0


class RateLadder(Section):
    kind: Literal["variable-rate", "fixed-lambda"] = "variable-rate"
    lambdas: tuple[float, ...] = PRIM_LAMBDAS  # of lambda * 255^2 * MSE + bpp, rising


class Training(Section):
    batch_size: Annotated[int, Field(ge=1)] = 8  # crops a step, over all ranks of a trial
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    aux_learning_rate: Annotated[float, Field(gt=0)] = 1e-3  # of the entropy bottleneck's quantiles
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    ranks_per_trial: Annotated[int, Field(ge=1)] = 2
    threads_per_rank: Annotated[int, Field(ge=1)] = 1


class EarlyStopping(Section):
    rungs: tuple[int, ...] = (512, 1536, 4608)  # images seen; the last one ends a trial
    reduction: Annotated[int, Field(ge=2)] = 3  # keeps the best 1/reduction of a class at each rung


class Spec(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    trials: Annotated[int, Field(ge=1)]  # how many of the search space's trials are run
    controls: bool = True  # a no-distillation trial for every student
    photographs: Photographs
    crops: Crops = Crops()
    validation: Validation = Validation()
    rate_ladder: RateLadder = RateLadder()
    teachers: Annotated[tuple[Teacher, ...], Field(min_length=1)]
    students: Annotated[tuple[Student, ...], Field(min_length=1)]
    losses: Annotated[tuple[LossWeights, ...], Field(min_length=1)]
    training: Training = Training()
    early_stopping: EarlyStopping = EarlyStopping()
    concurrent_trials: Annotated[int, Field(ge=1)] = 1
    candidates: Annotated[int, Field(ge=1)] = 6  # at most so many trials are coded with real bitstreams
    store: str = "runs/store"  # fsspec URL or path of the feature cache
    results: str = "runs"  # fsspec URL or path; the run folder is results/name


class Trial(Section):
    """One trial: a student, the teacher it learns from (None: the control) and the weights of its loss."""

    trial_id: str  # such as 03-hyperprior-n16-control
    student: Student
    teacher: str | None
    loss: LossWeights
    seed: int

    @property
    def complexity_class(self) -> str:
        """Trials of one class compete at a rung: the same student architecture, so the same complexity."""
        return f"{self.student.family}-n{self.student.N}-m{self.student.M}"
