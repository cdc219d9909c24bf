"""Rate ladders: what each rate point does, and that a decoder gets what the encoder's forward promised."""

import pytest
import torch

from models.families import Kind
from models.ladder import RateLadder

LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)
KINDS = ("variable-rate", "fixed-lambda")
FAMILIES = ("hyperprior", "mean-scale")


def ladder(family: str = "hyperprior", kind: Kind = "variable-rate") -> RateLadder:
    torch.manual_seed(0)
    built = RateLadder(family=family, N=8, M=12, lambdas=LAMBDAS, kind=kind).eval()
    with torch.no_grad():  # fresh weights round nearly every latent to 0: make them matter
        for network in built.networks:
            network.g_a[6].weight.mul_(200)
    built.update()
    return built


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_gets_what_forward_promised_at_every_rate_point(family, kind):
    coder, x = ladder(family, kind), torch.rand(2, 3, 64, 128)
    with torch.inference_mode():
        for rate_point in range(len(LAMBDAS)):
            promised = coder(x, rate_point)
            stream = coder.compress(x, rate_point)
            decoded = coder.decompress(stream["strings"], stream["shape"], rate_point)["x_hat"]
            torch.testing.assert_close(decoded, promised["x_hat"].clamp(0, 1), atol=1e-6, rtol=0)


def test_a_coarser_gain_spends_fewer_bits():
    coder, x = ladder(), torch.rand(1, 3, 128, 128)
    sizes = []
    with torch.inference_mode():
        for rate_point in range(len(LAMBDAS)):
            y_strings, _ = coder.compress(x, rate_point)["strings"]
            sizes.append(len(y_strings[0]))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_gains_go_with_the_square_root_of_lambda_and_end_at_one():
    gains = ladder().gains
    assert gains[-1] == 1.0
    for gain, lmbda in zip(gains, LAMBDAS, strict=True):
        assert gain**2 == pytest.approx(lmbda / LAMBDAS[-1], rel=1e-6)


def test_a_rate_point_s_own_gain_given_as_a_float_is_that_rate_point():
    coder, x = ladder(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(coder(x, coder.gains[1])["x_hat"], coder(x, 1)["x_hat"])
        assert not torch.equal(coder(x, 0.9)["x_hat"], coder(x, 1)["x_hat"])


@pytest.mark.parametrize(("kind", "rate_point"), [("variable-rate", 5), ("variable-rate", -1), ("fixed-lambda", 0.5)])
def test_a_rate_point_that_is_not_there_is_refused(kind, rate_point):
    with pytest.raises(ValueError, match="rate"):
        ladder(kind=kind)(torch.rand(1, 3, 64, 64), rate_point)


def test_y_is_the_unquantised_latent_whatever_the_rate_point():
    coder, x = ladder(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = coder.networks[0].g_a(x)
        for rate_point in (0, 4):
            torch.testing.assert_close(coder(x, rate_point)["y"], expected, rtol=0, atol=0)


def test_bf16_ends_at_the_transforms():
    coder, x = ladder(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        full = coder(x, 4)
        coder.set_precision(torch.bfloat16)
        half = coder(x, 4)
    assert {half["y"].dtype, half["x_hat"].dtype, half["likelihoods"]["y"].dtype} == {torch.float32}
    assert not torch.equal(half["y"], full["y"])  # it did compute in bf16
    torch.testing.assert_close(half["y"], full["y"], rtol=0.05, atol=0.05 * float(full["y"].abs().max()))


def test_every_parameter_gets_a_gradient_over_both_stages():
    coder = ladder().train()
    x = torch.rand(1, 3, 64, 64)
    for stage in (1, 2):
        output = coder(x, 4, stage)
        (output["x_hat"].square().sum() + sum(value.log().sum() for value in output["likelihoods"].values())).backward()
    assert not [name for name, parameter in coder.named_parameters() if parameter.grad is None]
