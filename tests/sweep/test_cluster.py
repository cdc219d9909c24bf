"""How many trials fit on what Ray has."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import ray

from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.spec.spec import Spec
from orchestrator.sweep.cluster import ClusterError, allow_open_files, connected, trials_at_once

ROOT = Path(__file__).parents[2]


def spec(**training: float) -> Spec:
    given = {"ranks_per_trial": 2, "gpus_per_rank": 0.0, **training}
    overrides = [f"training.{name}={value}" for name, value in given.items()]
    return load_spec(ROOT / "jobs" / "specs" / "quickstart.yaml", ["concurrent_trials=100", *overrides])


def nodes_of(have: dict[str, float], monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
    """Ray with so many nodes alike, and one that is gone."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: {name: count * value for name, value in have.items()})
    nodes = [{"Alive": True, "Resources": have}] * count + [{"Alive": False, "Resources": have}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)


def test_a_rank_s_gpus_are_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_of({"CPU": 4.0, "GPU": 1.0}, monkeypatch, count=4)
    assert trials_at_once(spec(ranks_per_trial=2, gpus_per_rank=1.0)) == 2
    with pytest.raises(SpecError, match=r"gpus_per_rank: 2 is not allowed: at most what one node has: Ray has 4 GPUs"):
        trials_at_once(spec(ranks_per_trial=1, gpus_per_rank=2.0))


@pytest.mark.parametrize(
    ("have", "training", "trials"),
    [
        ({"CPU": 16.0}, {"ranks_per_trial": 2}, 8),
        ({"CPU": 16.0, "GPU": 4.0}, {"ranks_per_trial": 1, "gpus_per_rank": 1.0}, 4),
        ({"CPU": 16.0, "GPU": 4.0}, {"ranks_per_trial": 2, "gpus_per_rank": 1.0}, 2),
        ({"CPU": 16.0, "GPU": 1.0}, {"ranks_per_trial": 1, "gpus_per_rank": 0.1}, 10),
        ({"CPU": 16.0, "GPU": 3.0}, {"ranks_per_trial": 1, "gpus_per_rank": 0.4}, 6),
        ({"CPU": 2.0, "GPU": 3.0}, {"ranks_per_trial": 1, "gpus_per_rank": 0.4}, 2),
    ],
)
def test_trials_fit_by_cpus_and_gpus(
    have: dict[str, float], training: dict[str, float], trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes_of(have, monkeypatch)
    assert trials_at_once(spec(**training)) == trials


@pytest.mark.parametrize(
    ("have", "training", "line"),
    [
        ({"CPU": 1.0}, {}, "training.ranks_per_trial: 2 is not allowed: at most 1, the CPUs that Ray has"),
        (
            {"CPU": 4.0},
            {"ranks_per_trial": 1, "gpus_per_rank": 1.0},
            "training.gpus_per_rank: 1 is not allowed: at most 0 for training.ranks_per_trial 1: Ray has 0 GPUs",
        ),
        (
            {"CPU": 4.0, "GPU": 2.0},
            {"gpus_per_rank": 2.0},
            "training.gpus_per_rank: 2 is not allowed: at most 1 for training.ranks_per_trial 2: Ray has 2 GPUs",
        ),
    ],
)
def test_what_can_never_start_is_refused(
    have: dict[str, float], training: dict[str, float], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes_of(have, monkeypatch)
    with pytest.raises(SpecError) as caught:
        trials_at_once(spec(**training))
    assert str(caught.value) == line


def test_gpus_that_are_left_idle_are_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes_of({"CPU": 4.0, "GPU": 2.0}, monkeypatch)
    trials_at_once(spec())
    assert capsys.readouterr().out.startswith("training.gpus_per_rank is 0")


def test_a_ray_that_cannot_be_joined_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense://user:secret@host:1")
    with pytest.raises(ClusterError) as caught, connected():
        pass
    assert str(caught.value).startswith("Ray cannot be joined at RAY_ADDRESS nonsense://***@host:1: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((64, 4096), (1024, 4096)),
        ((64, resource.RLIM_INFINITY), (1024, resource.RLIM_INFINITY)),
        ((1024, 1024), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_a_low_limit_on_open_files_is_raised_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: tuple[int, int] | None
) -> None:
    now = before
    monkeypatch.setattr(resource, "getrlimit", lambda _: now)

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        nonlocal now
        now = limits

    monkeypatch.setattr(resource, "setrlimit", set_limit)
    allow_open_files()
    assert now == (after or before)


def test_too_few_open_files_are_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 512))
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(ClusterError) as caught, connected():
        pass
    assert str(caught.value) == "the limit on open files: 512 is not allowed: at least 1024 (ulimit -n)"
