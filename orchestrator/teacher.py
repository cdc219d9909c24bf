"""Trains one rate ladder on photographs: under Ray Train, or as one rank that torchrun started."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models.weights import digest
from orchestrator.evaluation.metric import METRICS
from orchestrator.logs import say, warn
from orchestrator.photographs.crops import cut, validation_crops
from orchestrator.photographs.photos import Photograph, load_rgb, survey
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.sections import Validation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from orchestrator.distill.loop import Loop

VALIDATION = Validation(crops=6, size=256)


def train_here(recipe: Recipe) -> Path:
    """One rank's share, its place given by torchrun's environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

    Writes into results/name: log.jsonl (a row a checkpoint: images seen, loss terms, validation rate-distortion
    points), checkpoint-N (both optimizers, the latest only), name.safetensors (at every checkpoint).

    Returns:
        The weights file.
    """
    return _train(recipe, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def train_with_ray(recipe: Recipe) -> Path:
    """The same in `training.ranks_per_trial` workers of Ray Train's TorchTrainer."""
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
    import torch

    from models.catalogue import build_ladder
    from models.weights import load_ladder, save_ladder, slice_from
    from orchestrator.distill.engine import join_launched_group
    from orchestrator.distill.loop import Loop, cosine, to_tensor
    from orchestrator.features.read.live import LiveReader

    folder = Path(recipe.results) / recipe.name
    weights = folder / f"{recipe.name}.safetensors"
    train, validation = _survey(recipe, quiet=rank > 0)
    torch.set_num_threads(recipe.training.threads_per_rank)
    torch.manual_seed(recipe.seed + rank)
    if not torch.distributed.is_initialized():  # Ray Train has made its group already
        join_launched_group()

    network, ladder_settings = recipe.network, recipe.rate_ladder
    ladder = build_ladder(
        family=network.family,
        N=network.N,
        M=network.M,
        Z=network.Z,
        lambdas=ladder_settings.lambdas,
        kind=ladder_settings.kind,
        distortion=ladder_settings.distortion,
    )
    if recipe.init != "random":
        slice_from(ladder, load_ladder(recipe.init))
    reader = LiveReader(
        train,
        recipe.crops,
        rate_points=len(ladder_settings.lambdas),
        batch_size=recipe.training.batch_size,
        seed=recipe.seed,
        rank=rank,
        world=world,
    )
    loop = Loop(
        ladder=ladder,
        training=recipe.training,
        reader=reader,
        learning_rate=cosine(recipe.training.learning_rate, recipe.images),
        stage_one_images=int(recipe.stage_one_share * recipe.images) if ladder_settings.kind == "variable-rate" else 0,
        world=world,
        seed=recipe.seed,
    )
    checkpoint = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), default=None)
    if checkpoint is not None:
        loop.load(checkpoint)
        if rank == 0:
            say(f"{recipe.name}: goes on from {checkpoint.name}")
    images = [to_tensor(pixels) for pixels in validation]

    def progress(seen: int, terms: Mapping[str, float]) -> None:
        if rank == 0:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
            say(f"{recipe.name}: {seen}/{recipe.images} images  {shown}")

    while loop.images_seen < recipe.images:
        until = min(recipe.images, (loop.images_seen // recipe.checkpoint_every + 1) * recipe.checkpoint_every)
        terms = loop.train_to(until, progress)
        points = loop.validate(images, rank=rank, world=world)
        _checkpoint(loop, folder, rank)
        with loop.weights() as exported:
            if rank == 0:
                dtype = torch.float16 if recipe.store_dtype == "fp16" else None
                save_ladder(weights, exported, dtype=dtype, recipe=recipe.model_dump_json(), images_seen=str(until))
        if rank == 0:
            with (folder / "log.jsonl").open("a") as log:
                log.write(
                    json.dumps({"images_seen": until, **terms, "points": [point.to_json() for point in points]}) + "\n"
                )
            pairs = METRICS[ladder_settings.distortion].curve(points)
            curve = "  ".join(f"{bpp:.3f} bpp {quality_db:.2f} dB" for bpp, quality_db in pairs)
            say(f"{recipe.name}: {until} images, validation: {curve}")
    reader.close()
    loop.close()
    if rank == 0:
        say(f"{recipe.name}: {weights}  sha256 {digest(weights)}")
    return weights


def _survey(recipe: Recipe, *, quiet: bool) -> tuple[tuple[Photograph, ...], list[npt.NDArray[np.uint8]]]:
    """Training photographs, and the pixels of the validation crops."""
    photographs = recipe.photographs
    validation = survey(photographs.validation, minimum_side=VALIDATION.size, unfit=photographs.unfit)
    known = frozenset(photograph.digest for photograph in validation.photographs)
    # a crop of `size` pixels is cut from a box of up to size / downscale
    side = math.ceil(recipe.crops.size / recipe.crops.downscale[0])
    train = survey(photographs.train, minimum_side=side, unfit=photographs.unfit, exclude=known)
    for finding in (*validation.findings, *train.findings):
        if not quiet:
            warn(finding)
    pixels = [
        cut(load_rgb(photograph), crop) for photograph, crop in validation_crops(validation.photographs, VALIDATION)
    ]
    return train.photographs, pixels


def _checkpoint(loop: Loop, folder: Path, rank: int) -> None:
    """Writes a checkpoint beside the last one, then gives it its name and drops the old one."""
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
        for each in older:
            shutil.rmtree(each)
    dist.barrier()
