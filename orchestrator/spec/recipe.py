"""The recipe of one rate ladder trained on photographs alone: a teacher, or a small ladder that students start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.messages import SpecError
from orchestrator.spec.paths import absolute, kept, missing_folders
from orchestrator.spec.section import Section, refusal
from orchestrator.spec.sections import (
    Crops,
    Name,
    Network,
    Photographs,
    Preemption,
    RateLadderSection,
    StoreUrl,
    Training,
)


class Recipe(Section):
    """How one rate ladder is trained."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    network: Network
    rate_ladder: RateLadderSection = RateLadderSection()
    init: str = "random"  # random | a weights file, whose leading channels are taken where the names agree
    photographs: Photographs
    # Fresh crops without end: `count` is not used. A downscale below 1 removes the block edges of JPEG sources.
    crops: Crops = Crops(downscale=(0.6, 0.9))
    training: Training
    images: Annotated[int, Field(ge=1)]  # crops seen, over all ranks
    # of the images: a variable-rate network first trains at its highest rate point, with uniform noise
    stage_one_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    checkpoint_every: Annotated[int, Field(ge=1)] = 8000  # images
    store_dtype: Literal["fp16", "fp32"] = "fp16"
    preemption: Preemption = Preemption()
    results: StoreUrl = "runs/teachers"  # path or URL (file, s3); the run folder is results/name

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        batch_size = self.training.batch_size
        for field, images in (("images", self.images), ("checkpoint_every", self.checkpoint_every)):
            if images % batch_size:
                yield refusal(field, images, f"a multiple of training.batch_size, {batch_size}")
        yield from self.training.problems()
        if self.training.gpus_per_rank:
            here = "0 in a recipe, whose ranks take a GPU each if there are any"
            yield refusal("training.gpus_per_rank", self.training.gpus_per_rank, here)
        if self.training.precision == "auto":
            yield refusal("training.precision", "auto", "fp32 or bf16 in a recipe")
        yield from (f"rate_ladder.{problem}" for problem in self.rate_ladder.problems())
        yield from self.rate_ladder.side_problems("crops.size", self.crops.size)
        yield from (f"network.{problem}" for problem in self.network.problems())

    def resolved(self, base: Path) -> Recipe:
        """The same recipe with every local path absolute, relative ones from `base`; and 2 ranks, if it gives none."""
        ranks = self.training.ranks_per_trial or (2 if self.training.shared_by(2) else 1)
        training = self.training.model_copy(update={"ranks_per_trial": ranks, "gpus_per_rank": 0.0})
        photographs = self.photographs.model_copy(
            update={name: absolute(getattr(self.photographs, name), base) for name in ("train", "validation")}
        )
        paths = {"init": absolute(self.init, base), "results": absolute(self.results, base)}
        return self.model_copy(update={"photographs": photographs, "training": training, **paths})

    def check_paths(self) -> None:
        """Raises SpecError unless all that the recipe reads exists, and its results stay where they are written."""
        problems = [*kept("results", self.results), *missing_folders(self.photographs)]
        if self.init != "random" and not Path(self.init).is_file():
            problems.append(refusal("init", self.init, "random or a file that exists"))
        if problems:
            raise SpecError(problems)
