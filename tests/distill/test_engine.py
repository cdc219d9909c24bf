"""One training step at every ZeRO stage, with one rank and with two: what is frozen, skipped, averaged and saved."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.weights import save_ladder
from orchestrator.distill.engine import PARTS, Group
from orchestrator.distill.engine_plain import PlainEngine
from orchestrator.distill.learner import Learner
from orchestrator.distill.losses import bits_per_pixel
from orchestrator.distill.patience import CHECK_EVERY, PATIENCE, Diverged
from orchestrator.photographs.crops import cut, validation_crops
from orchestrator.photographs.photos import load_rgb
from orchestrator.spec.loss import Phase
from orchestrator.spec.sections import PRIM_LAMBDAS, Training, Validation
from tests.distill.ranks import engine, in_worlds, student, teacher, terms_of, train

pytestmark = pytest.mark.slow  # most tests read what processes of ranks have done

STAGES = (0, 1, 2, 3, SOAP := "soap")
ALL = [(world, zero_stage) for world in (1, 2) for zero_stage in STAGES]
FAULTS = ("loss", "infinite loss", "gradient")
every_setting = pytest.mark.parametrize(("world", "zero_stage"), ALL)
adam_settings = pytest.mark.parametrize(("world", "zero_stage"), [of for of in ALL if of[1] != SOAP])


def weights(engine):
    with engine.whole():
        return {name: value.detach().clone() for name, value in engine.ladder.named_parameters()}


def changed(before, after):
    """Parts with a parameter that is not bit for bit as it was; the quantiles by their own name."""
    names = [name for name in before if not torch.equal(before[name], after[name])]
    return {"quantiles" if name.endswith("quantiles") else Group.of(f"ladder.{name}").part for name in names}


def same(before, after):
    return all(torch.equal(before[name], after[name]) for name in before)


def moments(engine):
    """The optimizer's state, by parameter or by what ZeRO makes of a group of them."""
    optimizer = engine._optimizer if isinstance(engine, PlainEngine) else engine._engine.basic_optimizer
    return optimizer.state


def options(zero_stage):
    """Averages where there are any, and layers that are parted among the ranks where ZeRO parts them."""
    if zero_stage == SOAP:
        return {"optimizer": "soap", "zero_stage": 0, "ladder": student(8), "ema": 0.9}
    if zero_stage == 3:
        return {"zero_stage": 3, "ladder": student(42)}
    return {"zero_stage": zero_stage, "ladder": student(8), "ema": 0.9}


def frozen_parts(rank, world, zero_stage):
    """Which parts change in a step with a momentum, and how far a part that was frozen goes at first."""
    trained = engine(world, **options(zero_stage))
    train(trained, range(3), rank, world)
    before = weights(trained)
    train(trained, range(3, 5), rank, world, frozen=("g_a", "entropy"))
    after = weights(trained)
    train(trained, range(5, 6), rank, world)
    thawed = weights(trained)
    trained.close()
    late = engine(world, clip_norm=0.01, **options(zero_stage))
    train(late, range(1), rank, world, frozen=("g_s",))
    squares = torch.zeros(())
    for state in moments(late).values():
        if state:
            squares += state["exp_avg"].square().sum()
    momentum = late.mean_over_ranks(squares) * (1 if zero_stage == 0 else world)  # ZeRO parts it among the ranks
    train(late, range(1, 5), rank, world, frozen=("g_s",))
    start = weights(late)
    train(late, range(5, 6), rank, world)
    first = max(float((value - start[name]).abs().max()) for name, value in weights(late).items() if ".g_s." in name)
    late.close()
    return {
        "frozen": changed(before, after),
        "thawed": changed(after, thawed),
        "momentum": float(momentum.sqrt()),
        "first": first,
    }


def skipped_steps(rank, world, zero_stage):
    """Runs in which the last rank's step 2 is spoilt, beside one without that step."""

    def run(fault):
        trained = engine(world, **options(zero_stage))
        train(trained, range(2), rank, world)
        skipped = {}
        if fault:
            terms, before = terms_of(trained, 2, rank, world), weights(trained)
            stepped = trained.step(spoilt(terms, fault if rank == world - 1 else ""), 1e-4)
            skipped = {"stepped": bool(stepped), "count": trained.skipped_steps, "kept": same(before, weights(trained))}
        train(trained, range(3, 5), rank, world)
        with trained.averaged():
            final = weights(trained)
        trained.close()
        return skipped, final

    expected = run("")[1]
    runs = {fault: run(fault) for fault in FAULTS}
    return {fault: {**skipped, "equal": same(expected, final)} for fault, (skipped, final) in runs.items()}


def spoilt(terms, fault):
    loss = terms["loss"]
    match fault:
        case "loss":
            return loss * math.nan
        case "infinite loss":
            return loss + math.inf  # with finite gradients
        case "gradient":
            return loss + (terms["bpp"] * 0).sqrt()  # the loss is finite
    return loss


def divergence(rank, world, zero_stage, checked):
    """When and how a run ends whose last rank has no finite loss from step 1 on, looked at after each step or not."""
    trained = engine(world, **options(zero_stage))
    train(trained, range(1), rank, world)
    for step in range(1, 60):
        terms = terms_of(trained, step, rank, world)
        try:
            trained.step(spoilt(terms, "loss" if rank == world - 1 else ""), 1e-4)
            if checked:
                trained.check()
        except Diverged as error:
            return {"step": step, "message": str(error)}
    return {}


def resumed(rank, world, zero_stage, folder):
    """Whether a run from a checkpoint is, bit for bit, the run that was not interrupted."""
    place = Path(folder) / f"{world}-{zero_stage}"
    place.mkdir(exist_ok=True)
    whole = engine(world, **options(zero_stage))
    train(whole, range(2), rank, world, frozen=("h_a",))  # its moments are not there yet
    whole.step(terms_of(whole, 2, rank, world)["loss"] * math.nan, 1e-4)
    whole.save(place, 24)
    torch.rand(rank + 1)  # the global generator has no part in it
    rows = train(whole, range(3, 6), rank, world)
    with whole.averaged():
        averages = weights(whole)
    final, aux = weights(whole), whole._aux_optimizer.state_dict()["state"]
    whole.close()
    again = engine(world, **options(zero_stage))
    train(again, range(7, 8), rank, world)  # what it had before is gone
    images, _ = again.load(place)
    counts = again.skipped_steps
    equal = train(again, range(3, 6), rank, world) == rows
    with again.averaged():
        equal_averages = same(averages, weights(again))
    aux_again = again._aux_optimizer.state_dict()["state"]
    observed = {
        "images": images,
        "skipped": counts,
        "rows": equal,
        "weights": same(final, weights(again)),
        "averages": equal_averages,
        "moments": all(torch.equal(aux_again[index]["exp_avg"], aux[index]["exp_avg"]) for index in aux),
    }
    again.close()
    return observed


def export(rank, world, zero_stage, folder):
    """What is written of a ladder whose largest layers ZeRO 3 parts among the ranks."""
    trained = engine(world, **options(zero_stage))
    train(trained, range(2), rank, world)
    path = Path(folder) / f"{world}-{zero_stage}.safetensors"
    with trained.whole(), trained.averaged():
        if rank == 0:
            save_ladder(path, trained.ladder)
        expected = {name: value.detach().clone() for name, value in trained.ladder.named_parameters()}
    raw = weights(trained)
    trained.close()
    return {"file": rank != 0 or same(expected, load_file(path)), "averaged": not same(raw, expected)}


def everything(rank, world, folder):
    observed = {}
    for stage in STAGES:
        observed[stage] = {
            "frozen": frozen_parts(rank, world, stage),
            "skipped": skipped_steps(rank, world, stage),
            "resumed": resumed(rank, world, stage, folder),
            "export": export(rank, world, stage, folder),
            # the last: their engines are left as they are
            "diverged": {checked: divergence(rank, world, stage, checked) for checked in (True, False)},
        }
    return observed


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """(world, ZeRO stage) -> what each rank observed."""
    runs = in_worlds((1, 2), everything, str(tmp_path_factory.mktemp("ranks")))
    return {(world, stage): [of_rank[stage] for of_rank in runs[world]] for world, stage in ALL}


@every_setting
def test_frozen_parts_do_not_move(observed, world, zero_stage):
    for rank in observed[world, zero_stage]:
        assert rank["frozen"]["frozen"] == {"h_a", "h_s", "g_s"}
        assert rank["frozen"]["thawed"] == {"g_a", "h_a", "h_s", "g_s", "entropy", "quantiles"}


@adam_settings
def test_clipping_does_not_see_frozen_parts(observed, world, zero_stage):
    # the first momentum is a tenth of the clipped gradient, whose norm is then all of the parts that are trained
    assert observed[world, zero_stage][0]["frozen"]["momentum"] == pytest.approx(0.001, rel=1e-3)


@adam_settings
def test_a_part_that_thaws_takes_the_first_step_that_adam_takes(observed, world, zero_stage):
    # had its steps been counted while it was frozen, it would go another way
    assert observed[world, zero_stage][0]["frozen"]["first"] == pytest.approx(1e-4, rel=1e-2)


@every_setting
@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_is_not_finite_on_one_rank_changes_nothing(observed, world, zero_stage, fault):
    for rank in observed[world, zero_stage]:
        assert rank["skipped"][fault] == {"stepped": False, "count": 1, "kept": True, "equal": True}


@every_setting
def test_all_ranks_give_up_together_and_say_why(observed, world, zero_stage):
    late = 2 * CHECK_EVERY - 1  # the second look: at the first the patience is not over yet
    for checked, step in ((True, 1 + PATIENCE), (False, late)):
        reason = f"step {step}: the loss of rank {world - 1} is not finite, as in the {step - 1} steps before it"
        for rank in observed[world, zero_stage]:
            assert rank["diverged"][checked] == {"step": step, "message": f"{reason}, which were skipped"}


@every_setting
def test_a_run_from_a_checkpoint_is_the_one_that_was_not_interrupted(observed, world, zero_stage):
    for rank in observed[world, zero_stage]:
        assert rank["resumed"] == {
            "images": 24,
            "skipped": 1,
            "rows": True,
            "weights": True,
            "averages": True,
            "moments": True,
        }


@every_setting
def test_what_is_exported_is_whole_and_averaged(observed, world, zero_stage):
    for rank in observed[world, zero_stage]:
        assert rank["export"] == {"file": True, "averaged": zero_stage != 3}


def test_every_part_of_a_student_has_a_group_and_maps_have_their_own():
    assert Phase(freeze=PARTS).freeze == PARTS
    learner = Learner(student(8), {"y": (96, 100)})
    names = {part: [name for name, _ in learner.named_parameters() if Group.of(name).part == part] for part in PARTS}
    assert {name for name, _ in learner.named_parameters()} - {
        parameter for part in names.values() for parameter in part
    } == {"maps.map-0.weight"}
    assert Group.of("maps.map-0.weight") == Group(network=None, part="maps")
    assert Group.of("ladder.networks.3.g_a.0.weight") == Group(network=3, part="g_a")
    assert "ladder.networks.0.QuantABCD.0.weight" in names["entropy"]
    assert "ladder.networks.0.entropy_bottleneck.quantiles" in names["entropy"]
    assert all(names.values())


def test_averages_are_refused_where_weights_are_in_parts():
    (problem,) = Training(ema=0.999, zero_stage=3).problems()
    assert problem.startswith("training.ema: 0.999 is not allowed: null with training.zero_stage 3")
    assert list(Training(ema=0.999, zero_stage=2).problems()) == []


def test_the_learning_rate_is_of_every_group_but_the_quantiles(process_group):
    trained = engine(1, aux_learning_rate=0.02)
    assert isinstance(trained, PlainEngine)
    before = weights(trained)
    trained.step(terms_of(trained, 0, 0, 1)["loss"], 3e-5)
    assert {group["lr"] for group in trained._optimizer.param_groups} == {3e-5}
    after = weights(trained)
    for name, value in after.items():  # Adam's first step is as long as its learning rate
        moved = float((value - before[name]).abs().max())
        expected = 0.02 if name.endswith("quantiles") else 3e-5
        assert moved == pytest.approx(expected, rel=0.05), name
    trained.close()


def test_averages_follow_the_weights(process_group):
    trained = engine(1, ema=0.3)
    expected = weights(trained)
    for step in range(4):
        train(trained, range(step, step + 1))
        decay = min(0.3, (2 + step) / (11 + step))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in weights(trained).items()}
    raw = weights(trained)
    with trained.averaged():
        for name, value in weights(trained).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
    assert same(raw, weights(trained))
    trained.close()


def test_rates_in_bf16_are_those_in_fp32(process_group, validation_photographs):
    chosen = validation_crops(validation_photographs, Validation(crops=4, size=256))
    x = torch.stack(
        [torch.tensor(cut(load_rgb(photograph), crop)).permute(2, 0, 1) / 255 for photograph, crop in chosen]
    )
    trained = engine(1, ladder=teacher(), precision="bf16")
    network = trained.ladder.networks[0]
    seen = {}
    for name in ("g_a", "h_a", "h_s", "entropy_bottleneck", "gaussian_conditional", "g_a.0", "g_s.0"):
        network.get_submodule(name).register_forward_hook(
            lambda _module, inputs, output, name=name: seen.update(
                {name: {tensor.dtype for tensor in (*inputs, *output)}}
            )
        )
    rates = {}
    for precision in (torch.bfloat16, torch.float32):
        trained.ladder.set_precision(precision)
        trained.ladder.eval()
        with torch.inference_mode():
            for rate_point in range(len(PRIM_LAMBDAS)):
                likelihoods = trained.ladder(x, rate_point)["likelihoods"]
                rates[precision, rate_point] = float(bits_per_pixel(likelihoods, x.numel() // 3))
                if precision is torch.bfloat16:
                    inside = {name: dtypes for name, dtypes in seen.items() if "." not in name}
                    assert set().union(*inside.values()) == {torch.float32}
                    assert torch.bfloat16 in seen["g_a.0"] and torch.bfloat16 in seen["g_s.0"]
    for rate_point in range(len(PRIM_LAMBDAS)):
        expected, rate = rates[torch.float32, rate_point], rates[torch.bfloat16, rate_point]
        print(f"rate point {rate_point}: {expected:.4f} bpp, in bf16 {rate / expected - 1:+.2%}")
        assert rate != expected and rate == pytest.approx(expected, rel=0.01)
    trained.close()


@pytest.mark.parametrize("join", ["join_process_group(0, 1, '127.0.0.1', meeting.port)", "join_launched_group()"])
def test_a_rank_needs_no_compiler(tmp_path: Path, join: str) -> None:
    script = f"""
import os
import torch
import torch.distributed as dist
from orchestrator.distill.process_group import join_launched_group, join_process_group, open_rendezvous
meeting = open_rendezvous("127.0.0.1")
os.environ["MASTER_PORT"] = str(meeting.port)
{join}
ones = torch.ones(3)
dist.all_reduce(ones)
assert ones.tolist() == [1, 1, 1]
"""
    own = {"PATH": "/nowhere", "TORCH_EXTENSIONS_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    launched["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # as torchrun does, whose store listens already
    done = subprocess.run([sys.executable, "-c", script], env=own | launched, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [*tmp_path.iterdir()] == []
