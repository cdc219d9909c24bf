"""Rate ladders: what each rate point does, and that a decoder gets what the encoder's forward promised."""

import numpy as np
import pytest
import torch

from models.families import Kind
from models.ladder import BUILDERS, RateLadder
from models.weights import digest, load_ladder, save_ladder

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


NOT_THERE = [
    *(("variable-rate", value) for value in (5, -1, np.int64(5), 0.0, -1.0, np.nan, np.inf, True, None, "1")),
    *(("fixed-lambda", value) for value in (0.5, -1, np.int64(-1), 5, 1.0, True, None)),
]


@pytest.mark.parametrize(("kind", "rate_point"), NOT_THERE)
def test_a_rate_point_that_is_not_there_is_refused(kind, rate_point):
    with pytest.raises(ValueError, match=r"^(rate point|gain) .*$"):
        ladder(kind=kind)(torch.rand(1, 3, 64, 64), rate_point)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_point_of_numpy_is_the_same(kind):
    coder, x = ladder(kind=kind), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for rate_point in np.arange(5):
            assert torch.equal(coder(x, rate_point)["x_hat"], coder(x, int(rate_point))["x_hat"])


def test_a_ladder_of_numpy_s_numbers_is_saved_as_one_of_python_s(tmp_path):
    widths = np.array([8, 12, 5])
    torch.manual_seed(0)
    save_ladder(
        tmp_path / "numpy.safetensors",
        RateLadder(family="hyperprior", N=widths[0], M=widths[1], Z=widths[2], lambdas=np.array(LAMBDAS)),
    )
    torch.manual_seed(0)
    save_ladder(tmp_path / "python.safetensors", RateLadder(family="hyperprior", N=8, M=12, Z=5, lambdas=LAMBDAS))
    assert digest(tmp_path / "numpy.safetensors") == digest(tmp_path / "python.safetensors")
    with pytest.raises(ValueError, match=r"N 8\.0 is not a whole number"):
        RateLadder(family="hyperprior", N=8.0, M=12, lambdas=LAMBDAS)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_transforms_train_alike_and_show_what_is_inside(kind: Kind):
    """By torch.compile's tracer alone: what a compiler makes of it is torch's business, and takes a minute."""
    coder, x = ladder("mean-scale", kind).train(), torch.rand(1, 3, 64, 64)
    names = list(coder.state_dict())

    def gradients(*taps: str) -> tuple[list[str], dict[str, torch.Tensor]]:
        torch.manual_seed(1)  # of the quantisation noise
        coder.zero_grad(set_to_none=True)
        output = coder(x, 4, taps=taps)
        output["x_hat"].square().sum().backward()
        found = {name: parameter.grad for name, parameter in coder.named_parameters() if parameter.grad is not None}
        return [tap for tap in taps if tap in output], found

    _, eager = gradients()
    coder.compile_transforms("eager")
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for taps in ((), ("g_a.3:spatial", "y_hat"), ()):  # inner taps after a call without them
        seen, compiled = gradients(*taps)
        assert seen == [*taps] and compiled.keys() == eager.keys()
        for name, gradient in compiled.items():
            torch.testing.assert_close(gradient, eager[name])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 2  # g_a and g_s, once each
    assert list(coder.state_dict()) == names


def test_every_parameter_gets_a_gradient_over_both_stages():
    coder = ladder().train()
    x = torch.rand(1, 3, 64, 64)
    for stage in (1, 2):
        output = coder(x, 4, stage)
        (output["x_hat"].square().sum() + sum(value.log().sum() for value in output["likelihoods"].values())).backward()
    assert not [name for name, parameter in coder.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_apart_from_its_own_latent_a_network_decodes_what_it_would_have(family, kind):
    """The tap y_hat is what g_s reads: offsets, means and gain are in it."""
    torch.manual_seed(0)
    coder, x = RateLadder(family=family, N=8, M=12, lambdas=LAMBDAS, kind=kind).eval(), torch.rand(2, 3, 64, 128)
    with torch.inference_mode():
        for rate_point in (0, 4):
            coded = coder(x, rate_point, taps=("y", "y_hat"))
            apart = coder.apart(x, coded["y_hat"], rate_point)
            assert apart.keys() == {"y", "x_hat"}
            torch.testing.assert_close(apart["x_hat"], coded["x_hat"])
            torch.testing.assert_close(apart["y"], coded["y"])


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_encoder_and_decoder_may_have_other_widths(family, tmp_path):
    torch.manual_seed(0)
    coder = RateLadder(family=family, N=8, M=12, encoder_N=16, lambdas=LAMBDAS)
    same = RateLadder(family=family, N=16, M=12, Z=8, lambdas=LAMBDAS)
    narrow = RateLadder(family=family, N=8, M=12, lambdas=LAMBDAS)

    def sizes(of: RateLadder, part: str) -> list[torch.Size]:
        return [value.shape for name, value in of.named_parameters() if f".{part}." in name]

    assert sizes(coder, "g_a") == sizes(same, "g_a") and sizes(coder, "g_s") == sizes(narrow, "g_s")
    path = tmp_path / "weights.safetensors"
    save_ladder(path, coder)
    loaded, x = load_ladder(path), torch.rand(1, 3, 64, 64)
    assert (loaded.N, loaded.encoder_N) == (8, 16)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x, 1)["x_hat"], coder.eval()(x, 1)["x_hat"])
