"""The trials of a sweep by Ray Train nested in Tune, the way that Ray's own guide shows.

    python -m benchmarks.whole.nested --spec SPEC --trials 20 --folder FOLDER

A function is tuned, one trial at a time; for each trial it starts a TorchTrainer, whose workers train and validate by
the same code as the ranks of a gang (`Rank`): model, data, steps, validation and weights are the same, and so are the
settings of Ray. The trainer's own process group is used. Features must be in the store already.

Into FOLDER: times/TRIAL.json, a row a segment by rank 0 (seconds since the epoch: first_step_at, trained_at, ended_at;
training_s, validation_s, saving_s), and phase.json with the seconds that Tune took for all of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import ROOT
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.sweep.cluster import connected
from orchestrator.sweep.gang.rank import Driver
from orchestrator.sweep.plan import Plan


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--spec", required=True)
    parser.add_argument("--trials", type=count, required=True, help="of the specification's, the first ones")
    parser.add_argument("--folder", required=True)
    options = parser.parse_args(argv)
    spec: Spec = load_spec(options.spec).resolved(ROOT)
    plan = Plan.of(spec)
    with connected():
        seconds = run(plan, options.trials, Path(options.folder).absolute())
    (Path(options.folder) / "phase.json").write_text(json.dumps({"trials_s": seconds}))
    return 0


def run(plan: Plan, trials: int, folder: Path) -> float:
    """Tunes the first trials of a grid, one after the other; returns the seconds that it took."""
    from ray import tune

    from orchestrator.sweep.plan import shared_data

    shared = {
        "plan": plan,
        "data": shared_data(plan, Store(plan.spec.store)),
        "driver": Driver.here(),
        "folder": str(folder),
    }
    tuner = tune.Tuner(
        # the CPUs are the workers', and Tune takes no empty request
        tune.with_resources(tune.with_parameters(one_trial, shared=shared), {"memory": 2**20}),
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    )
    began = time.time()
    results = tuner.fit()
    seconds = time.time() - began
    if results.errors:
        raise SystemExit(f"a nested trial failed: {results.errors[0]}")
    return seconds


def one_trial(config: dict[str, Any], shared: dict[str, Any]) -> None:
    """What Tune runs for a trial."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    plan = shared["plan"]
    trial = plan.trials[config["number"]]
    TorchTrainer(
        segments,
        train_loop_config={**shared, "trial": trial, "data": shared["data"].of(trial)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=plan.spec.training.ranks),
        run_config=RunConfig(
            name=trial.trial_id, storage_path=f"{shared['folder']}/train", callbacks=[TuneReportCallback()]
        ),
    ).fit()


def segments(config: dict[str, Any]) -> None:
    """What a worker of the trainer does: every segment of the trial."""
    import ray.train

    from orchestrator.sweep.gang.rank import Rank

    plan, trial, data, folder = config["plan"], config["trial"], config["data"], Path(config["folder"])
    spec, context = plan.spec, ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size(), spec.training.threads_per_rank, config["driver"])
    run = Store(str(folder / "run"))
    rows: list[dict[str, float]] = []
    rank.build(spec, trial, data, run, None)
    for rung in spec.early_stopping.rungs:
        last = rung == spec.early_stopping.rungs[-1]
        checkpoint = None if last else f"checkpoints/{trial.trial_id}/{rung}"  # of all ranks
        first_step_at = time.time()
        rank.train(rung)
        trained_at = time.time()
        answer = rank.finish(run, f"weights/{trial.trial_id}.safetensors", checkpoint)
        times = {"first_step_at": first_step_at, "trained_at": trained_at, "ended_at": time.time()}
        rows.append(times | {name: getattr(answer, name) for name in ("training_s", "validation_s", "saving_s")})
        ray.train.report({"images_seen": rung, "psnr_db": answer.points[-1].psnr_db})
    if rank.rank == 0:
        path = folder / "times" / f"{trial.trial_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"trial_id": trial.trial_id, "segments": rows}))


if __name__ == "__main__":
    sys.exit(exit_code(main))
