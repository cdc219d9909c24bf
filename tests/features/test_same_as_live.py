"""1,000 random crops: what the cache returns equals the teacher's output for the same pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bitstream import Rgb
from models.weights import digest, load_ladder
from orchestrator.features.fill import shard
from orchestrator.features.format.key import TeacherWeights, plan_features
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import batch_at, cut, plan_crops
from orchestrator.photographs.photos import load_rgb
from orchestrator.spec.sections import Crops
from orchestrator.store.store import Store
from tests.features.conftest import fill_here

pytestmark = pytest.mark.slow  # a thousand crops through a teacher, twice

WEIGHTS = Path(__file__).parents[2] / "models" / "weights" / "teacher-mean-scale.safetensors"
TAPS = ("y", "z", "x_hat", "g_a.3:spatial", "g_a.3:channel")
BATCH, SEED = 8, 5


@pytest.fixture(scope="module")
def thousand(train_photographs):
    return plan_crops(train_photographs, Crops(count=1000, size=64, downscale=(0.6, 1.0)), 5, seed=11)


@pytest.fixture(scope="module")
def plans(thousand):
    teacher = TeacherWeights(name="t", path=str(WEIGHTS), digest=digest(WEIGHTS), family="mean-scale")
    return plan_features(thousand), plan_features(thousand, teacher, TAPS)


@pytest.fixture(scope="module")
def live(thousand, by_digest):
    """Crop id -> pixels and targets, computed with no cache in between.

    With the batches, the layout and the one thread of a fill: otherwise sums come in another order, and of 1,000 crops
    some have a latent so near the middle between two integers that it rounds the other way, to another reconstruction.
    """
    torch.set_num_threads(1)
    ladder, by_crop = load_ladder(WEIGHTS).eval(), {}
    decoded: dict[str, Rgb] = {}
    for ids in thousand.shards:
        for start in range(0, len(ids), shard.FORWARD_CROPS):
            some, cuts = ids[start : start + shard.FORWARD_CROPS], []
            for crop in (thousand.crops[index] for index in some):
                rgb = decoded.setdefault(crop.photograph, load_rgb(by_digest[crop.photograph]))
                cuts.append(torch.from_numpy(cut(rgb, crop).transpose(2, 0, 1).copy()))
            x = torch.stack(cuts).float().div(255).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                output = ladder(x, thousand.crops[some[0]].rate_point, taps=TAPS)
            for row, index in enumerate(some):
                by_crop[index] = x[row], {tap: output[tap][row] for tap in TAPS}
    return by_crop


def bound(tap: str, values: torch.Tensor) -> torch.Tensor:
    """What storing may cost, as codec.py states it, and a millionth for the order of a sum."""
    if tap == "x_hat":
        return torch.tensor(0.5 / 255 + 2e-6)
    if tap.endswith(":channel"):
        return values.abs() * 2**-11 + 1e-7
    step = values.abs().amax((1, 2), keepdim=True) / 127
    if tap in ("y", "z"):
        step = step.clamp(min=1 / 16)
    return step * (0.5 + 2**-10) + 1e-5


def excess(store, plan, plans, live, steps) -> dict[str, float]:
    """Tap -> the largest error in units of its bound; for pixels, the largest error."""
    reader = Reader(store.url, plan, plans, rank=0, world=1, batch_size=BATCH, seed=SEED)
    worst = dict.fromkeys(("x", *TAPS), 0.0)
    try:
        for step in steps:
            batch = reader.batch(step)
            for row, index in enumerate(batch_at(plan, step, BATCH, SEED)[1]):
                x, expected = live[index]
                worst["x"] = max(worst["x"], float((batch.x[row] - x).abs().max()))
                for tap, values in expected.items():
                    values = values.clamp(0, 1) if tap == "x_hat" else values
                    share = (batch.targets[tap][row] - values).abs() / bound(tap, values)
                    worst[tap] = max(worst[tap], float(share.max()))
    finally:
        reader.close()
    return worst


def test_a_thousand_crops(tmp_path, thousand, plans, live, by_digest):
    store = Store(tmp_path)
    fill_here(store, thousand, plans, by_digest)
    steps = range(1000 // BATCH)
    seen = {thousand.crops[index] for step in steps for index in batch_at(thousand, step, BATCH, SEED)[1]}
    assert len({crop.pixels for crop in seen}) == 1000
    assert 400 < sum(crop.flip for crop in seen) < 600 and any(crop.side != crop.size for crop in seen)
    worst = excess(store, thousand, plans, live, steps)
    assert worst["x"] == 0.0
    assert all(worst[tap] <= 1 for tap in TAPS), worst
    assert all(worst[tap] > 0.5 for tap in TAPS), worst  # the bound is the quantiser's, not a wide one


@pytest.mark.parametrize(
    "change",
    [
        lambda crop: replace(crop, left=crop.left + (1 if crop.left == 0 else -1)),
        lambda crop: replace(crop, top=crop.top + (1 if crop.top == 0 else -1)),
        lambda crop: replace(crop, flip=not crop.flip),
    ],
    ids=["a pixel to the side", "a pixel up or down", "flip"],
)
def test_a_fill_that_cuts_elsewhere_turns_it_red(tmp_path, thousand, plans, live, by_digest, monkeypatch, change):
    monkeypatch.setattr(shard, "cut", lambda rgb, crop: cut(rgb, change(crop)))
    store, part = Store(tmp_path), range(10)
    fill_here(store, thousand, plans, by_digest)
    worst = excess(store, thousand, plans, live, part)
    assert all(worst[tap] > 1 for tap in ("y", "z", "x_hat", "g_a.3:spatial")) and worst["x"] > 0.1
