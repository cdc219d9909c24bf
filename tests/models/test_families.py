"""What drivers and losses rely on in every family: shapes at the stages, gains, training's quantisers, widths of z."""

from typing import get_args

import pytest
import torch
from compressai.entropy_models import EntropyModel
from compressai.models import MeanScaleHyperprior, ScaleHyperprior
from compressai.models.vbr import MeanScaleHyperpriorVbr, ScaleHyperpriorVbr

from models.catalogue import REFERENCE, SHIPPED, listing, reference_ladder
from models.families import FAMILIES, Kind, Stage
from models.feds import group_sizes
from models.grouped_hyperprior import ChannelGroups
from models.ladder import BUILDERS, RateLadder
from models.swin import SwinPair

LAMBDAS = (0.0018, 0.0067, 0.025)
OWN = ("feds-teacher", "feds-student", "transformer")
COMPRESSAI = {
    ("hyperprior", "fixed-lambda"): ScaleHyperprior,
    ("mean-scale", "fixed-lambda"): MeanScaleHyperprior,
    ("hyperprior", "variable-rate"): ScaleHyperpriorVbr,
    ("mean-scale", "variable-rate"): MeanScaleHyperpriorVbr,
}


def ladder(family: str, kind: Kind = "variable-rate", Z: int | None = 12) -> RateLadder:
    torch.manual_seed(0)
    return RateLadder(family=family, N=16, M=20, Z=Z, lambdas=LAMBDAS, kind=kind).eval()


def test_the_table_of_families_is_that_of_the_networks():
    assert FAMILIES.keys() == BUILDERS.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_has_the_stride_of_its_name_and_n_channels(family):
    taps = {stage: f"{FAMILIES[family].stages[stage]}:raw" for stage in get_args(Stage)}
    with torch.inference_mode():
        output = ladder(family)(torch.rand(2, 3, 64, 128), 1, taps=("z", *taps.values()))
    for stage, tap in taps.items():
        stride = int(stage.rpartition("-")[2])
        assert output[tap].shape == (2, 16, 64 // stride, 128 // stride), stage
    assert output["y"].shape == output["likelihoods"]["y"].shape == (2, 20, 4, 8)
    assert output["z"].shape == output["likelihoods"]["z"].shape == (2, 12, 1, 2)
    assert output["x_hat"].shape == (2, 3, 64, 128)


def test_swin_blocks_begin_as_the_identity():
    x = torch.rand(1, 64, 8, 8)
    assert torch.equal(SwinPair(64, window=4)(x), x)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hyper_latent_without_a_width_of_its_own_has_n_channels(family):
    assert ladder(family, Z=None).Z == ladder(family, Z=None).networks[0].entropy_bottleneck.channels == 16
    with torch.inference_mode():
        assert ladder(family, Z=40)(torch.rand(1, 3, 64, 64), 0, taps=("z",))["z"].shape == (1, 40, 1, 1)


@pytest.mark.parametrize(("family", "kind"), COMPRESSAI)
def test_without_a_width_of_its_own_networks_start_as_compressai_s(family, kind):
    ours = ladder(family, kind, Z=None).networks[0]
    torch.manual_seed(0)
    theirs = dict(COMPRESSAI[family, kind](16, 20).named_parameters())
    theirs.pop("Gain", None)  # a parameter there; here it follows from the lambdas
    assert [name for name, _ in ours.named_parameters()] == list(theirs)
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0)


@pytest.mark.parametrize("family", OWN)
def test_the_gain_is_the_inverse_step_of_the_latent(family):
    coder, x = ladder(family), torch.rand(1, 3, 64, 64)
    seen = []
    coder.networks[0].g_s.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        for rate_point, gain in enumerate(coder.gains):
            y = coder(x, rate_point)["y"]
            error = (seen.pop() - y).abs() * gain
            assert 0.25 * min(1, float((y * gain).abs().max())) <= float(error.max()) <= 0.5 + 1e-4


@pytest.mark.parametrize("family", OWN)
def test_stage_one_trains_at_gain_one(family):
    coder, x = ladder(family), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for parameter in coder.networks[0].g_a[-1].parameters():
            parameter.mul_(100)  # a latent that is not all zeros when it is rounded
        one, highest = coder(x, 0, stage=1), coder(x, 2, stage=2)
        torch.testing.assert_close(one["x_hat"], highest["x_hat"], rtol=0, atol=0)
        assert not torch.equal(coder(x, 0)["likelihoods"]["y"], one["likelihoods"]["y"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_but_the_quantiles_learns(family):
    coder = ladder(family).train()
    output = coder(torch.rand(2, 3, 64, 64), 2)
    (output["x_hat"].square().sum() + sum(value.log().sum() for value in output["likelihoods"].values())).backward()
    assert not [name for name, value in coder.named_parameters() if value.grad is None and "quantiles" not in name]
    coder.aux_loss(0).backward()
    (quantiles,) = coder.quantiles()
    assert quantiles.grad is not None and float(quantiles.grad.abs().sum()) > 0


@pytest.mark.parametrize("family", OWN)
def test_noise_reaches_the_likelihoods_alone(family):
    """What g_s and the groups' networks get is rounded; a quantiser that is replaced on the instances is used."""
    coder, x = ladder(family).train(), torch.rand(1, 3, 64, 64)
    modes = []

    def silent(inputs, mode, means=None):
        modes.append(mode)
        return inputs

    outputs = []
    for replaced in (False, True):
        for module in coder.modules():
            if replaced and isinstance(module, EntropyModel):
                module.quantize = silent
        outputs.append(coder(x, 1))
    noisy, without = outputs
    assert modes == ["noise", "noise"]
    torch.testing.assert_close(noisy["x_hat"], without["x_hat"], rtol=0, atol=0)
    assert not torch.equal(noisy["likelihoods"]["y"], without["likelihoods"]["y"])
    with torch.inference_mode():
        torch.testing.assert_close(coder.eval()(x, 1)["x_hat"], noisy["x_hat"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_ends_at_the_transforms(family):
    coder, x = ladder(family), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        full = coder(x, 2)
        coder.set_precision(torch.bfloat16)
        half = coder(x, 2)
    assert {half["y"].dtype, half["x_hat"].dtype, half["likelihoods"]["z"].dtype} == {torch.float32}
    assert not torch.equal(half["y"], full["y"])
    torch.testing.assert_close(half["y"], full["y"], rtol=0.05, atol=0.05 * float(full["y"].abs().max()))


def test_a_group_is_predicted_from_those_before_it_and_no_other():
    torch.manual_seed(0)
    groups, hyper, y_hat = ChannelGroups((2, 3, 5)), torch.rand(1, 20, 4, 4), torch.rand(1, 10, 4, 4)
    scales, means = groups(hyper, y_hat)
    for first, channels in ((0, slice(0, 2)), (2, slice(2, 5)), (5, slice(5, 10))):
        changed = y_hat.clone()
        changed[:, channels] += 1
        for before, after in zip((scales, means), groups(hyper, changed), strict=True):
            same = [torch.equal(before[:, c], after[:, c]) for c in range(10)]
            end = channels.stop
            assert all(same[:end]) and not any(same[end:]), first


@pytest.mark.parametrize(("M", "sizes"), [(320, (16, 16, 32, 64, 192)), (192, (9, 9, 19, 38, 117)), (5, (1,) * 5)])
def test_sizes_of_the_groups(M, sizes):
    assert group_sizes(M) == sizes


def test_feds_sizes_are_as_stated():
    """Below SwinT-ChARM's 32.4 M parameters (the MACs: tests/evaluation); the student at least 63 % smaller."""
    teacher, student = (
        sum(parameter.numel() for parameter in reference_ladder(name).parameters())
        for name in ("feds-teacher", "feds-student")
    )
    assert 15e6 < teacher < 30e6
    assert student <= (1 - 0.63) * teacher


def test_the_listing_has_the_shipped_and_the_papers_networks():
    lines = {line.split()[0]: line.split() for line in listing()}
    assert lines.keys() >= {"name", *REFERENCE, *(path.stem for path in SHIPPED.glob("*.safetensors"))}
    assert lines["prim-teacher"][1:6] == ["hyperprior", "128", "192", "128", "5,075,843"]
