"""Weights that do not fit the specification are named before any work starts."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.ladder import RateLadder
from models.weights import WeightsError, load_ladder, save_ladder
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.networks import check_networks, with_inherited, with_zoo_files
from orchestrator.spec.sections import PRIM_LAMBDAS
from orchestrator.spec.spec import Spec
from orchestrator.sweep.choose.space import trials

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spec() -> Spec:
    return load_spec(Path(__file__).with_name("grid.yaml")).resolved(ROOT)


def written(path: Path, *, N: int = 8, M: int = 96, lambdas=PRIM_LAMBDAS, kind="variable-rate") -> str:
    torch.manual_seed(0)
    save_ladder(path, RateLadder(family="hyperprior", N=N, M=M, lambdas=lambdas, kind=kind))
    return str(path)


def problems(spec: Spec, overrides: dict[str, Any]) -> list[str]:
    changed = Spec.model_validate(spec.model_dump() | overrides)
    with pytest.raises(SpecError) as raised:
        check_networks(changed, trials(changed))
    return list(raised.value.problems)


def test_the_quickstart_s_networks_fit(spec):
    check_networks(spec, trials(spec))


def test_a_teacher_of_other_lambdas_is_refused(spec, tmp_path):
    weights = written(tmp_path / "t.safetensors", lambdas=(0.001, 0.002, 0.004, 0.008, 0.016))
    (problem,) = problems(spec, {"teachers": ({"name": "t", "weights": weights},), "trials": 8})
    assert problem == (
        f"teachers.0.weights: the lambdas of {weights} are [0.001, 0.002, 0.004, 0.008, 0.016]; "
        "allowed are those of rate_ladder, [0.0018, 0.0035, 0.0067, 0.013, 0.025]"
    )


def test_a_teacher_trained_for_another_distortion_is_refused(spec, tmp_path):
    """Files from before ladders had one, such as the shipped ones, were trained for MSE."""
    weights = written(tmp_path / "t.safetensors")
    ladder = load_ladder(weights)
    ladder.distortion = "ms-ssim"
    save_ladder(weights, ladder)
    (problem,) = problems(spec, {"teachers": ({"name": "t", "weights": weights},), "trials": 8})
    assert problem == f"teachers.0.weights: {weights} was trained for ms-ssim; allowed is that of rate_ladder, mse"
    similar = spec.rate_ladder.model_dump() | {"distortion": "ms-ssim"}
    student = {"family": "hyperprior", "N": 8, "M": 96, "init": written(tmp_path / "s.safetensors")}
    lines = problems(spec, {"rate_ladder": similar, "students": (student,), "trials": 7})
    assert len(lines) == len(spec.teachers) + 1 and all("was trained for mse" in line for line in lines)


def test_latents_of_other_widths_are_mapped_or_chosen_among(spec, tmp_path):
    teachers = {"teachers": ({"name": "t", "weights": written(tmp_path / "t.safetensors", M=48)},), "trials": 8}
    changed = Spec.model_validate(spec.model_dump() | teachers)
    check_networks(changed, trials(changed))
    lines = problems(spec, teachers | {"losses": ({"latent": 1.0, "widths": "top-entropy"},)})
    widths = "widths: 'top-entropy' is not allowed: map, since the student's M is 96 and t's 48"
    names = ["05-hyperprior-n16-t", "06-hyperprior-n20-t", "07-hyperprior-n24-t", "08-hyperprior-n32-t"]
    assert lines == [f"{name}-w1: {widths}" for name in names]


def test_modules_apart_and_a_refit_need_the_teachers_width(spec, tmp_path):
    teachers = {"teachers": ({"name": "t", "weights": written(tmp_path / "t.safetensors", M=48)},), "trials": 8}
    lines = problems(spec, teachers | {"losses": ({"preset": "inherit-frozen"},), "controls": False, "trials": 1})
    assert lines == [
        "01-hyperprior-n16-t-inherit-frozen: widths: 'map' is not allowed: top-entropy with modules apart, "
        "since the student's M is 96 and t's 48",
        "01-hyperprior-n16-t-inherit-frozen: start: 'teacher-refit' is not allowed: another start: "
        "t is variable-rate with M 48, the student's is 96",
    ]


def test_a_refit_is_of_the_leading_latent_channels(spec, tmp_path):
    teachers = {"teachers": ({"name": "t", "weights": written(tmp_path / "t.safetensors", M=128)},)}
    chosen = {"preset": "inherit", "widths": "top-entropy"}
    lines = problems(spec, teachers | {"losses": (chosen,), "controls": False, "trials": 1})
    assert lines == [
        "01-hyperprior-n16-t-inherit: start: 'teacher-refit' is not allowed: another start where channels are chosen "
        "by entropy: its latents are t's leading channels",
    ]
    sliced = teachers | {"losses": (chosen | {"start": "teacher-slice"},), "controls": False, "trials": 1}
    changed = Spec.model_validate(spec.model_dump() | sliced)
    check_networks(changed, trials(changed))


def test_the_hybrid_is_for_fixed_lambda_teachers(spec, tmp_path):
    teachers = {"teachers": ({"name": "t", "weights": written(tmp_path / "t.safetensors")},), "trials": 8}
    lines = problems(spec, teachers | {"losses": ({"preset": "prim-hybrid"},)})
    instead = "one with two fixed-lambda teachers, while t is variable-rate: one z for all rates"
    assert len(lines) == 4
    assert lines[0] == f"05-hyperprior-n16-t-prim-hybrid: preset: 'prim-hybrid' is not allowed: {instead}"
    networks = {"teachers": ({"name": "t", "weights": written(tmp_path / "f.safetensors", kind="fixed-lambda")},)}
    changed = Spec.model_validate(spec.model_dump() | teachers | networks | {"losses": ({"preset": "prim-hybrid"},)})
    check_networks(changed, trials(changed))


@pytest.mark.parametrize("change", [{"N": 16}, {"M": 48}, {"kind": "fixed-lambda"}])
def test_a_warm_start_of_another_network_is_refused(spec, tmp_path, change):
    student = {"family": "hyperprior", "N": 8, "M": 96, "init": written(tmp_path / "s.safetensors", **change)}
    (problem,) = problems(spec, {"students": (student,), "trials": 7})
    wanted = {"family": "hyperprior", "N": 8, "M": 96, "Z": 8, "encoder_N": 8, "kind": "variable-rate"}
    widths = {"Z": 16, "encoder_N": 16} if "N" in change else {}
    assert problem == f"students.0.init: {student['init']} is {wanted | change | widths}; the student is {wanted}"


@pytest.mark.slow
def test_a_zoo_that_cannot_be_reached_is_one_line(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    zoo = Spec.model_validate(spec.model_dump() | {"teachers": ({"name": "t", "weights": "zoo:bmshj2018-hyperprior"},)})
    with pytest.raises(WeightsError, match="cannot be downloaded") as error:
        with_zoo_files(zoo, tmp_path / "zoo")
    assert "\n" not in str(error.value)


def inheriting(tmp_path: Path, spec: Spec, student: dict[str, Any], *shapes: dict[str, int]) -> Spec:
    """A sweep of one student, with a teacher `t0`, `t1`, ... of each shape."""
    teachers = tuple(
        {"name": f"t{index}", "weights": written(tmp_path / f"t{index}.safetensors", **shape)}
        for index, shape in enumerate(shapes)
    )
    known = {"family": "hyperprior", "N": 4, "M": 96}
    return Spec.model_validate(spec.model_dump() | {"teachers": teachers, "students": (known | student,), "trials": 1})


@pytest.mark.parametrize(
    ("inherit", "fields"),
    [("g_a", {"encoder_N": 8}), ("g_s", {}), ("entropy", {"Z": 8})],
)
def test_a_student_learns_from_the_teachers_whose_part_it_inherits(spec, tmp_path, inherit, fields):
    shapes = ({"N": 8, "M": 96}, {"N": 8, "M": 48})
    given = {"inherit": (inherit,), "N": 8 if inherit == "g_s" else 4}
    (student,) = with_inherited(inheriting(tmp_path, spec, given, *shapes)).students
    assert student.teachers == ("t0",)
    assert (student.encoder_N, student.Z) == (fields.get("encoder_N"), fields.get("Z"))


def test_a_student_that_inherits_nothing_stays_as_it_is(spec, tmp_path):
    given = inheriting(tmp_path, spec, {}, {"N": 8})
    assert with_inherited(given) == given


@pytest.mark.parametrize(
    ("student", "line"),
    [
        (
            {"M": 64, "encoder_N": 12, "inherit": ("g_a",)},
            "students.0.inherit: ['g_a'] is not allowed: with a teacher of family hyperprior, M 64, encoder_N 12, "
            "kind variable-rate; there is none",
        ),
        (
            {"inherit": ("g_a",)},
            "students.0.encoder_N: nothing is not allowed: one of [8, 16], the fitting teachers'",
        ),
        ({"inherit": ("entropy",)}, "students.0.Z: nothing is not allowed: one of [8, 16], the fitting teachers'"),
    ],
)
def test_what_cannot_be_inherited_is_one_line(spec, tmp_path, student, line):
    with pytest.raises(SpecError) as raised:
        with_inherited(inheriting(tmp_path, spec, student, {"N": 8}, {"N": 16}))
    assert raised.value.problems == (line,)


def test_a_phase_apart_trains_what_a_term_reads(spec, tmp_path):
    """Nothing at all, an encoder without a term of y, a decoder without one of the image."""
    weights = written(tmp_path / "t.safetensors")
    shared = {"teachers": ({"name": "t", "weights": weights},), "trials": 1, "controls": False}
    shared["students"] = ({"family": "hyperprior", "N": 8, "M": 96, "inherit": ("entropy", "g_a")},)
    for phase, line in (
        ({"freeze": ("g_a", "g_s")}, "phases.0.freeze: ['g_a', 'g_s'] is not allowed: g_a or g_s left to be trained"),
        ({"freeze": ("g_s",)}, "phases.0.weights: [] is not allowed: a weight of a term that reads y: g_a alone"),
        (
            {"freeze": ("g_a",), "weights": {"rate_distortion": 0.0, "latent": 1.0}},
            "phases.0.weights: ['latent'] is not allowed: a weight of a term that reads x_hat: g_s alone",
        ),
    ):
        found = problems(spec, {**shared, "losses": ({"phases": ({"apart": True, **phase},)},)})
        assert len(found) == 1 and line in found[0], found


def test_a_refit_needs_as_many_positions_as_weights(spec, tmp_path):
    """A channel of y has 5 x 5 x 8 weights and a bias, a crop of 64 pixels 16 positions."""
    weights = written(tmp_path / "t.safetensors", N=16)
    shared = {"teachers": ({"name": "t", "weights": weights},), "trials": 1, "controls": False}
    shared |= {"students": ({"family": "hyperprior", "N": 8, "M": 96},), "crops": {"count": 64, "size": 64}}
    (line,) = problems(spec, {**shared, "losses": ({"preset": "prim-l1-inherit", "refit": {"crops": 12}},)})
    assert "refit.crops: 12 is not allowed: at least 13 crops of 64 pixels, to fit the 201 weights" in line
