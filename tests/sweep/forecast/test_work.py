"""The work that a plan makes, and the calibration kept for it; of Ray only the count of its processors is made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from models.catalogue import SHIPPED
from models.ladder import RateLadder
from models.weights import save_ladder
from orchestrator.distill.refit.stored import arrays_of, tensors_digest
from orchestrator.evaluation.costs import Complexity
from orchestrator.photographs.crops import batch_at
from orchestrator.results.account import FORECAST
from orchestrator.results.files import needed
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections import PRIM_LAMBDAS
from orchestrator.store.store import Store
from orchestrator.sweep.forecast.calibration import CALIBRATION, Calibration
from orchestrator.sweep.forecast.decoded import DecodedCache
from orchestrator.sweep.forecast.forecast import CASES, MissingFeatures, PairWork, TrialGroup, Work, forecast
from orchestrator.sweep.forecast.work import STEPS_AHEAD, begin_forecast, remember, remembered, work_of
from orchestrator.sweep.plan import Plan
from tests.sweep.forecast.test_forecast import MEASURED, assert_equal

COSTS = {
    f"hyperprior-n{N}-m96": Complexity(
        params=1, macs_per_pixel=N * 10.0, encoder_macs_per_pixel=1.0, decoder_macs_per_pixel=1.0
    )
    for N in (8, 64)
}
PIXELS = (("pixels", "x"),)
TEACHER = {name: tuple((f"teacher {name}", tap) for tap in ("y", "x_hat")) for name in ("hyperprior", "mean-scale")}
TWO = "students=[{family: hyperprior, N: 8, M: 96}, {family: hyperprior, N: 64, M: 96}]"


@pytest.fixture
def planned(tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}, {"Alive": True}])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = [f"results={tmp_path / 'runs'}", f"store={tmp_path / 'store'}"]
    return lambda *changes: Plan.of(load_spec(tiny_spec, [*folders, *changes]).resolved(tmp_path))


def group(N: int, count: float, teacher: str | None = None, **fields: Any) -> TrialGroup:
    known: dict[str, Any] = {
        "complexity_class": f"hyperprior-n{N}-m96",
        "competitors": f"hyperprior-n{N}-m96 in bracket 0",
        "spared": 0,
        "family": "hyperprior",
        "macs_per_pixel": N * 10.0,
        "distilled": teacher is not None,
        "taps": PIXELS + (TEACHER[teacher] if teacher else ()),
        "count": count,
    }
    return TrialGroup(**known | fields)


def test_the_work_of_a_grid_is_all_of_its_trials(planned: Callable[..., Plan]) -> None:
    titles = ("pixels", "teacher hyperprior", "teacher mean-scale")
    assert work_of(planned(), COSTS, 3) == Work(
        groups=(group(64, 1), group(64, 1, "hyperprior"), group(64, 1, "mean-scale")),
        rungs=(32, 64, 96),
        reduction=2,
        gangs=3,
        ranks=2,
        cpus=4,
        gpus=1,
        missing=tuple(MissingFeatures(title=title, crops=64, shards=5) for title in titles),
        opened_crops=(128,) * 3,  # two ranks, and what a reader opens ahead is all of this plan
        opened_shards=(10,) * 3,
        caches=None,
        validation_crops=2,
        rate_points=5,
        candidates=2,
        starts=0,
    )


@pytest.mark.parametrize(
    ("rule", "competitors", "spared"),
    [
        ("stratified", "hyperprior-n{N}-m96 in bracket {bracket}", (0, 1)),
        ("asha", "all in bracket {bracket}", (0, 1)),
        ("none", "hyperprior-n{N}-m96 in bracket {bracket}", (3, 3)),
    ],
)
def test_who_competes_follows_the_rule_and_the_bracket(
    planned: Callable[..., Plan], rule: str, competitors: str, spared: tuple[int, int]
) -> None:
    """The trials of a class take turns in the brackets."""
    changes = ("trials=4", "controls=false", "early_stopping.brackets=2", f"early_stopping.rule={rule}")
    work = work_of(planned(TWO, *changes), COSTS, 1)
    expected = [(N, bracket) for bracket in (0, 1) for N in (8, 64)]
    assert [(trials.competitors, trials.spared) for trials in work.groups] == [
        (competitors.format(N=N, bracket=bracket), spared[bracket]) for N, bracket in expected
    ]
    assert [trials.macs_per_pixel for trials in work.groups] == [80.0, 640.0] * 2


def test_pairs_count_as_parts_of_trials_that_go_to_the_end(planned: Callable[..., Plan]) -> None:
    halves = [
        "encoders=[{family: hyperprior, N: 8}]",
        "decoders=[{family: hyperprior, N: 16}, {family: hyperprior, N: 24}]",
    ]
    teacher = f"teachers=[{{name: hyperprior, weights: {SHIPPED / 'teacher-hyperprior.safetensors'}}}]"
    shelf = ["students=[]", teacher, "losses=[inherit-apart]", "shelf={joined: 4, share: 0.25}", "crops.size=256"]
    plan = planned(*halves, *shelf, "early_stopping.rungs=[32, 64, 320]")
    networks = plan.students
    assert len(networks) == 3 + 2 and plan.has_pairs
    costs = {
        name: Complexity(params=1, macs_per_pixel=20.0 * number, encoder_macs_per_pixel=1.0, decoder_macs_per_pixel=1.0)
        for number, name in enumerate(networks, start=1)
    }
    work = work_of(plan, costs, 1)
    assert work.pairs == PairWork(scored=2, joined=2, images=80)
    (pairs,) = (group for group in work.groups if group.competitors == "pairs")
    assert (pairs.count, pairs.macs_per_pixel, pairs.taps) == (2 * 80 / 320, 90.0, PIXELS)
    assert work.trials == 3 and work.starts == 3
    for case in CASES:
        assert work.reach(case)["pairs"] == [pairs.count] * 3
    assert not planned().has_pairs and work_of(planned(), COSTS, 1).pairs is None


def test_drawn_trials_are_shared_evenly(planned: Callable[..., Plan]) -> None:
    ranged = "losses=[{latent: {low: 0.01, high: 1}, reconstruction: 0.3}]"
    work = work_of(planned(TWO, ranged, "trials=12", "search.method=random"), COSTS, 1)
    counts = {(trials.complexity_class, trials.taps): trials.count for trials in work.groups}
    every = [PIXELS, *(PIXELS + TEACHER[name] for name in TEACHER)]
    assert counts == {(name, taps): 1 if taps == PIXELS else 2.5 for name in COSTS for taps in every}
    assert work.trials == 12


def test_a_start_that_the_store_has_is_no_work(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(TWO, "students.0.init=teacher-refit", "trials=10")
    name, _ = plan.starts  # of two teachers
    assert work_of(plan, COSTS, 1).starts == 2
    made = RateLadder(family="hyperprior", N=4, M=6, lambdas=PRIM_LAMBDAS)
    save_ladder(tmp_path / "start.safetensors", made, tensors=tensors_digest(arrays_of(made)))
    Store(tmp_path / "store").publish(name, (tmp_path / "start.safetensors").read_bytes())
    assert work_of(plan, COSTS, 1).starts == 1
    Store(tmp_path / "store").replace(name, b"cut off")
    assert work_of(plan, COSTS, 1).starts == 2


def test_what_is_opened_until_a_rung_is_what_the_batches_until_then_need(planned: Callable[..., Plan]) -> None:
    """A second pass over the crops opens nothing for the first time."""
    plan = planned("crops.count=6000", "early_stopping.rungs=[8, 4000, 18000]")
    crops = plan.crops
    shard_of = {crop: shard for shard, ids in enumerate(crops.shards) for crop in ids}
    until = []
    for rung in (8, 4000, 18_000):
        batches = [batch_at(crops, step, 8, plan.spec.seed)[1] for step in range(rung // 8 + STEPS_AHEAD)]
        opened = [{shard_of[crop] for ids in batches for crop in ids[rank::2]} for rank in (0, 1)]
        until.append((sum(len(crops.shards[shard]) for shards in opened for shard in shards), sum(map(len, opened))))
    assert until[0] < until[1] < until[2] == (2 * 6000, 2 * len(crops.shards))
    work = work_of(plan, COSTS, 1)
    assert work.opened_crops == tuple(crops for crops, _ in until)
    assert work.opened_shards == tuple(shards for _, shards in until)


def test_a_cache_that_is_to_keep_shards_decoded_is_part_of_the_work(planned: Callable[..., Plan]) -> None:
    assert work_of(planned(), COSTS, 1).decoding is None
    decoding = work_of(planned("node_cache.decoded=true", "node_cache.gigabytes=3"), COSTS, 1).decoding
    assert decoding == DecodedCache(nodes=2, limit_bytes=3_000_000_000, crops=64)


def test_a_calibration_is_kept_for_the_same_inputs_and_processors(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, run = planned(), Store(tmp_path / "run")
    titles = {"pixels": MEASURED.fills[0], **{f"teacher {name}": MEASURED.fills[1] for name in TEACHER}}
    fills = [fill.model_copy(update={"title": title}) for title, fill in titles.items()]
    measured = MEASURED.model_copy(update={"fills": tuple(fills)})
    assert remembered(plan) is None
    assert begin_forecast(plan, run, 1) is None and run.list() == []  # nothing is known
    remember(plan, measured)
    assert remembered(plan) == measured == remembered(planned("name=another", "store=/elsewhere"))
    assert remembered(planned("seed=1")) is None
    save = begin_forecast(plan, run, 1)
    assert save is not None
    save(COSTS)
    saved, work = json.loads(run.read(FORECAST)), work_of(plan, COSTS, 1)
    for case in CASES:
        assert_equal(saved[case], forecast(work, measured, case).model_dump())
    assert needed(run, CALIBRATION, Calibration) == measured and sorted(run.list()) == [CALIBRATION, FORECAST]
    (kept,) = (tmp_path / "cache").rglob("*.json")
    assert kept.parent == tmp_path / "cache" / "lic-distillery" / "plans"
    kept.write_text(kept.read_text().replace('"format": 1', '"format": 2'))
    assert remembered(plan) is None  # of another version
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    assert remembered(plan) is None and work_of(plan, COSTS, 1).gpus == 0
