"""Taps beside y and x_hat: of another rate point than the crop's, and the bits of y's channels."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from models.catalogue import build_ladder
from models.weights import digest, load_ladder, save_ladder
from orchestrator.features.fill.shard import FORWARD_CROPS, ShardWork, compute, pixels_of
from orchestrator.features.format.key import TapError, TeacherWeights, plan_features
from orchestrator.features.read.channel_bits import channel_bits
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import cut
from orchestrator.photographs.photos import load_rgb
from orchestrator.spec.sections import PRIM_LAMBDAS
from orchestrator.store.store import Store
from tests.features.conftest import fill_here

TAPS = ("y", "y@4", "z@0", "x_hat@4", "entropy")


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> TeacherWeights:
    """One network a lambda, each with random weights of its own."""
    path = tmp_path_factory.mktemp("networks") / "fixed.safetensors"
    torch.manual_seed(1)
    ladder = build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="fixed-lambda")
    with torch.no_grad():
        for network in ladder.networks:
            network.g_a[-1].weight.mul_(300)
    save_ladder(path, ladder)
    return TeacherWeights(name="fixed", path=str(path), digest=digest(path), kind="fixed-lambda")


@pytest.fixture(scope="module")
def store(tmp_path_factory, plan, networks, by_digest) -> Store:
    store = Store(tmp_path_factory.mktemp("other taps"))
    fill_here(store, plan, (plan_features(plan), plan_features(plan, networks, TAPS)), by_digest)
    return store


def live(ladder, plan, by_digest, index, rate_point, taps):
    """Of one crop [1, ...], with the batch, the layout and the one thread of a fill: in another order of the sums a
    latent may round the other way."""
    torch.set_num_threads(1)
    ids = next(ids for ids in plan.shards if index in ids)
    place = ids.index(index)
    first = place - place % FORWARD_CROPS
    crops = [plan.crops[crop] for crop in ids[first : first + FORWARD_CROPS]]
    pixels = np.stack([cut(load_rgb(by_digest[crop.photograph]), crop).transpose(2, 0, 1) for crop in crops])
    x = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last).float().div(255)
    with torch.inference_mode():
        output = ladder(x, rate_point, taps=taps)
    return {tap: output[tap][place - first, None] for tap in ("x_hat", *taps)}


def test_each_tap_is_of_the_rate_point_that_it_names(store, plan, networks, by_digest):
    ladder = load_ladder(networks.path)
    reader = Reader(
        store.url,
        plan,
        (plan_features(plan), plan_features(plan, networks, TAPS)),
        rank=0,
        world=1,
        batch_size=4,
        seed=0,
    )
    for step in range(5):
        batch = reader.batch(step)
        for row, index in enumerate(batch.crops):
            outputs = {
                at: live(ladder, plan, by_digest, index, at, ("y", "z", "entropy")) for at in (0, 4, batch.rate_point)
            }
            for tap, at in (("y", batch.rate_point), ("y@4", 4), ("z@0", 0)):
                exact = outputs[at][tap.partition("@")[0]][0]
                step_of = (exact.abs().amax((1, 2), keepdim=True) / 127).clamp(min=1 / 16) * (1 + 2**-10)
                assert float(((batch.targets[tap][row] - exact).abs() / (0.5 * step_of + 1e-6)).max()) <= 1, tap
            x_hat = outputs[4]["x_hat"][0].clamp(0, 1)
            assert float((batch.targets["x_hat@4"][row] - x_hat).abs().max()) <= 0.5 / 255 + 1e-6
            entropy = outputs[batch.rate_point]["entropy"][0]
            torch.testing.assert_close(batch.targets["entropy"][row], entropy, rtol=2**-10, atol=1e-6)
    reader.close()


def test_a_step_reads_the_taps_that_it_asks_for(store, plan, networks):
    plans = (plan_features(plan), plan_features(plan, networks, TAPS))
    wanted = [(), ("y",), ("z@0", "x_hat@4")]
    reader = Reader(
        store.url, plan, plans, rank=0, world=1, batch_size=4, seed=0, taps_at=lambda step: wanted[min(step, 2)]
    )
    assert [set(reader.batch(step).targets) for step in range(4)] == [
        set(),
        {"y"},
        {"z@0", "x_hat@4"},
        {"z@0", "x_hat@4"},
    ]
    reader.close()


def test_channel_bits_are_the_mean_over_the_crops_of_a_rate_point(store, plan, networks, by_digest, tmp_path):
    shutil.copytree(store.folder, tmp_path / "copy")
    store = Store(tmp_path / "copy")
    features = plan_features(plan, networks, TAPS)
    rate_points = tuple(plan.crops[shard[0]].rate_point for shard in plan.shards)
    bits = channel_bits(store, features, "entropy", rate_points)
    assert np.shape(bits) == (5, 12)
    ladder = load_ladder(networks.path)
    pool = plan.pools[1]
    exact = [live(ladder, plan, by_digest, index, 1, ("entropy",))["entropy"].ravel().numpy() for index in pool]
    assert np.allclose(bits[1], np.mean(exact, axis=0), rtol=2**-10, atol=1e-6)
    assert len({tuple(row) for row in bits}) == 5  # each network has its own
    # kept: the objects are not read again
    for shard in range(len(plan.shards)):
        (store / features.folder("entropy")).delete(f"{features.key('entropy', shard)}.safetensors")
    assert channel_bits(store, features, "entropy", rate_points) == bits


@pytest.mark.parametrize("tap", ["y@5", "y@", "y@-1", "w@1", "x"])
def test_an_impossible_tap_is_named(plan, networks, tap):
    with pytest.raises(TapError, match="is not allowed"):
        plan_features(plan, networks, (tap,))


def shard_of(plan, networks, by_digest, tap):
    work = ShardWork.of(plan, plan_features(plan, networks, (tap,)), 0, by_digest)
    return work, pixels_of(work)[:1], (tap,)


@pytest.mark.parametrize(
    ("tap", "reason"),
    [
        ("g_a.99:spatial", "g_a.99 is no module"),
        ("g_a.1.beta_reparam:spatial", "g_a.1.beta_reparam gives no feature map"),
    ],
)
def test_a_tap_of_no_feature_map_is_named(plan, networks, by_digest, tap, reason):
    with pytest.raises(TapError, match=rf"taps: \['{tap}'\] is not allowed: modules of fixed: {reason}"):
        compute(*shard_of(plan, networks, by_digest, tap))


def test_an_error_inside_a_network_is_not_called_a_tap_that_is_missing(plan, networks, by_digest, monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.no_such_attribute

    ladder = load_ladder(networks.path)
    for network in ladder.networks:
        network.g_a[1] = Broken()
    monkeypatch.setattr("orchestrator.features.fill.shard._teacher", lambda _: ladder)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        compute(*shard_of(plan, networks, by_digest, "g_a.0:spatial"))
