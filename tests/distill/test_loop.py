"""One rank's training: exact segments, the same batches after a restart, and both optimizers at work."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.catalogue import build_ladder
from models.ladder import RateLadder
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.loop import Loop, cosine
from orchestrator.evaluation.rate_distortion import curve, estimate
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.live import LiveReader
from orchestrator.photographs.crops import validation_crops
from orchestrator.photographs.photos import load_rgb
from orchestrator.photographs.survey import survey
from orchestrator.photographs.tensors import cut_tensor, to_tensor
from orchestrator.spec.loss import Loss, Phase, TeacherRatePoints
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops, Training, Validation

QUICKSTART = Path(__file__).parents[2] / "data" / "quickstart"


pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture(scope="module")
def photographs():
    return survey(QUICKSTART / "train", minimum_side=64).photographs[:4]


@pytest.fixture(scope="module")
def images():
    surveyed = survey(QUICKSTART / "validation", minimum_side=128).photographs[:2]
    chosen = validation_crops(surveyed, Validation(crops=2, size=128))
    return [cut_tensor(photograph, crop) for photograph, crop in chosen]


class Recorder:
    """A reader that remembers what it was asked for."""

    def __init__(self, photographs):
        self.inner = LiveReader(photographs, Crops(size=64), rate_points=5, batch_size=4, seed=3)
        self.steps: list[int] = []

    def batch(self, step: int) -> Batch:
        self.steps.append(step)
        return self.inner.batch(step)


def fresh_ladder() -> RateLadder:
    torch.manual_seed(0)
    return build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="variable-rate")


def loop(
    photographs, *, zero_stage=1, precision="fp32", micro=None, ema=None, stage_one_images=0, reader=None, **more
) -> Loop:
    training = {"zero_stage": zero_stage, "precision": precision, "micro_batch_size": micro, "ema": ema}
    return Loop(
        ladder=fresh_ladder(),
        training=Training(batch_size=4, ranks_per_trial=1, **training),
        reader=reader or Recorder(photographs),
        learning_rate=cosine(1e-3, 400),
        stage_one_images=stage_one_images,
        **more,
    )


def parameters(trained: Loop) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trained.ladder.named_parameters()}


def test_a_segment_ends_exactly_where_it_was_asked_to(photographs):
    reader = Recorder(photographs)
    trained = loop(photographs, reader=reader)
    terms = trained.train_to(24)
    assert trained.images_seen == 24 and reader.steps == [0, 1, 2, 3, 4, 5]
    assert terms["loss"] == pytest.approx(terms["bpp"] + terms["distortion"], rel=1e-4)
    with pytest.raises(ValueError, match="not a multiple"):
        trained.train_to(30)
    trained.close()


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(photographs, images, tmp_path):
    whole = loop(photographs)
    whole.train_to(16)
    whole.save(tmp_path)
    whole.train_to(32)
    expected, points = parameters(whole), whole.validate(images, rank=0, world=1)
    whole.close()
    reader = Recorder(photographs)
    resumed = loop(photographs, reader=reader)
    resumed.load(tmp_path)
    resumed.train_to(32)
    assert reader.steps == [4, 5, 6, 7]
    for name, value in parameters(resumed).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert resumed.validate(images, rank=0, world=1) == points
    resumed.close()


def test_neither_slices_nor_a_restart_between_them_change_a_segment(photographs, tmp_path):
    whole = loop(photographs)
    whole.train_to(8)
    terms, expected = whole.train_to(32), parameters(whole)
    whole.close()
    sliced = loop(photographs)
    sliced.train_to(8)
    sliced.advance_to(12)
    sliced.advance_to(20)
    sliced.save(tmp_path)
    sliced.close()
    resumed = loop(photographs)
    resumed.load(tmp_path)
    resumed.advance_to(32)
    resumed_terms = resumed.take_terms()
    for name, value in parameters(resumed).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    for name in ("bpp", "distortion", "loss", "skipped_steps"):
        assert resumed_terms[name] == pytest.approx(terms[name], rel=1e-6)
    resumed.close()


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_micro_batches_train_the_same_weights(photographs, zero_stage):
    results = []  # in stage 1: what is rounded may fall to either side, since the sums come in another order
    for micro in (None, 1):
        trained = loop(photographs, zero_stage=zero_stage, micro=micro, stage_one_images=24)
        results.append([trained.train_to(images)["loss"] for images in (8, 16, 24)])
        trained.close()
    assert results[1] == pytest.approx(results[0], rel=1e-5)


@pytest.mark.parametrize("micro", [None, 2])
def test_noise_that_the_reader_made_ahead_trains_the_same_weights(photographs, micro):
    class Ahead(Recorder):
        def batch(self, step: int) -> Batch:
            batch = super().batch(step)
            return replace(batch, noise=trained.noise_ahead(batch.crops, step))

    expected, trained = loop(photographs, micro=micro), loop(photographs, micro=micro, reader=Ahead(photographs))
    assert trained.train_to(16)["loss"] == expected.train_to(16)["loss"]
    for name, value in parameters(trained).items():
        assert torch.equal(value, parameters(expected)[name]), name


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_a_micro_batch_that_is_not_finite_skips_its_step_alone(photographs, zero_stage, monkeypatch):
    reader = Recorder(photographs)
    trained = loop(photographs, zero_stage=zero_stage, micro=2, reader=reader)
    trained.train_to(4)
    before, batch = parameters(trained), reader.inner.batch

    def broken(step):
        spoiled = batch(step)
        spoiled.x[0] = torch.nan
        return spoiled

    monkeypatch.setattr(reader.inner, "batch", broken)
    assert trained.train_to(8)["skipped_steps"] == 1
    assert all(torch.equal(value, before[name]) for name, value in parameters(trained).items())
    monkeypatch.setattr(reader.inner, "batch", batch)
    assert trained.train_to(12)["skipped_steps"] == 0
    assert not all(torch.equal(value, before[name]) for name, value in parameters(trained).items())
    trained.close()


def test_both_optimizers_step(photographs):
    before = {name: value.detach().clone() for name, value in fresh_ladder().named_parameters()}
    trained = loop(photographs, stage_one_images=24)
    trained.train_to(24)
    unchanged = {name for name, value in parameters(trained).items() if torch.equal(value, before[name])}
    # stage 1 rounds nothing, so there are no offsets to learn
    assert {name for name in unchanged if ".QuantABCD." not in name} == set()
    trained.close()


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_every_zero_stage_trains_the_same_weights(photographs, zero_stage):
    results = []
    for stage in (1, zero_stage):
        trained = loop(photographs, zero_stage=stage, stage_one_images=24)
        results.append([trained.train_to(images)["loss"] for images in (8, 16, 24)])
        trained.close()
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_stage_one_trains_at_the_highest_rate_point_only(photographs, monkeypatch):
    trained = loop(photographs, stage_one_images=16)
    seen = []
    forward = trained._engine.forward

    def watched(x, rate_point, stage, **rest):
        seen.append((rate_point, stage))
        return forward(x, rate_point, stage, **rest)

    monkeypatch.setattr(trained._engine, "forward", watched)
    trained.train_to(40)
    assert seen[:4] == [(4, 1)] * 4 and {stage for _, stage in seen[4:]} == {2}
    assert len({rate_point for rate_point, _ in seen[4:]}) > 1
    trained.close()


def test_validation_gives_a_row_a_rate_point_from_eight_bit_pixels(photographs, images):
    trained = loop(photographs)
    rows = trained.validate(images, rank=0, world=1)
    assert [row.lmbda for row in rows] == list(PRIM_LAMBDAS)
    ladder = trained.ladder.eval()
    with torch.inference_mode():
        psnrs = []
        for image in images:
            decoded = ladder(image[None], 4)["x_hat"].clamp(0, 1).mul(255).round()
            psnrs.append(-10 * torch.log10(((decoded - image * 255) ** 2).mean() / 255**2).item())
    assert rows[4].psnr_db == pytest.approx(sum(psnrs) / len(psnrs), abs=1e-4)
    trained.close()


def test_a_ladder_for_ms_ssim_is_trained_and_validated_by_it(photographs):
    ladder = fresh_ladder()
    ladder.distortion = "ms-ssim"
    trained = Loop(
        ladder=ladder,
        training=Training(batch_size=4, ranks_per_trial=1),
        reader=LiveReader(photographs, Crops(size=192), rate_points=5, batch_size=4, seed=3),
        learning_rate=cosine(1e-3, 400),
    )
    terms = trained.train_to(4)
    assert 0 < terms["distortion"] <= PRIM_LAMBDAS[-1]  # lambda * (1 - MS-SSIM); 255^2 * MSE would be thousands
    rgbs = [load_rgb(photograph)[:192, :192] for photograph in photographs[:2]]
    row = trained.validate([to_tensor(rgb) for rgb in rgbs], rank=0, world=1)[4]
    measured = curve(estimate(ladder, [(str(index), rgb) for index, rgb in enumerate(rgbs)], [4]))[0]
    for name in ("bpp", "psnr_db", "ms_ssim", "ms_ssim_db"):
        assert getattr(row, name) == pytest.approx(getattr(measured, name), rel=1e-4), name
    trained.close()


def test_validation_is_of_the_averaged_weights(photographs, images):
    """Which are what is exported; the raw ones have another curve, and are trained on afterwards."""
    trained = loop(photographs, ema=0.99)
    trained.train_to(24)
    raw, points = parameters(trained), trained.validate(images, rank=0, world=1)
    for name, value in parameters(trained).items():
        torch.testing.assert_close(value, raw[name], rtol=0, atol=0)
    with trained.weights():
        exported = parameters(trained)
    curves = {}
    for which, values in (("raw", raw), ("exported", exported)):
        plain = loop(photographs)
        with torch.no_grad():
            for name, parameter in plain.ladder.named_parameters():
                parameter.copy_(values[name])
        curves[which] = plain.validate(images, rank=0, world=1)
        plain.close()
    assert points == curves["exported"] != curves["raw"]
    trained.close()


def test_the_terms_so_far_are_the_means_of_the_segment(photographs):
    whole, sliced = loop(photographs), loop(photographs)
    terms = whole.train_to(12)
    sliced.advance_to(8)
    assert sliced.means()["loss"] != pytest.approx(terms["loss"])
    sliced.advance_to(12)
    assert sliced.means() == pytest.approx({name: terms[name] for name in sliced.means()})
    sliced.take_terms()
    assert sliced.means() == {}
    whole.close()
    sliced.close()


def test_a_phase_has_its_factor_of_the_learning_rate(photographs, monkeypatch):
    phases = (Phase(share=0.5, learning_rate=0.1), Phase(share=0.5, learning_rate=3.0))
    trained = loop(photographs, distillation=Distillation(loss=Loss(phases=phases), images=16))
    step, rates = trained._engine.step, []

    def watched(loss, learning_rate, **rest):
        rates.append(learning_rate)
        return step(loss, learning_rate, **rest)

    monkeypatch.setattr(trained._engine, "step", watched)
    trained.train_to(16)
    plain = cosine(1e-3, 400)
    factors = {0: 0.1, 4: 0.1, 8: 3.0, 12: 3.0}
    assert rates == pytest.approx([factor * plain(images) for images, factor in factors.items()])
    trained.close()


def test_a_target_has_the_gain_of_its_own_rate_point():
    loss = Loss(latent=0.1, latent_kl=0.1, teacher_rate_point=TeacherRatePoints(latent=1, latent_kl="same"))
    of = Distillation(loss=loss, gains=(0.25, 0.5, 1.0))
    assert [of.gain("latent", rate_point) for rate_point in range(3)] == [0.5, 0.5, 0.5]
    assert [of.gain("latent_kl", rate_point) for rate_point in range(3)] == [0.25, 0.5, 1.0]


def test_the_learning_rate_falls_to_a_hundredth():
    at = cosine(1e-3, 1000)
    assert [at(0), at(500), at(1000), at(2000)] == pytest.approx([1e-3, 0.505e-3, 1e-5, 1e-5])


def test_the_learning_rate_rises_to_its_curve():
    plain, warm = cosine(1e-3, 1000), cosine(1e-3, 1000, warmup_images=99)
    assert warm(0) == pytest.approx(1e-5)
    assert warm(49) == pytest.approx(plain(49) / 2)
    assert [warm(images) for images in (99, 500, 1000)] == [plain(images) for images in (99, 500, 1000)]
    assert [cosine(1e-3, 1000, 0)(images) for images in (0, 8)] == [plain(0), plain(8)]
