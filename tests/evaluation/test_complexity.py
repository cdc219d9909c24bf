"""Counted costs against the layers' closed forms (Ballé et al. 2018, Minnen et al. 2018)."""

import pytest

from orchestrator.evaluation.complexity import complexity


def transforms(N: int, M: int) -> tuple[float, float]:
    """g_a and g_s, MACs a pixel: four 5x5 convolutions of stride 2 with GDN (1x1) between them."""
    g_a = 3 * N * 25 / 4 + N * N / 4 + (N * N * 25 + N * N) / 16 + (N * N * 25 + N * N) / 64 + N * M * 25 / 256
    g_s = M * N * 25 / 256 + N * N / 64 + N * N * 25 / 64 + N * N / 16 + N * N * 25 / 16 + N * N / 4 + N * 3 * 25 / 4
    return g_a, g_s


def test_hyperprior():
    N, M = 8, 12
    g_a, g_s = transforms(N, M)
    h_a = M * N * 9 / 256 + N * N * 25 / 1024 + N * N * 25 / 4096
    h_s = N * N * 25 / 4096 + N * N * 25 / 1024 + N * M * 9 / 256
    found = complexity(family="hyperprior", N=N, M=M, lambdas=(0.01, 0.02), kind="variable-rate")
    assert found.encoder_macs_per_pixel == pytest.approx(g_a + h_a + h_s)
    assert found.decoder_macs_per_pixel == pytest.approx(h_s + g_s)
    assert found.macs_per_pixel == pytest.approx(g_a + h_a + h_s + g_s)


def test_mean_scale_has_a_wider_hyper_synthesis():
    N, M = 8, 12
    g_a, g_s = transforms(N, M)
    h_a = M * N * 9 / 256 + N * N * 25 / 1024 + N * N * 25 / 4096
    h_s = N * M * 25 / 4096 + M * (M * 3 // 2) * 25 / 1024 + (M * 3 // 2) * (M * 2) * 9 / 256
    found = complexity(family="mean-scale", N=N, M=M, lambdas=(0.01, 0.02), kind="fixed-lambda")
    assert found.macs_per_pixel == pytest.approx(g_a + h_a + h_s + g_s)


def test_parameters_are_those_of_the_whole_ladder():
    from compressai.models import ScaleHyperprior

    one = sum(parameter.numel() for parameter in ScaleHyperprior(8, 12).parameters())
    found = complexity(family="hyperprior", N=8, M=12, lambdas=(0.01, 0.02, 0.03), kind="fixed-lambda")
    assert found.params == 3 * one
    published = complexity(family="hyperprior", N=128, M=192, lambdas=(0.01,), kind="fixed-lambda")
    assert published.params == 5_075_843
