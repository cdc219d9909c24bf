"""One run of crops_per_image.py: what it reads, what it is set to, and its training."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common.facts import revision
from benchmarks.common.process import join_alone
from models.weights import read_metadata
from orchestrator.features.format.key import TeacherWeights, plan_features
from orchestrator.photographs.crops import Crop, CropPlan, plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Crops, Training

FRESH = "fresh"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the figures."""

    photographs: tuple[str, ...]  # digests
    validation: tuple[str, ...]  # digests of the crops' photographs
    validation_size: int
    teacher: str  # digest
    student: str  # digest of the weights that students start from
    crop_size: int
    images: int  # seen by each run
    rungs: int  # validations a run, evenly spread
    batch_size: int
    learning_rate: float  # falls to a hundredth along half a cosine
    latent: float  # loss weights
    reconstruction: float
    precision: str

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A student that one arm trains with one seed."""

    arm: str
    seed: int
    crops: int  # of the plan
    cached: bool


@dataclass(frozen=True, kw_only=True)
class Material:
    """What every run reads."""

    settings: Settings
    photographs: tuple[Photograph, ...]
    validation: tuple[tuple[Photograph, Crop], ...]
    teacher: TeacherWeights
    student: str  # path
    store: str


def train(material: Material, run: Run) -> dict[str, Any]:
    """One run in this process: its rate-distortion points and mean loss terms at every rung."""
    import torch

    from models.catalogue import build_ladder
    from models.weights import load_ladder
    from orchestrator.distill.distillation import Distillation
    from orchestrator.distill.loop import Loop, cosine
    from orchestrator.photographs.tensors import cut_tensor

    join_alone(threads=1)
    settings, began = material.settings, time.monotonic()
    described = read_metadata(material.student)
    student = build_ladder(
        family=described.family,
        N=described.N,
        M=described.M,
        lambdas=described.lambdas,
        kind=described.kind,
        init=material.student,
    )
    reader = _reader(material, run, len(described.lambdas), load_ladder(material.teacher.path))
    torch.manual_seed(run.seed)
    loss = Loss(latent=settings.latent, reconstruction=settings.reconstruction)
    loop = Loop(
        ladder=student,
        seed=run.seed,
        training=Training(
            batch_size=settings.batch_size,
            ranks_per_trial=1,
            zero_stage=0,
            precision="bf16" if settings.precision == "bf16" else "fp32",
        ),
        reader=reader,
        learning_rate=cosine(settings.learning_rate, settings.images),
        distillation=Distillation.of(loss, student, read_metadata(material.teacher.path), settings.images),
    )
    images = [cut_tensor(photograph, crop) for photograph, crop in material.validation]
    rungs = []
    for rung in range(1, settings.rungs + 1):
        steps = settings.images // settings.batch_size * rung // settings.rungs
        terms = loop.train_to(steps * settings.batch_size)
        points = loop.validate(images, rank=0, world=1)
        rungs.append({"images": loop.images_seen, "terms": terms, "points": [point.to_json() for point in points]})
        print(f"{run.arm} seed {run.seed}: {loop.images_seen} images, loss {terms['loss']:.4f}", flush=True)
    loop.close()
    seconds = time.monotonic() - began
    return {"settings": settings.key, "git_revision": revision(), **asdict(run), "seconds": seconds, "rungs": rungs}


def plan_of(material: Material, run: Run, rate_points: int) -> CropPlan:
    """The crops that a run sees; its seed decides them."""
    return plan_crops(
        material.photographs, Crops(count=run.crops, size=material.settings.crop_size), rate_points, run.seed
    )


def _reader(material: Material, run: Run, rate_points: int, teacher: Any) -> Any:
    from benchmarks.common.online import CuttingReader, ExactReader, OnlineReader
    from orchestrator.features.read.reader import Reader

    plan, batch_size = plan_of(material, run, rate_points), material.settings.batch_size
    if run.arm == FRESH:
        cutting = CuttingReader(material.photographs, plan, batch_size=batch_size, seed=run.seed)
        return OnlineReader(cutting, teacher)
    if not run.cached:
        return ExactReader(material.photographs, plan, teacher, batch_size=batch_size, seed=run.seed)
    plans = (plan_features(plan), plan_features(plan, material.teacher))
    return Reader(material.store, plan, plans, rank=0, world=1, batch_size=batch_size, seed=run.seed)
