"""A refitted start: the teacher itself at its own width, better than a slice at a narrower one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from models.families import FAMILIES
from models.ladder import RateLadder
from models.weights import slice_from
from orchestrator.distill.refit.channels import least_redundant
from orchestrator.distill.refit.refit import LayerFit, RefitReport, refit
from orchestrator.spec.sections import PRIM_LAMBDAS, Criterion, Refit

LAYERED = ("hyperprior", "mean-scale")
CRITERIA: tuple[Criterion, ...] = ("activation", "sensitivity", "redundancy")


def ladder(N: int, family: str = "hyperprior", seed: int = 0) -> RateLadder:
    torch.manual_seed(seed)
    return RateLadder(family=family, N=N, M=12, Z=10, lambdas=PRIM_LAMBDAS)


def crops(count: int = 20) -> list[tuple[Tensor, int]]:
    """Smooth pictures: sums of waves, with their rate points in turn."""
    torch.manual_seed(3)
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
    found = []
    for index in range(count):
        waves = [torch.sin((grid * torch.randn(2, 1, 1) / 8).sum(dim=0) + torch.rand(1) * 6) for _ in range(9)]
        picture = torch.stack(waves).view(3, 3, 64, 64).mean(dim=0) / 2 + 0.5
        found.append((picture, index % len(PRIM_LAMBDAS)))
    return found


def error(student: RateLadder, teacher: RateLadder) -> float:
    """The mean square difference of the decoded pictures."""
    student.eval(), teacher.eval()
    with torch.no_grad():
        pairs = [(student(x[None], rate)["x_hat"], teacher(x[None], rate)["x_hat"]) for x, rate in crops(10)]
    return sum(float((own - other).square().mean()) for own, other in pairs) / len(pairs)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_at_an_unchanged_width_it_is_the_teacher(family: str) -> None:
    """Within 1e-4 of its outputs, for every family."""
    if family == "transformer":
        teacher, student = ladder(16, family), ladder(16, family, seed=1)
    else:
        teacher, student = ladder(8, family), ladder(8, family, seed=1)
    report = refit(student, teacher, crops(), Refit())
    assert all(layer.relative_error < 1e-4 for layer in report.layers)
    for (name, own), other in zip(student.named_parameters(), teacher.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("family", LAYERED)
def test_a_dead_channel_can_be_dropped(family: str, criterion: Criterion) -> None:
    """One of each hidden layer gives nothing to the next: without it the network is the same."""
    teacher = ladder(8, family)
    (network,) = teacher.networks
    dead = 2  # a leading channel, which a slice would keep
    with torch.no_grad():
        for transform in (network.g_a, network.g_s):
            convolutions = list(transform)[::2]
            for layer, reader in itertools.pairwise(convolutions):
                of_output = layer.weight[:, dead] if transform is network.g_s else layer.weight[dead]
                of_output.zero_()
                layer.bias[dead] = 0
                of_input = reader.weight[dead] if transform is network.g_s else reader.weight[:, dead]
                of_input.zero_()
    student = ladder(7, family, seed=1)
    refit(student, teacher, crops(), Refit(criterion=criterion))
    sliced = ladder(7, family, seed=1)
    slice_from(sliced, teacher)
    assert error(student, teacher) < 1e-9 < error(sliced, teacher)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_it_is_far_nearer_to_the_teacher_than_a_slice(criterion: Criterion) -> None:
    teacher, student, sliced = ladder(12), ladder(6, seed=1), ladder(6, seed=1)
    report = refit(student, teacher, crops(40), Refit(criterion=criterion))
    slice_from(sliced, teacher)
    assert error(student, teacher) < error(sliced, teacher) / 4
    assert [layer.path for layer in report.layers] == [f"0.{part}.{i}" for part in ("g_a", "g_s") for i in (0, 2, 4, 6)]
    assert report.sliced == ()


def test_it_is_the_same_every_time() -> None:
    teacher, first, second = ladder(12), ladder(6, seed=1), ladder(6, seed=1)
    for student in (first, second):
        refit(student, teacher, crops(), Refit())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_what_has_no_counterpart_is_named() -> None:
    """A student of blocks from a teacher of others: its first layers and the last ones are refitted."""
    teacher, student = ladder(8, "feds-teacher"), ladder(8, "feds-student", seed=1)
    report = refit(student, teacher, crops(), Refit())
    assert [layer.path for layer in report.layers] == ["0.g_a.0.0", "0.g_a.3.0", "0.g_s.3.0"]
    assert "0.g_a.1.0" in report.sliced and "0.g_s.0.0" in report.sliced
    assert "not refitted: 0.g_a.1.0" in report.in_words


def test_of_two_channels_that_say_the_same_one_goes() -> None:
    """Where a score of each by itself would keep both."""
    torch.manual_seed(4)
    rows = torch.randn(500, 4, dtype=torch.float64)
    rows[:, 1] = 10 * rows[:, 0] + 1e-3 * torch.randn(500)  # the strongest two are one
    rows[:, 0] *= 10
    gram = torch.cat((rows, torch.ones(500, 1)), dim=1)
    gram = gram.T @ gram
    weights = torch.ones(5, 1)
    kept = least_redundant(gram, weights, torch.ones(1), channels=4, keep=3)
    assert len(kept) == 3 and {2, 3} <= set(kept)


def fixed(N: int) -> RateLadder:
    """A network for each of two lambdas."""
    torch.manual_seed(N)
    return RateLadder(family="hyperprior", N=N, M=12, Z=10, lambdas=PRIM_LAMBDAS[:2], kind="fixed-lambda")


def test_a_ladder_of_one_network_per_lambda_is_refitted_network_by_network() -> None:
    teacher, student, sliced = fixed(8), fixed(6), fixed(6)
    of_two = [(x, rate_point % 2) for x, rate_point in crops()]
    report = refit(student, teacher, of_two, Refit())
    assert {layer.path.partition(".")[0] for layer in report.layers} == {"0", "1"}
    slice_from(sliced, teacher)
    student.eval(), sliced.eval(), teacher.eval()
    for x, rate_point in of_two[:4]:
        with torch.no_grad():
            own, cut, other = (of(x[None], rate_point)["x_hat"] for of in (student, sliced, teacher))
        assert (own - other).square().mean() < (cut - other).square().mean()


def test_every_network_of_one_lambda_is_fitted_to_all_crops() -> None:
    def refitted(rate_points: int) -> RateLadder:
        student = fixed(6)
        refit(student, fixed(8), [(x, at % rate_points) for x, at in crops()], Refit())
        return student

    for one, other in zip(refitted(1).parameters(), refitted(2).parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_of_several_networks_the_largest_error_is_told() -> None:
    errors = {"0.g_a.0": 0.5, "0.g_a.1": 0.02, "1.g_a.0": 0.5, "1.g_a.1": 0.01, "0.g_s.1": 0.03, "1.g_s.1": 0.04}
    layers = tuple(LayerFit(path=path, relative_error=value) for path, value in errors.items())
    words = RefitReport(layers=layers, sliced=()).in_words
    assert words == "g_a is off by 2.0 % of its variance, g_s is off by 4.0 % of its variance"
