"""What follows from a recipe and its photographs, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from models.one_line import OneLineError
from models.weights import digest, read_metadata
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import Crop, fit_for, minimum_side, validation_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.recipe import Recipe
from orchestrator.spec.sections import Validation
from orchestrator.store.store import Store
from orchestrator.sweep.plan import check_places
from orchestrator.sweep.surveying import survey_both

VALIDATION = Validation(crops=6, size=256)
KEPT = ".photographs"  # in `results`, where no run is called so: what was found in many photographs
NOT_COMPARED = ("results", "preemption", "checkpoint_every")  # they change no weight


class TrainingError(OneLineError, RuntimeError):
    """A teacher's training failed: it diverged, memory ran out, or a rank raised an exception or died."""


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """All that a training needs to know."""

    recipe: Recipe
    train: PhotographTable
    validation: tuple[tuple[Photograph, Crop], ...]
    inputs: dict[str, JsonValue]  # what decides the weights: the recipe, with digests in place of paths

    @classmethod
    def of(cls, recipe: Recipe) -> TeacherPlan:
        """Plan a training; reads the photographs, and says which are left out.

        Args:
            recipe: with absolute paths.

        Raises:
            SpecError: a path does not exist, or cannot be written to.
            WeightsError, PhotographError, CropError: first weights or photographs cannot be used.
        """
        recipe.check_paths()
        check_places(recipe.name, results=recipe.results)
        if recipe.init != "random":
            read_metadata(recipe.init)
        train, held_out = survey_both(
            recipe.photographs,
            Store(recipe.results) / KEPT,
            train_side=minimum_side(recipe.crops),
            validation_side=VALIDATION.size,
        )
        fit_for(train.photographs, recipe.crops)
        return cls(
            recipe=recipe,
            train=train.photographs,
            validation=validation_crops(held_out.photographs, VALIDATION),
            inputs=_inputs(recipe, train.photographs, held_out.photographs),
        )


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the ranks of a training share; picklable."""

    plan: TeacherPlan
    run: Store  # the run folder
    token: str  # of this training's process, see record.py


def weights_file(recipe: Recipe) -> str:
    """The path of the weights in the run folder."""
    return f"{recipe.name}.safetensors"


def _inputs(recipe: Recipe, train: Sequence[Photograph], validation: Sequence[Photograph]) -> dict[str, JsonValue]:
    data: dict[str, Any] = json.loads(recipe.model_dump_json(exclude=set(NOT_COMPARED)))
    del data["training"]["micro_batch_size"]  # it changes only rounding, and is lowered after running out of memory
    del data["crops"]["count"]  # not used
    data["photographs"] |= {
        "train": PhotographTable.of(train).identity,
        "validation": PhotographTable.of(validation).identity,
    }
    if recipe.init != "random":
        data["init"] = digest(recipe.init)
    return data
