"""Counted costs against the layers' closed forms (Ballé et al. 2018, Minnen et al. 2018)."""

import pytest

from orchestrator.evaluation.complexity import complexity


def transforms(N: int, M: int) -> tuple[float, float]:
    """g_a and g_s, MACs a pixel: four 5x5 convolutions of stride 2 with GDN (1x1) between them."""
    g_a = 3 * N * 25 / 4 + N * N / 4 + (N * N * 25 + N * N) / 16 + (N * N * 25 + N * N) / 64 + N * M * 25 / 256
    g_s = M * N * 25 / 256 + N * N / 64 + N * N * 25 / 64 + N * N / 16 + N * N * 25 / 16 + N * N / 4 + N * 3 * 25 / 4
    return g_a, g_s


def test_macs_of_a_hyperprior():
    N, M = 8, 12
    g_a, g_s = transforms(N, M)
    h_a = M * N * 9 / 256 + N * N * 25 / 1024 + N * N * 25 / 4096
    h_s = N * N * 25 / 4096 + N * N * 25 / 1024 + N * M * 9 / 256
    costs = complexity(family="hyperprior", N=N, M=M, lambdas=(0.01, 0.02), kind="variable-rate")
    assert costs.encoder_macs_per_pixel == pytest.approx(g_a + h_a + h_s)
    assert costs.decoder_macs_per_pixel == pytest.approx(h_s + g_s)
    assert costs.macs_per_pixel == pytest.approx(g_a + h_a + h_s + g_s)


def test_mean_scale_has_a_wider_hyper_synthesis():
    N, M = 8, 12
    g_a, g_s = transforms(N, M)
    h_a = M * N * 9 / 256 + N * N * 25 / 1024 + N * N * 25 / 4096
    h_s = N * M * 25 / 4096 + M * (M * 3 // 2) * 25 / 1024 + (M * 3 // 2) * (M * 2) * 9 / 256
    costs = complexity(family="mean-scale", N=N, M=M, lambdas=(0.01, 0.02), kind="fixed-lambda")
    assert costs.macs_per_pixel == pytest.approx(g_a + h_a + h_s + g_s)


def test_parameters_are_those_of_the_whole_ladder():
    from compressai.models import ScaleHyperprior

    one = sum(parameter.numel() for parameter in ScaleHyperprior(8, 12).parameters())
    costs = complexity(family="hyperprior", N=8, M=12, lambdas=(0.01, 0.02, 0.03), kind="fixed-lambda")
    assert costs.params == 3 * one
    published = complexity(family="hyperprior", N=128, M=192, lambdas=(0.01,), kind="fixed-lambda")
    assert published.params == 5_075_843


def test_macs_of_a_large_hyperprior_are_the_published_ones():
    costs = complexity(family="hyperprior", N=128, M=192, lambdas=(0.01,), kind="fixed-lambda")
    # PRIM, table FLOPs: 34.24 G multiply-adds a frame of 768x512.
    assert costs.macs_per_pixel * 768 * 512 / 1e9 == pytest.approx(34.24, abs=0.02)


def test_a_wider_hyper_latent_is_counted():
    N, M, Z = 8, 12, 20
    g_a, g_s = transforms(N, M)
    h_a = M * Z * 9 / 256 + Z * Z * 25 / 1024 + Z * Z * 25 / 4096
    h_s = Z * Z * 25 / 4096 + Z * Z * 25 / 1024 + Z * M * 9 / 256
    costs = complexity(family="hyperprior", N=N, M=M, Z=Z, lambdas=(0.01,), kind="variable-rate")
    assert costs.macs_per_pixel == pytest.approx(g_a + h_a + h_s + g_s)


def hyper_pair(M: int, Z: int) -> float:
    h_a = M * Z * 9 / 256 + Z * Z * 25 / 1024 + Z * Z * 25 / 4096
    return h_a + Z * Z * 25 / 4096 + Z * M * 25 / 1024 + M * 2 * M * 9 / 256


def swin_pair(C: int, window: int, stride: int) -> float:
    """Two blocks, a pixel: q, k, v and their projection, an MLP of ratio 2, all pairs of positions in a window."""
    heads = max(1, C // 32)
    bias = (2 * window - 1) ** 2 * (2 * 512 + 512 * heads) / 256**2  # Swin-V2's, of the weights alone; pictures of 256
    return 2 * ((8 * C * C + 2 * C * window**2) / stride**2 + bias)


def test_attention_and_the_groups_networks_are_counted():
    N, M = 32, 40
    sizes, hidden = (2, 2, 4, 8, 24), 20
    groups = sum(
        ((2 * M + sum(sizes[:index])) * hidden * 9 + hidden * hidden * 9 + hidden * 2 * size) / 256
        for index, size in enumerate(sizes)
    )
    down = 9 * N * N + N * N  # 3x3 and GDN
    g_a = (3 * N * 25 + N * N) / 4 + down / 16 + down / 64 + swin_pair(N, 8, 8) + N * M * 9 / 256
    g_s = M * N * 25 / 256 + N * N / 64 + swin_pair(N, 8, 8) + N * N * 25 / 64 + N * N / 16
    g_s += N * N * 25 / 16 + N * N / 4 + N * 3 * 25 / 4
    costs = complexity(family="feds-student", N=N, M=M, lambdas=(0.01,), kind="variable-rate")
    assert costs.macs_per_pixel == pytest.approx(g_a + g_s + hyper_pair(M, N) + groups)
    assert costs.encoder_macs_per_pixel == pytest.approx(costs.macs_per_pixel - g_s)


def test_macs_of_a_transformer():
    N, M = 32, 40
    pairs = sum(swin_pair(N, 8, stride) for stride in (2, 4, 8))
    g_a = 3 * N * 4 / 4 + N * N * 4 / 16 + N * N * 4 / 64 + N * M * 4 / 256 + pairs
    g_s = M * N * 4 / 256 + N * N * 4 / 64 + N * N * 4 / 16 + N * 12 * 9 / 4 + pairs
    costs = complexity(family="transformer", N=N, M=M, lambdas=(0.01,), kind="variable-rate")
    assert costs.macs_per_pixel == pytest.approx(g_a + g_s + hyper_pair(M, N))


def test_the_feds_teacher_costs_less_than_swint_charm():
    """Zhu et al. 2022: 110 GMAC to encode 768x512 and 110 to decode, about 280 kMAC a pixel each way."""
    costs = complexity(family="feds-teacher", N=192, M=320, lambdas=(0.01,), kind="variable-rate")
    assert max(costs.encoder_macs_per_pixel, costs.decoder_macs_per_pixel) < 0.8 * 110e9 / (768 * 512)


def test_milliseconds_are_measured_where_asked_for_and_follow_the_width():
    small, large = (
        complexity(family="hyperprior", N=N, M=32, lambdas=(0.01, 0.02), kind="variable-rate", timed=True)
        for N in (8, 96)
    )
    assert small.encode_ms_per_megapixel and small.decode_ms_per_megapixel
    assert large.encode_ms_per_megapixel and large.decode_ms_per_megapixel
    assert small.encode_ms_per_megapixel < large.encode_ms_per_megapixel
    assert small.decode_ms_per_megapixel < large.decode_ms_per_megapixel
    untimed = complexity(family="hyperprior", N=8, M=32, lambdas=(0.01, 0.02), kind="variable-rate")
    assert untimed.encode_ms_per_megapixel is None and untimed.decode_ms_per_megapixel is None
    assert small.macs_per_pixel == untimed.macs_per_pixel


def test_channel_groups_are_timed_too():
    costs = complexity(family="feds-student", N=16, M=40, lambdas=(0.01, 0.02), kind="variable-rate", timed=True)
    assert costs.encode_ms_per_megapixel and costs.decode_ms_per_megapixel
