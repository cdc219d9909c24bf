"""Every family learns from a teacher of another one, by a method of several phases that may be cut off anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.catalogue import build_ladder
from models.families import FAMILIES, Kind
from models.weights import digest, load_ladder, read_metadata, save_ladder
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.loop import Loop, cosine
from orchestrator.distill.targets import entropy_tap, taps
from orchestrator.features.format.key import TeacherWeights, plan_features
from orchestrator.features.read.channel_bits import channel_bits
from orchestrator.features.read.reader import Reader
from orchestrator.photographs.crops import plan_crops
from orchestrator.spec.loss import Loss, LossWeights, Phase
from orchestrator.spec.sections import OTHER_PARTS, PRIM_LAMBDAS, Crops, Half, Part, Training
from orchestrator.store.store import Store
from tests.features.conftest import fill_here

IMAGES, BATCH = 40, 4
N, M = 8, 20
EVERYTHING = Loss(
    phases=(
        Phase(share=0.3, weights=LossWeights(spatial_attention=1, channel_attention=1)),
        Phase(share=0.4, weights=LossWeights(channel_entropy=0.1, latent_kl=0.1, hyper_latent=0.1), freeze=("g_s",)),
        Phase(share=0.3, weights=LossWeights(latent=0.1, reconstruction=0.1), learning_rate=0.5),
    )
)


@pytest.fixture(scope="module")
def plan(train_photographs):
    return plan_crops(train_photographs, Crops(count=40, size=64), len(PRIM_LAMBDAS), seed=0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> TeacherWeights:
    """A teacher that is wider than the students in every respect."""
    path = tmp_path_factory.mktemp("teacher") / "feds.safetensors"
    torch.manual_seed(0)
    save_ladder(path, build_ladder(family="feds-teacher", N=2 * N, M=2 * M, lambdas=PRIM_LAMBDAS, kind="variable-rate"))
    return TeacherWeights(name="feds", path=str(path), digest=digest(path), family="feds-teacher")


@pytest.fixture(scope="module")
def loop_of(tmp_path_factory, plan, teacher, train_photographs):
    """Makes a loop of a family and a loss, whose targets are in a store."""
    store = Store(tmp_path_factory.mktemp("store"))
    by_digest = {photograph.digest: photograph for photograph in train_photographs}
    fill_here(store, plan, [plan_features(plan)], by_digest)
    opened = []

    def make(family: str, loss: Loss, kind: Kind = "variable-rate", frozen: frozenset[Part] = frozenset()) -> Loop:
        torch.manual_seed(0)
        student = build_ladder(family=family, N=N, M=M, lambdas=PRIM_LAMBDAS, kind=kind)
        wanted = taps([(loss, family)], teacher=teacher.family, rate_points=len(PRIM_LAMBDAS))
        features = plan_features(plan, teacher, wanted)
        fill_here(store, plan, [features], by_digest)
        entropy = entropy_tap(loss, len(PRIM_LAMBDAS))
        rate_points = [plan.crops[shard[0]].rate_point for shard in plan.shards]
        bits = channel_bits(store, features, entropy, rate_points) if entropy else None
        plans = [plan_features(plan), features]
        opened.append(Reader(store.url, plan, plans, rank=0, world=1, batch_size=BATCH, seed=0))
        return Loop(
            ladder=student,
            training=Training(batch_size=BATCH, ranks_per_trial=1, zero_stage=1, learning_rate=1e-3),
            reader=opened[-1],
            learning_rate=cosine(1e-3, IMAGES),
            distillation=Distillation.of(loss, student, read_metadata(teacher.path), IMAGES, bits, frozen),
        )

    yield make
    for reader in opened:
        reader.close()


def values(loop: Loop) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in loop.ladder.named_parameters()}


@pytest.mark.parametrize("kind", ["variable-rate", "fixed-lambda"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_in_phases(process_group, loop_of, family, kind, tmp_path) -> None:
    loop = loop_of(family, EVERYTHING, kind)
    before = values(loop)
    first = loop.train_to(12)
    assert {"spatial_attention", "channel_attention"} <= first.keys() and not {
        "channel_entropy",
        "latent",
    } & first.keys()
    aligned = values(loop)
    second = loop.train_to(28)
    assert {"channel_entropy", "latent_kl", "hyper_latent"} <= second.keys() and "spatial_attention" not in second
    changed = {name for name, value in values(loop).items() if not torch.equal(value, aligned[name])}
    assert changed and not any(".g_s." in name for name in changed)  # frozen in that phase
    third = loop.train_to(IMAGES)
    assert {"latent", "reconstruction"} <= third.keys() and third["skipped_steps"] == 0
    assert all(torch.isfinite(value).all() for value in values(loop).values())
    # offsets of CompressAI's variable-rate networks see only what is not rounded to 0, which here may be nothing
    same = {name for name, value in values(loop).items() if torch.equal(value, before[name]) and "Quant" not in name}
    assert not {name for name in same if kind == "variable-rate"}
    path = tmp_path / "student.safetensors"
    save_ladder(path, loop.ladder)
    assert M == load_ladder(path).M  # without the maps
    loop.close()


def test_a_run_that_was_cut_off_in_a_phase_goes_on_as_if_it_had_not_been(
    process_group, loop_of, tmp_path: Path
) -> None:
    whole = loop_of("feds-student", EVERYTHING)
    whole.train_to(20)  # in the middle of the second phase
    whole.save(tmp_path)
    whole.train_to(IMAGES)
    expected = values(whole)
    whole.close()
    resumed = loop_of("feds-student", EVERYTHING)
    resumed.load(tmp_path)
    resumed.train_to(IMAGES)
    for name, value in values(resumed).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    resumed.close()


def test_the_channels_with_most_bits_of_a_wider_teacher_may_be_compared(process_group, loop_of) -> None:
    loop = loop_of("hyperprior", Loss(channel_entropy=0.1, widths="top-entropy"))
    distillation = loop._distillation
    bits, chosen = torch.tensor(distillation.bits), distillation.chosen
    assert set(chosen.tolist()) == set(bits.sum(dim=0).topk(M).indices.tolist())
    shares = bits[2][chosen] / bits[2][chosen].sum()
    torch.testing.assert_close(distillation.channel_weights(2), shares)
    assert loop.train_to(8)["channel_entropy"] > 0 and not list(loop._engine.learner.maps)
    loop.close()


APART = Loss(
    widths="top-entropy",
    phases=(
        Phase(share=0.5, apart=True, weights=LossWeights(latent=0.3, reconstruction=0.1)),
        Phase(share=0.5),
    ),
)


@pytest.mark.parametrize("kind", ["variable-rate", "fixed-lambda"])
@pytest.mark.parametrize("family", FAMILIES)
def test_modules_apart_train_the_transforms_alone(process_group, loop_of, family, kind) -> None:
    """No rate, and neither the hyperprior nor the quantiles move; in the joint phase everything does."""
    loop = loop_of(family, APART, kind)
    before = values(loop)
    terms = loop.train_to(20)
    assert {"distortion", "latent", "reconstruction"} <= terms.keys() and "bpp" not in terms
    expected = terms["distortion"] + 0.3 * terms["latent"] + 0.1 * terms["reconstruction"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-4)
    changed = {name for name, value in values(loop).items() if not torch.equal(value, before[name])}
    assert changed and all(".g_a." in name or ".g_s." in name for name in changed)
    after = values(loop)
    assert loop.train_to(IMAGES)["bpp"] > 0
    joined = {name for name, value in values(loop).items() if not torch.equal(value, after[name])}
    assert any(".h_s." in name for name in joined) and any(name.endswith(".quantiles") for name in joined)
    loop.close()


@pytest.mark.parametrize(("half", "own", "terms"), [("encoder", "g_a", {"latent"}), ("decoder", "g_s", {"distortion"})])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_half_apart_trains_itself_and_runs_nothing_else(
    process_group, loop_of, monkeypatch, family, half: Half, own, terms
) -> None:
    """It reads the taps that it needs, and no more."""
    loss = Loss(widths="top-entropy", phases=(Phase(apart=True, weights=LossWeights(latent=0.3)),))
    loop = loop_of(family, loss, frozen=frozenset(OTHER_PARTS[half]))
    (phase,) = loss.schedule
    assert loop._distillation.read(phase) == {{"encoder": "y", "decoder": "y_hat"}[half]}
    before = values(loop)
    (network,) = loop.ladder.networks
    other = network.g_s if half == "encoder" else network.g_a
    monkeypatch.setattr(type(other), "forward", refusing(other, type(other).forward))
    found = loop.train_to(12)
    assert found.keys() - {"loss", "skipped_steps", "first_step_at", "seconds"} == terms
    changed = {name for name, value in values(loop).items() if not torch.equal(value, before[name])}
    assert changed and all(f".{own}." in name for name in changed)
    loop.close()


def refusing(refused: torch.nn.Module, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A module's forward that is not to be called on one module of its class."""

    def guarded(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        assert self is not refused
        return forward(self, x)

    return guarded
