"""Trains one rate ladder on photographs: under Ray Train, or as one rank that torchrun started."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.weights import digest
from orchestrator.evaluation.metric import METRICS, CurvePoint
from orchestrator.logs import say, warn
from orchestrator.photographs.crops import cut, validation_crops
from orchestrator.photographs.photos import Photograph, load_rgb, survey
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.sections import Validation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from orchestrator.distill.loop import Loop
    from orchestrator.features.read.live import LiveReader

VALIDATION = Validation(crops=6, size=256)


def train_here(recipe: Recipe) -> Path:
    """One rank's share, its place given by torchrun's environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

    Writes into results/name: log.jsonl (a row per checkpoint: images seen, loss terms, validation rate-distortion
    points), checkpoint-N (both optimizers, the latest only), name.safetensors (at every checkpoint).

    Returns:
        The weights file.
    """
    return _train(recipe, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def train_with_ray(recipe: Recipe) -> Path:
    """As `train_here`, in `training.ranks_per_trial` workers of Ray Train's TorchTrainer. Returns the weights file."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    folder = Path(recipe.results) / recipe.name
    gpus = ray.cluster_resources().get("GPU", 0) if ray.is_initialized() else 0

    def worker() -> None:
        context = ray.train.get_context()
        _train(recipe, context.get_world_rank(), context.get_world_size())

    TorchTrainer(
        worker,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=recipe.training.ranks_per_trial, use_gpu=bool(gpus)),
        run_config=RunConfig(name=recipe.name, storage_path=str(folder / "ray")),
    ).fit()
    return folder / f"{recipe.name}.safetensors"


def _train(recipe: Recipe, rank: int, world: int) -> Path:
    """One rank's share, from the last checkpoint or the beginning to `recipe.images`. Returns the weights file."""
    import torch

    from orchestrator.distill.loop import to_tensor
    from orchestrator.distill.process_group import join_launched_group
    from orchestrator.features.read.live import LiveReader

    folder = Path(recipe.results) / recipe.name
    train, validation = _survey(recipe, quiet=rank > 0)
    torch.set_num_threads(recipe.training.threads_per_rank)
    torch.manual_seed(recipe.seed + rank)
    if not torch.distributed.is_initialized():  # Ray Train has made its group already
        join_launched_group()
    reader = LiveReader(
        train,
        recipe.crops,
        rate_points=len(recipe.rate_ladder.lambdas),
        batch_size=recipe.training.batch_size,
        seed=recipe.seed,
        rank=rank,
        world=world,
    )
    loop = _loop(recipe, reader, world)
    checkpoint = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), default=None)
    if checkpoint is not None:
        loop.load(checkpoint)
        if rank == 0:
            say(f"{recipe.name}: goes on from {checkpoint.name}")
    images = [to_tensor(pixels) for pixels in validation]

    def progress(seen: int, terms: Mapping[str, float]) -> None:
        if rank == 0:
            line = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
            say(f"{recipe.name}: {seen}/{recipe.images} images  {line}")

    while loop.images_seen < recipe.images:
        until = min(recipe.images, (loop.images_seen // recipe.checkpoint_every + 1) * recipe.checkpoint_every)
        terms = loop.train_to(until, progress)
        points = loop.validate(images, rank=rank, world=world)
        _checkpoint(loop, folder, rank)
        _export(loop, recipe, folder, rank)
        if rank == 0:
            _report(recipe, folder, until, terms, points)
    reader.close()
    loop.close()
    weights = _weights_file(recipe, folder)
    if rank == 0:
        say(f"{recipe.name}: {weights}  sha256 {digest(weights)}")
    return weights


def _loop(recipe: Recipe, reader: LiveReader, world: int) -> Loop:
    """The training loop with the ladder's first weights."""
    from models.catalogue import build_ladder
    from models.weights import load_ladder, slice_from
    from orchestrator.distill.loop import Loop, cosine

    network, rates = recipe.network, recipe.rate_ladder
    ladder = build_ladder(
        family=network.family,
        N=network.N,
        M=network.M,
        Z=network.Z,
        lambdas=rates.lambdas,
        kind=rates.kind,
        distortion=rates.distortion,
    )
    if recipe.init != "random":
        slice_from(ladder, load_ladder(recipe.init))
    return Loop(
        ladder=ladder,
        training=recipe.training,
        reader=reader,
        learning_rate=cosine(recipe.training.learning_rate, recipe.images),
        stage_one_images=int(recipe.stage_one_share * recipe.images) if rates.kind == "variable-rate" else 0,
        world=world,
        seed=recipe.seed,
    )


def _weights_file(recipe: Recipe, folder: Path) -> Path:
    return folder / f"{recipe.name}.safetensors"


def _export(loop: Loop, recipe: Recipe, folder: Path, rank: int) -> None:
    """Writes the weights as they are now; every rank calls it, rank 0 writes."""
    import torch

    from models.weights import save_ladder

    with loop.weights() as ladder:
        if rank == 0:
            dtype = torch.float16 if recipe.store_dtype == "fp16" else None
            notes = {"recipe": recipe.model_dump_json(), "images_seen": str(loop.images_seen)}
            save_ladder(_weights_file(recipe, folder), ladder, dtype=dtype, **notes)


def _report(
    recipe: Recipe, folder: Path, images_seen: int, terms: Mapping[str, float], points: Sequence[CurvePoint]
) -> None:
    """Appends a checkpoint's row to the log, and says its validation curve."""
    row = {"images_seen": images_seen, **terms, "points": [point.to_json() for point in points]}
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(row) + "\n")
    pairs = METRICS[recipe.rate_ladder.distortion].curve(points)
    curve = "  ".join(f"{bpp:.3f} bpp {quality_db:.2f} dB" for bpp, quality_db in pairs)
    say(f"{recipe.name}: {images_seen} images, validation: {curve}")


def _survey(recipe: Recipe, *, quiet: bool) -> tuple[tuple[Photograph, ...], list[npt.NDArray[np.uint8]]]:
    """Training photographs, and the pixels of the validation crops."""
    photographs = recipe.photographs
    validation = survey(photographs.validation, minimum_side=VALIDATION.size, unfit=photographs.unfit)
    known = frozenset(photograph.digest for photograph in validation.photographs)
    # a crop of `size` pixels is cut from a box of up to size / downscale
    side = math.ceil(recipe.crops.size / recipe.crops.downscale[0])
    train = survey(photographs.train, minimum_side=side, unfit=photographs.unfit, exclude=known)
    if not quiet:
        for finding in (*validation.findings, *train.findings):
            warn(finding)
    pixels = [
        cut(load_rgb(photograph), crop) for photograph, crop in validation_crops(validation.photographs, VALIDATION)
    ]
    return train.photographs, pixels


def _checkpoint(loop: Loop, folder: Path, rank: int) -> None:
    """Writes a checkpoint under a temporary name, then renames it and removes the older one; every rank calls it."""
    import torch.distributed as dist

    pending, name = folder / "pending", folder / f"checkpoint-{loop.images_seen}"
    if rank == 0:
        shutil.rmtree(pending, ignore_errors=True)
        pending.mkdir(parents=True)
    dist.barrier()
    loop.save(pending)
    dist.barrier()
    if rank == 0:
        older = list(folder.glob("checkpoint-*"))
        pending.rename(name)
        for old in older:
            shutil.rmtree(old)
    dist.barrier()
