"""The benchmarks' own arithmetic, and that what needs no server still runs. No figure of time is held to anything."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from pathlib import Path

import pytest
import torch

from benchmarks.cache import taps
from benchmarks.common.online import CuttingReader, ExactReader, OnlineReader
from benchmarks.common.pairs import in_turn, ratios, spread
from benchmarks.common.process import join_alone, workers
from benchmarks.whole import inherit, study
from models.catalogue import build_ladder
from models.weights import save_ladder
from orchestrator.photographs.crops import plan_crops
from orchestrator.spec.load import load_spec
from orchestrator.spec.loss import Loss
from orchestrator.spec.networks import with_inherited
from orchestrator.spec.sections import PRIM_LAMBDAS, Crops, Refit
from testing.records import record
from testing.watch import Memory, Requests, resident_bytes


def test_arms_take_turns_in_alternating_order():
    calls = []

    def arm(name, value):
        def measure():
            calls.append(name)
            return {"value": value}

        return measure

    rounds = in_turn({"a": arm("a", 6.0), "b": arm("b", 2.0)}, 3, lambda line: None)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert ratios(rounds, "a", "b", "value") == {"median": 3.0, "min": 3.0, "max": 3.0, "values": [3.0] * 3}


def test_a_spread_leaves_out_missing_values():
    assert spread([3.0, None, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "values": [3.0, None, 1.0, 2.0]}
    assert spread([None])["median"] is None


def students_of_a_study(arms):
    """Rows of `study`, two seeds: the factor on the teacher's rates by arm."""
    anchor = [(0.1 * 2**i, 28.0 + 2 * i) for i in range(5)]
    return [
        {
            "complexity_class": inherit.HALF,
            "arm": arm,
            "seed": seed,
            "curve": [(bpp * factor, psnr) for bpp, psnr in anchor],
            "bd_rate_pct": 100 * (factor - 1),
            "seconds": [10.0, 40.0],
            "validation": [{"log_lagrangian_ratio": factor}, {"log_lagrangian_ratio": factor - 1}],
        }
        for arm, factors in arms.items()
        for seed, factor in enumerate(factors)
    ]


def test_a_study_compares_within_a_seed():
    rows = students_of_a_study({"none, slice": [1.5, 2.0], "none, refitted": [1.35, 1.1], "feds": [1.35, 2.2]})
    summary = study.summary(rows)[inherit.HALF]
    assert summary["none, slice"]["bd_rate_pct"]["values"] == pytest.approx([50.0, 100.0])
    own = summary["none, slice"]["bd_rate_vs_control_pct"]["none, slice"]
    assert own["values"] == pytest.approx([0.0, 0.0], abs=1e-9)
    controls = summary["feds"]["bd_rate_vs_control_pct"]
    assert controls["none, slice"]["values"] == pytest.approx([-10.0, 10.0])
    assert controls["none, refitted"]["values"] == pytest.approx([0.0, 100.0], abs=1e-9)


def test_students_of_an_earlier_call_are_kept_beside_those_of_this_one():
    """A row of the same seed, student and arm takes the place of the earlier one."""
    rows = students_of_a_study({"none, slice": [1.5, 2.0], "feds": [1.35, 2.2]})
    again = {**rows[0], "bd_rate_pct": -1.0}
    wider = {**rows[0], "complexity_class": "hyperprior-n48-m96"}
    merged = study.merged(rows, [again, wider])
    assert len(merged) == len(rows) + 1 and wider in merged and again in merged and rows[0] not in merged


@pytest.mark.parametrize(
    ("teacher", "loss", "arm"),
    [
        (None, Loss(preset="none", start="random"), "none, random start"),
        (None, Loss(preset="inherit-plain"), "none, refitted"),
        (
            None,
            Loss(preset="inherit-plain", refit=Refit(criterion="activation")),
            'none, refitted, {"refit": {"criterion": "activation"}}',
        ),
        ("t", Loss(preset="prim-l1"), "prim-l1"),
        ("t", Loss(preset="prim-l1", start="random"), 'prim-l1, {"start": "random"}'),
        ("t", Loss(preset="inherit", refit=Refit(crops=16)), 'inherit, {"refit": {"crops": 16}}'),
        ("t", Loss(latent=0.1), '{"latent": 0.1}'),
    ],
)
def test_arms_of_a_study_are_told_apart(teacher, loss, arm):
    trial = record("01", [], teacher=teacher, loss=loss, start_of="t")
    assert study.arm_of(trial) == arm


def test_the_goals_of_inheriting_are_for_a_student_that_its_specification_has():
    """By its name in a run folder, in which the width of z is written out."""
    root = Path(__file__).parents[2]
    spec = with_inherited(load_spec(root / "jobs" / "specs" / "inherit.yaml").resolved(root))
    assert inherit.HALF in {student.complexity_class for student in spec.students}


def test_goals_of_inheriting_are_means_over_the_seeds():
    arms = {"none, slice": [1.5, 1.3], "none, refitted": [1.12, 1.1], "inherit": [1.1, 1.06], "feds": [1.0, 1.0]}
    rows = students_of_a_study(arms)
    for row in rows:
        if row["arm"] == "inherit":
            row["seconds"] = [10.0, 70.0]  # half of the last segment when the control has ended
    goals = inherit.goals(rows)
    assert {name: goal["value"] for name, goal in goals.items()} == pytest.approx(
        {
            "inherit_n32_bd_rate_pct": 8.0,
            "better_than_slice_points": 32.0,
            "better_than_slice_at_equal_time_100_ln_cost": 100 * (0.4 - 0.58),
            "better_than_refitted_points": 3.0,
        }
    )
    assert [(goal["goal"], goal["at"]) for goal in goals.values()] == [
        (9.0, "most"),
        (20.0, "least"),
        (0.0, "least"),
        (2.0, "least"),
    ]
    without = inherit.goals([row for row in rows if row["arm"] != "inherit"])
    assert [goal["value"] for goal in without.values()] == [None] * 4
    rows[0]["bd_rate_pct"] = None  # a mean of the rest would not be that of all seeds
    assert inherit.goals(rows)["better_than_slice_points"]["value"] is None


def test_what_a_teacher_says_again_is_what_it_said(train_photographs):
    teacher = build_ladder(family="hyperprior", N=8, M=12, lambdas=PRIM_LAMBDAS, kind="variable-rate").eval()
    plan = plan_crops(train_photographs, Crops(count=10, size=64), 5, seed=0)  # a pass every 5 steps
    order = {"batch_size": 2, "seed": 0}
    online = OnlineReader(CuttingReader(train_photographs, plan, **order), teacher)
    exact = ExactReader(train_photographs, plan, teacher, **order)
    for step in range(10):
        expected, read = online.batch(step), exact.batch(step)
        assert read.rate_point == expected.rate_point and torch.equal(read.x, expected.x)
        for name, values in expected.targets.items():
            torch.testing.assert_close(read.targets[name], values, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_sizes_and_errors_of_taps(tmp_path):
    student = tmp_path / "student.safetensors"
    save_ladder(student, build_ladder(family="hyperprior", N=8, M=96, lambdas=PRIM_LAMBDAS, kind="variable-rate"))
    words = ["--crops", "40", "--size", "64", "--student", str(student), "--results", str(tmp_path)]
    assert taps.main(words) == 0
    written = json.loads((tmp_path / "taps.json").read_text())
    for figures in written["teachers"].values():
        assert figures["bytes_a_crop"]["y"]["stored"] < figures["bytes_a_crop"]["y"]["fp16_zstd"]
        assert 0 < figures["relative_error"]["latent"]["median"] < 0.01
    assert written["machine"]["versions"]["torch"] and written["machine"]["git_revision"]


@pytest.mark.slow
def test_a_process_alone_can_make_groups_of_its_own_as_deepspeed_does():
    with workers(1) as pool:
        assert pool.submit(_ranks_of_a_new_group).result() == 1


def _ranks_of_a_new_group():
    join_alone(threads=1)
    group = torch.distributed.new_group([0])
    assert not isinstance(group, int)
    return torch.distributed.get_world_size(group)


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def test_requests_are_counted_until_the_block_ends(server):
    def ask():
        connection = http.client.HTTPConnection(*server.server_address)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()

    with Requests().counting() as requests:
        ask()
        ask()
    ask()
    assert requests.count == 2


def test_memory_is_sampled():
    with Memory(every_s=0.01).sampled() as memory:
        pass
    assert memory.samples and memory.samples[0][1] == pytest.approx(resident_bytes() / 2**20, rel=0.5)
