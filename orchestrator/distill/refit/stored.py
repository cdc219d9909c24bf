"""Refitted first weights in the store: made once for a teacher, a student, a crop plan and a criterion.

    starts/DIGEST.safetensors   the student's weights; the layers' errors and a digest of the tensors in its metadata

DIGEST is of everything that decides the weights, so every trial of every sweep finds the same file. A damaged one is
made again before a sweep's trials begin.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.families import FAMILIES
from models.weights import WeightsError, read_metadata
from orchestrator.features.format.key import CUT_VERSION, FeatureError, TeacherWeights
from orchestrator.photographs.crops import Crop, CropPlan
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.sections import Network, RateLadderSection, Refit
from orchestrator.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from models.ladder import RateLadder
    from orchestrator.distill.refit.refit import RefitReport

REFIT_VERSION = 4  # raise it when the same inputs give other weights


@dataclass(frozen=True, kw_only=True)
class StartWork:
    """All that a task needs to make one student's first weights.

    Attributes:
        name: in the store.
        title: for messages.
        network, rates: of the student.
        teacher: path of its weights file, which every node sees.
        crops: that the layers are fitted to.
        photographs: those of the crops, by digest.
        how: the criterion.
    """

    name: str
    title: str
    network: Network
    rates: RateLadderSection
    teacher: str
    crops: tuple[Crop, ...]
    photographs: Mapping[str, Photograph]
    how: Refit


def start_name(teacher: TeacherWeights, network: Network, rates: RateLadderSection, plan: CropPlan, how: Refit) -> str:
    """The name in the store of a student's refitted first weights.

    Args:
        teacher: that it is made of.
        network, rates: of the student.
        plan: of the crops, of which some are used.
        how: the criterion.
    """
    shape = network.model_dump(include=set(Network.model_fields))
    crops = [[*crop.pixels, crop.rate_point] for crop in crops_of(plan, how)]
    of_families = [FAMILIES[family].forward_version for family in (teacher.family, network.family)]
    versions = [REFIT_VERSION, CUT_VERSION, *of_families, *map(version, ("pillow", "torch", "compressai"))]
    content = [versions, teacher.digest, shape, rates.model_dump(mode="json"), how.model_dump(), crops]
    return f"starts/{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}.safetensors"


def start_work(
    teacher: TeacherWeights,
    network: Network,
    rates: RateLadderSection,
    plan: CropPlan,
    how: Refit,
    photographs: Mapping[str, Photograph],
) -> StartWork:
    """The work of one start.

    Args:
        teacher: that it is made of.
        network, rates, plan, how: see `start_name`.
        photographs: of the plan, by digest.
    """
    crops = tuple(crops_of(plan, how))
    return StartWork(
        name=start_name(teacher, network, rates, plan, how),
        title=f"{network.family}-n{network.N} of {teacher.name}",
        network=network,
        rates=rates,
        teacher=teacher.path,
        crops=crops,
        photographs={crop.photograph: photographs[crop.photograph] for crop in crops},
        how=how,
    )


def crops_of(plan: CropPlan, how: Refit) -> list[Crop]:
    """The crops that a refit uses: evenly spaced over each rate point's."""
    each = max(1, how.crops // plan.rate_points)
    chosen = []
    for pool in plan.pools:
        count = min(each, len(pool))
        chosen += [plan.crops[pool[place * len(pool) // count]] for place in range(count)]
    return chosen


def loaded(crops: Sequence[Crop], photographs: Mapping[str, Photograph]) -> list[tuple[Tensor, int]]:
    """The pixels of crops, [3, H, W] in 0..1, each with its rate point.

    Args:
        crops: of a plan.
        photographs: of the crops, by digest.
    """
    from orchestrator.photographs.tensors import cut_tensor

    return [(cut_tensor(photographs[crop.photograph], crop), crop.rate_point) for crop in crops]


def make_start(store: Store, work: StartWork) -> RefitReport:
    """Makes a student's first weights and publishes them; whole ones that another process published first stay.

    Raises WeightsError, PhotographError, StoreError.
    """
    import torch

    from models.weights import load_ladder
    from orchestrator.distill.ladders import ladder_of
    from orchestrator.distill.refit.refit import refit

    torch.manual_seed(0)  # of what is neither refitted nor the teacher's
    student, teacher = ladder_of(work.network, work.rates), load_ladder(work.teacher)
    same = (student.family, student.M) == (teacher.family, teacher.M)  # then a transform of its width is the teacher's
    widths = (("g_a", student.encoder_N == teacher.encoder_N), ("g_s", student.N == teacher.N))
    transforms = [name for name, whole in widths if not (same and whole)]
    report = refit(student, teacher, loaded(work.crops, work.photographs), work.how, transforms)
    publish_start(store, work.name, student, refit=json.dumps(asdict(report)))
    return report


def publish_start(store: Store, name: str, student: RateLadder, refit: str = "") -> None:
    """Publishes first weights; whole ones that another process published first stay.

    Args:
        store: of the features.
        name: in the store, a digest of everything that decides the weights.
        student: has the weights.
        refit: of the refit, for the file's metadata.

    Raises StoreError.
    """
    from models.weights import save_ladder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start.safetensors"
        save_ladder(path, student, tensors=tensors_digest(arrays_of(student)), refit=refit)
        data = path.read_bytes()
    if store.publish(name, data) is None and not is_whole(store, name):
        store.replace(name, data)


def is_whole(store: Store, name: str) -> bool:
    """Whether a start is in the store as it was made. Raises StoreError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        data = store.read(name)
    except FileNotFoundError:
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start.safetensors"
        path.write_bytes(data)
        try:
            return tensors_digest(load_file(path)) == read_metadata(path).notes.get("tensors")
        except (SafetensorError, WeightsError):
            return False


def load_start(store: Store, name: str, student: RateLadder) -> None:
    """Gives a student the first weights that `make_start` has published.

    Raises FeatureError: they are missing, damaged or of another network; StoreError.
    """
    from models.weights import assign, load_ladder

    try:
        data = store.read(name)
    except FileNotFoundError:
        raise FeatureError(f"{store.url}/{name} is gone: the same command makes it again") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start.safetensors"
        path.write_bytes(data)
        try:
            stored = load_ladder(path)
            if tensors_digest(arrays_of(stored)) != read_metadata(path).notes.get("tensors"):
                raise WeightsError(f"{path.name}: the tensors' digest differs")
            assign(student, dict(stored.named_parameters()), source=path.name)
        except WeightsError as error:
            raise FeatureError(f"{store.url}/{name}: damaged ({error}): the same command makes it again") from None


def arrays_of(ladder: RateLadder) -> dict[str, npt.NDArray[np.float32]]:
    """A ladder's parameters by name, as its file has them."""
    return {name: value.detach().cpu().numpy() for name, value in ladder.named_parameters()}


def tensors_digest(arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """SHA-256 of a network's parameters, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()
