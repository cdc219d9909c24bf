"""Plans, shards, batches and names in the store, as they were when a plan was a list of crops.

Pinned: another value would make stored features useless, or trials read other crops than before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.features.format.key import TeacherWeights, plan_features
from orchestrator.photographs.crops import Crop, batch_at, plan_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.photographs.survey import survey
from orchestrator.spec.sections import Crops

TRAIN = Path(__file__).parents[2] / "data" / "quickstart" / "train"
TEACHER = TeacherWeights(name="a", path="/a", digest="ab" * 32)
TAPS = ("y", "x_hat", "y@1", "g_a.3:spatial")


def made_up(count: int) -> tuple[Photograph, ...]:
    """Photographs that no file holds."""
    return tuple(
        Photograph(path=f"/{i}", digest=hashlib.sha256(b"%d" % i).hexdigest(), width=257 + i % 301, height=192 + i % 97)
        for i in range(count)
    )


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What was computed of a plan; digests are SHA-256."""

    plan: str
    batches: str
    shards: str
    pixels: str  # of the feature plan
    teacher: str
    units: str
    key: str  # of the second shard's y


QUICKSTART = Pins(
    plan="474720d42e92c457cd9c73ed134155c1c65b7001091f4170d218d4c14e75098f",
    batches="628e0e489e41f215f657efd2b08d4305f40d1ea21c7bcc46fe74f96278e26973",
    shards="f8b22e0555926ba6f5f627912dab9f64255efe0b6c5873da073f5a42f759c5de",
    pixels="63ae77d4df5bf9ff961cd075d7bc52ea4e572b0a17d282d4472f1c7f3eea4d91",
    teacher="e4bdf6288589df90e110b4bd4134a199702c64789cd7b4520a49a042022d9777",
    units="df6a12b9aa871969774092a1b943b18af40285e8dbd0cfaf261bcb81de2d396e",
    key="d4820140cc4245a1a5c8f20333936b2fae990dea2fe52bac52401eb27ba44472",
)
RESIZED = Pins(
    plan="a3cb900e202571e65af34d5216275154902431a85f39dad2385f0d488f4a329f",
    batches=QUICKSTART.batches,
    shards=QUICKSTART.shards,
    pixels="aefaea0da7976bea456ccf281011f74f61c778b7c103a591566c5a6dad1f599f",
    teacher="76197332cc6a3f6dd1e27a53eebbe0b0cd459e2642b5f9b524ad74f46ad3fc05",
    units="b8131f0dd1ebc6825877eb3d3288f8b4bb974af605ed314860abe4e049750ae3",
    key="785c049c30c6325faaa79651bad64b3a04a1a3deffdd46a35e0e43f0ef118042",
)
MADE_UP = Pins(
    plan="fb024a97174a0d96586539b8cec2d0dcead411abc53739e6d705e23bcd8f4bf1",
    batches="e51ca7a8566ec9764ada4ed83775ae6587e495f839b1a2516516e148cd55dc5c",
    shards="d734da7b156d994a56af27981463bda57c9ed6c3957736ab1ba078820b1c5661",
    pixels="c2a86fe62f4372146245ca1f09235610572dca07ccd89eb8cf7354a65acb1f6f",
    teacher="d83d1f7e327ecc2be3a29965b4fddbdb5fc6c65064529fd27fa8c623cb457730",
    units="10f89475eb71065ffb44382a931daa51876d0a76a17ed62fd0c3594609b88e03",
    key="53921eef1f10b213408df5aa77691971d12bfdca3a71ff1a27503479749e3f53",
)


@pytest.fixture(scope="module")
def quickstart() -> Sequence[Photograph]:
    return survey(TRAIN, minimum_side=214, unfit="skip").photographs


def pins_of(photographs: Sequence[Photograph], crops: Crops, rate_points: int, seed: int, batch_size: int) -> Pins:
    plan = plan_crops(photographs, crops, rate_points, seed)
    teacher = plan_features(plan, TEACHER, TAPS)
    steps = ((step, of) for step in (0, 1, 7, 300, 5000) for of in (0, 5))
    return Pins(
        plan=plan.digest,
        batches=sha256([batch_at(plan, step, batch_size, seed=of) for step, of in steps]),
        shards=sha256([list(shard) for shard in plan.shards]),
        pixels=plan_features(plan).digest,
        teacher=teacher.digest,
        units=sha256([teacher.record(shard) for shard in range(len(plan.shards))]),
        key=teacher.key("y", 1),
    )


def sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def test_a_plan_of_photographs(quickstart):
    assert pins_of(quickstart, Crops(count=1024, size=128), 5, 0, 8) == QUICKSTART


def test_a_plan_of_resized_crops(quickstart):
    assert pins_of(quickstart, Crops(count=1024, size=128, downscale=(0.6, 0.9)), 5, 0, 8) == RESIZED


def test_a_plan_whose_shards_are_not_full():
    crops = Crops(count=2011, size=128, downscale=(0.7, 1.0), flip=False)
    assert pins_of(made_up(333), crops, 4, 1, 16) == MADE_UP


def test_a_plan_of_many_windows():
    plan = plan_crops(made_up(900), Crops(size=64), 6, 7)
    assert batch_at(plan, 0, 4, 3) == (5, (8135, 3239, 2567, 6797))
    assert batch_at(plan, 777, 4, 3) == (4, (11920, 6340, 12082, 118))
    assert batch_at(plan, 123456, 4, 3) == (1, (6403, 12625, 1159, 6181))
    digest = "7a20311cf7a4b222d436424480bc65dd0f9d2cefcbbb1fa148ca0d7e1d5bb55a"
    assert plan.crops[4321] == Crop(photograph=digest, left=55, top=116, side=64, size=64, flip=False, rate_point=1)
