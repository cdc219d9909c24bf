"""What distillation is worth: a specification's sweep with several seeds, every student coded on a test set.

    python -m benchmarks.whole.study --train FOLDER --validation FOLDER --test KODAK_FOLDER --work FOLDER

Each seed is a sweep of its own, by `jobs/sweep_feds.py`: other crops, another order, other quantisation noise. Then
`jobs/evaluate.py` codes every student, and the teacher, into real bitstreams on the test set, which nothing before has
seen. BD-rates (PSNR in RGB) are against the teacher's curve and, within a seed, against the curve of each control of
the same student: the method's own worth. Both jobs go on where they were cut off, and so does this.

With `--keep` the students and sweeps of an earlier call stay in the result beside this one's: seeds and sizes can be
collected over several calls, and several machines. What they were trained with has to be the same.

With `--estimated` nothing is coded: curves are the sweep's own, estimated rates on the validation photographs. That is
for asking why; figures come from bitstreams.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.command import exit_code
from benchmarks.common.facts import RESULTS, ROOT, facts, photographs, write
from benchmarks.common.pairs import spread
from models.weights import digest
from orchestrator.evaluation.bd_rate import BDRate, bd_rate
from orchestrator.report.distillation import STARTS, seconds_at_rungs, start_of
from orchestrator.report.run_files import read_run
from orchestrator.results.account import Account
from orchestrator.results.anchor import ANCHOR, AnchorFile
from orchestrator.results.files import needed
from orchestrator.spec.load import load_spec
from orchestrator.spec.loss import Loss
from orchestrator.spec.messages import Parser
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from orchestrator.trials.record import TrialRecord

CONTROL = "none"
OF_A_RUNG = ("images_seen", "bd_rate_pct", "log_lagrangian_ratio", "losses", "training_s", "validation_s")
Curve = list[tuple[float, float]]  # bpp, PSNR in dB
Row = Mapping[str, Any]  # a student of one seed
Goals = Mapping[str, Mapping[str, float | str | None]]


def main(
    argv: Sequence[str] | None = None,
    spec_file: str = "study.yaml",
    goals: Callable[[Sequence[Row]], Goals] | None = None,
) -> int:
    parser = _options(spec_file)
    options = parser.parse_args(argv)
    if not options.test and not options.estimated:
        parser.error("--test: a folder is needed unless --estimated is given")
    if options.against and not Path(options.against).is_file():
        parser.error(f"--against: {options.against} is not allowed: a weights file")
    if options.against and options.estimated:
        parser.error("--against: not with --estimated, where the sweep's own teacher is what BD-rates are against")
    machine, began, work = facts(), time.monotonic(), Path(options.work).absolute()
    overrides = [f"photographs.train={options.train}", f"photographs.validation={options.validation}"]
    overrides += [f"store={work / 'store'}", f"results={work / 'runs'}", *options.set]
    spec: Spec = load_spec(options.spec, overrides).resolved(ROOT)
    if len(spec.teachers) != 1 and not options.estimated:
        parser.error(f"teachers: {len(spec.teachers)} is not allowed: one, whose students are compared")
    coder = None if options.estimated else Coder(options.test, work / "coded")
    against = (
        {Path(options.against).stem: options.against}
        if options.against
        else {spec.teachers[0].name: spec.teachers[0].weights}
    )
    teachers = {} if coder is None else {name: coder.curve(Path(weights)) for name, weights in against.items()}
    settings: dict[str, Any] = {"estimated": options.estimated, "test_set": coder and coder.test_set, **_settings(spec)}
    if options.against:
        settings["against"] = digest(options.against)
    kept, sweeps = _kept(Path(options.results) / f"{spec.name}.json", settings, parser) if options.keep else ([], [])
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        _sweep(options.spec, [*overrides, f"name={spec.name}-{seed}", f"seed={seed}"])
        run = read_run(Store(work / "runs" / f"{spec.name}-{seed}"))
        assert run.account is not None  # of a finished sweep
        trials = [record.trial_id for record in run.trials]
        sweeps = [sweep for sweep in sweeps if (sweep["seed"], sweep["trials"]) != (seed, trials)]
        sweeps.append({"seed": seed, "trials": trials, **run.account.model_dump(mode="json", exclude={"format"})})
        for trial in _trials(run.trials, run.account, work / "runs" / f"{spec.name}-{seed}"):
            if coder is not None:
                trial["curve"] = coder.curve(Path(trial["weights"]))
            rows.append({"seed": seed, **trial, "weights": f"{trial['trial_id']}.safetensors"})
        if options.estimated:
            anchor = needed(Store(work / "runs" / f"{spec.name}-{seed}"), ANCHOR, AnchorFile).anchor
            teachers = {anchor.teacher: list(anchor.curve)}
        (curve,) = teachers.values()
        for row in rows:
            row["bd_rate_pct"] = _pct(curve, row["curve"])
        everything = merged(kept, rows)
        figures = {
            "settings": settings,
            "seconds_of_this_call": time.monotonic() - began,
            "against" if options.against else "teachers": teachers,
            "arms": summary(everything),
            "students": everything,
            "sweeps": sweeps,
            "goals": goals(everything) if goals else {},
        }
        write(options.results, spec.name, machine, figures)  # a seed is a result; more of them are a better one
    return 0


def merged(kept: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Rows of an earlier call, and this one's in place of those that are of the same seed, student and arm."""
    new = {_place(row) for row in rows}
    everything = [*(row for row in kept if _place(row) not in new), *rows]
    return sorted(everything, key=_place)


def _place(row: Row) -> tuple[Any, ...]:
    return row["complexity_class"], row["arm"], row["seed"]


def _kept(file: Path, settings: Mapping[str, Any], parser: argparse.ArgumentParser) -> tuple[list[Row], list[Row]]:
    """Students and sweeps in the result of an earlier call; other settings than these are refused by the parser."""
    if not file.exists():
        return [], []
    before = json.loads(file.read_text())
    now = json.loads(json.dumps(settings))
    names = sorted({*now, *before["settings"]})
    differing = [name for name in names if before["settings"].get(name) != now.get(name)]
    if differing:
        parser.error(f"--keep: {file} was made with other settings: {', '.join(differing)}")
    return before["students"], before.get("sweeps", [])


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """By student and arm, over seeds: BD-rate in percent against the teacher, and against each control of the seed."""
    arms_of: dict[str, dict[str, Any]] = {}
    for row in rows:
        arm = arms_of.setdefault(row["complexity_class"], {}).setdefault(row["arm"], {"teacher": [], "controls": {}})
        arm["teacher"].append(row["bd_rate_pct"])
        for control in rows:
            same = all(control[name] == row[name] for name in ("complexity_class", "seed"))
            if same and is_control(control):
                arm["controls"].setdefault(control["arm"], []).append(_pct(control["curve"], row["curve"]))
    return {
        student: {
            name: {
                "bd_rate_pct": spread(arm["teacher"]),
                "bd_rate_vs_control_pct": {control: spread(values) for control, values in arm["controls"].items()},
            }
            for name, arm in arms.items()
        }
        for student, arms in arms_of.items()
    }


def goal(value: float | None, goal: float, at: str) -> dict[str, float | str | None]:
    """As a result file has it: `at` least or most."""
    return {"value": value, "goal": goal, "at": at}


def is_control(row: Row) -> bool:
    """Whether a student was trained on rate and distortion alone."""
    return str(row["arm"]).startswith(CONTROL)


def _pct(anchor: Curve, curve: Curve) -> float | None:
    result = bd_rate(anchor, curve)
    return result.pct if isinstance(result, BDRate) else None


def _sweep(spec: str, overrides: Sequence[str]) -> None:
    sets = [word for override in overrides for word in ("--set", override)]
    subprocess.run([sys.executable, "jobs/sweep_feds.py", "--spec", spec, *sets], cwd=ROOT, check=True)


class Coder:
    """Curves on a test set, each coded once: a file's name is of the test set's pictures and of the weights.

    Args:
        test: the test set's folder.
        folder: for the curves.
    """

    def __init__(self, test: str, folder: Path) -> None:
        self._test = test
        digests = "".join(photograph.digest for photograph in photographs([test], 1))
        self.test_set = hashlib.sha256(digests.encode()).hexdigest()[:16]
        self._folder = folder / self.test_set
        self._folder.mkdir(parents=True, exist_ok=True)

    def curve(self, weights: Path) -> Curve:
        """Of a weights file."""
        out = self._folder / f"{digest(weights)}.json"
        if not out.exists():
            command = [sys.executable, "jobs/evaluate.py", str(weights), self._test, "--out", str(out)]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            print(f"coded: {weights.name}", flush=True)
        return [(point["bpp"], point["psnr_db"]) for point in json.loads(out.read_text())["points"]]


def _trials(records: Sequence[TrialRecord], account: Account, run: Path) -> Iterator[dict[str, Any]]:
    """Of a finished sweep. A control is an arm for each start that controls have."""
    times = seconds_at_rungs(records, account)
    for record in records:
        yield {
            "trial_id": record.trial_id,
            "arm": arm_of(record),
            "complexity_class": record.complexity_class,
            "params": record.params,
            "macs_per_pixel": record.macs_per_pixel,
            "weights": str(run / (record.weights or "")),
            "weights_digest": record.weights_digest,
            "curve": [(point.bpp, point.psnr_db) for point in record.rungs[-1].points],
            "seconds": times[record.trial_id],  # trained, with the shares of filling the cache and of refitting
            "validation": [{name: getattr(rung, name) for name in OF_A_RUNG} for rung in record.rungs],
        }


def arm_of(record: TrialRecord) -> str:
    """What a trial stands for: its preset, or for a control `none` and its start, and what is changed of it."""
    loss = record.model_dump(mode="json", include={"loss"})["loss"]
    preset = loss.pop("preset", None)
    if record.teacher is None:
        name = f"{CONTROL}, {STARTS[start_of(record)]}"
        loss.pop("start", None)
    else:
        name = preset
    return ", ".join(filter(None, (name, json.dumps(loss) if loss else "")))


def loss_of(arm: str) -> Loss:
    """What `arm_of` was made from, of an arm that is no control; its start is null where it is the student's."""
    preset, changed = parted(arm)
    return Loss.model_validate_json(json.dumps({"preset": preset or None, **changed}))


def images_of(row: Row) -> int:
    """Images that a student was trained on."""
    return int(row["validation"][-1]["images_seen"])


def parted(arm: str) -> tuple[str, dict[str, Any]]:
    """An arm's preset or control, which may be empty, and what is changed of it."""
    name, brace, changed = arm.partition("{")
    return name.removesuffix(", "), json.loads(brace + changed) if brace else {}


def _settings(spec: Spec) -> dict[str, Any]:
    """Of the specification what decides the figures, but for students and losses: each row says which it is of."""
    named = ("crops", "validation", "rate_ladder", "training", "early_stopping")
    data = spec.model_dump(mode="json", exclude_defaults=True)
    teachers = {teacher.name: digest(teacher.weights) for teacher in spec.teachers}
    return {"teachers": teachers, **{name: data[name] for name in named if name in data}}


def _options(spec_file: str) -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--spec", default=str(ROOT / "jobs" / "specs" / spec_file))
    add("--train", required=True, metavar="FOLDER")
    add("--validation", required=True, metavar="FOLDER")
    add("--test", metavar="FOLDER", help="needed unless --estimated")
    add("--estimated", action="store_true", help="no test set, no bitstreams")
    add("--work", required=True, metavar="FOLDER", help="stores, runs and coded curves; keep it to go on later")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the specification; name=X writes X.json")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--against", metavar="WEIGHTS", help="BD-rates are against this network; default: the sweep's teacher")
    add("--keep", action="store_true", help="the students of an earlier call stay in the result")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
