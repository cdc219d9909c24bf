"""The recipe of one rate ladder trained on photographs alone: a teacher, or a small ladder for students to start
from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec import Crops, Network, Photographs, RateLadder, Section, Training


class Recipe(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    network: Network
    rate_ladder: RateLadder = RateLadder()
    init: str = "random"  # random | a weights file: parameters of the same name take their leading channels from it
    photographs: Photographs
    crops: Crops = Crops(
        downscale=(0.6, 0.9)
    )  # fresh ones for ever: its count is not used. Below 1, block edges of JPEGs go
    training: Training
    images: Annotated[int, Field(ge=1)]  # crops seen, over all ranks
    stage_one_share: Annotated[float, Field(ge=0, le=1)] = (
        0.5  # of the images, at the highest rate point with uniform noise
    )
    checkpoint_every: Annotated[int, Field(ge=1)] = 8000  # images
    store_dtype: Literal["fp16", "fp32"] = "fp16"
    results: str = "runs/teachers"  # the folder of checkpoints, log and weights is results/name
