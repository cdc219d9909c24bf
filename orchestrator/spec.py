"""The sweep specification: typed, strict, values only.

A specification is a YAML file. `load_spec` turns it, with overrides from the command line, into a frozen `Spec`, or
raises `SpecError` whose message is one line a fault: the field, the value and what is allowed. Nothing here touches a
disk but that one file (and `check_paths`, which looks whether what it names is there), and nothing imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from models.families import FAMILIES, Distortion
from orchestrator import allowed
from orchestrator.distill.loss_space import LossSpace
from orchestrator.distill.phases import Loss
from orchestrator.evaluation.metric import LEAST_SIDE
from orchestrator.faults import explain, shown, without_credentials
from orchestrator.section import Section, refusal
from orchestrator.strict_yaml import YamlFault, assign, parse, write

# With 4 a student overfits, 16 and 64 do as well as fresh crops for ever: benchmarks/results/crops_per_image.json.
CROPS_A_PHOTOGRAPH = 16
PRIM_LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)


MINIMUM_RATE_POINTS = 4  # a BD-rate needs a curve of four points
StoppingRule = Literal["stratified", "asha", "moasha", "none"]


class SpecError(ValueError):
    """A specification that cannot be run: the message is one line a fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(tuple(faults))
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Folder = Annotated[str, AfterValidator(allowed.local_path)]
Place = Annotated[str, AfterValidator(allowed.place)]


class Photographs(Section):
    train: Folder  # folder of training photographs
    validation: Folder  # folder of photographs that early stopping and the front are computed on
    unfit: Literal["fail", "skip"] = "fail"  # what a truncated, CMYK, 16-bit, too small ... photograph does


class Crops(Section):
    """The finite crop plan: every training step reads crops of this plan, so teacher outputs can be computed once."""

    count: Annotated[int | None, Field(ge=8)] = None  # null: CROPS_A_PHOTOGRAPH for each photograph
    size: Annotated[int, Field(ge=64, multiple_of=64)] = 128  # pixels a side
    flip: bool = True  # mirror half of them left to right
    downscale: Annotated[tuple[float, float], AfterValidator(allowed.share_range)] = (1.0, 1.0)
    # a crop is cut from a box of size/f pixels, f uniform in this range, and resized


class Validation(Section):
    crops: Annotated[int, Field(ge=1)] = 6
    size: Annotated[int, Field(ge=64, multiple_of=64)] = 256


class Network(Section):
    family: Annotated[str, AfterValidator(allowed.family)]
    N: Annotated[int, Field(ge=1, le=512)]  # channels of the transforms' hidden layers
    M: Annotated[int, Field(ge=1, le=1024)]  # channels of the latent y
    Z: Annotated[int | None, Field(ge=1, le=512)] = None  # channels of the hyper-latent z; null: N

    def faults(self) -> Iterator[str]:
        least = FAMILIES[self.family].least_M
        if least > self.M:
            yield refusal("M", self.M, f"at least {least} for {self.family}, one for each group of channels")


class Teacher(Section):
    name: Name
    weights: Annotated[
        str, AfterValidator(allowed.weights)
    ]  # a safetensors file of ours, or zoo:NAME for CompressAI's networks of the ladder's lambdas


class Student(Network):
    init: Annotated[str, AfterValidator(allowed.init)] = (
        "random"  # random | teacher-slice (leading channels of the teacher) | a safetensors file
    )


class RateLadder(Section):
    kind: Literal["variable-rate", "fixed-lambda"] = "variable-rate"
    lambdas: Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(allowed.rising)] = PRIM_LAMBDAS
    # of bpp + lambda * distortion, rising
    distortion: Distortion = "mse"  # 255^2 * MSE, or 1 - MS-SSIM

    def faults(self) -> Iterator[str]:
        if self.distortion == "ms-ssim" and self.lambdas == PRIM_LAMBDAS:
            yield refusal("lambdas", self.lambdas, "those of 1 - MS-SSIM, such as 2.4, 4.58, 8.73, 16.64, 31.73")

    def side_faults(self, field: str, side: int) -> Iterator[str]:
        """Of a crop that the distortion is measured on."""
        if self.distortion == "ms-ssim" and side < LEAST_SIDE:
            yield refusal(field, side, f"at least {LEAST_SIDE} for rate_ladder.distortion ms-ssim")


class Training(Section):
    batch_size: Annotated[int, Field(ge=1)] = 8  # crops a step, over all ranks of a trial
    # crops a rank that go through the network at once; gradients of a step's are summed up. null: all of its share
    micro_batch_size: Annotated[int | None, Field(ge=1)] = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    aux_learning_rate: Annotated[float, Field(gt=0)] = 1e-3  # of the entropy bottleneck's quantiles
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    zero_stage: Annotated[Literal[0, 1, 2, 3], BeforeValidator(allowed.zero_stage)] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    # decay a step, such as 0.999, of the averages of the weights that are validated and exported; null: no averages
    ema: Annotated[float | None, Field(gt=0, lt=1)] = None
    ranks_per_trial: Annotated[int, Field(ge=1)] = 2
    threads_per_rank: Annotated[int, Field(ge=1)] = 1
    # 0: a sweep trains on CPUs. A fraction lets ranks of several trials share a GPU.
    gpus_per_rank: Annotated[float, Field(ge=0), AfterValidator(allowed.gpus)] = 0.0

    @property
    def crops_at_once(self) -> int:
        """Of a rank: its micro-batch."""
        return self.micro_batch_size or self.batch_size // self.ranks_per_trial

    def ranks_on(self, cpus: float, gpus: float) -> int:
        """How many ranks a node with so many CPUs and GPUs has room for: each has a CPU, and its GPUs on one node."""
        share = self.gpus_per_rank
        if not share:
            return int(cpus)
        return min(int(cpus), int(gpus) * int(1 / share + 1e-9) if share <= 1 else int(gpus // share))

    def faults(self) -> Iterator[str]:
        if self.batch_size % self.ranks_per_trial:
            ranks = f"a multiple of training.ranks_per_trial, {self.ranks_per_trial}"
            yield refusal("training.batch_size", self.batch_size, ranks)
        share = self.batch_size // self.ranks_per_trial
        if self.micro_batch_size is not None and share % self.micro_batch_size:
            divisor = f"a divisor of {share}, a rank's share of training.batch_size"
            yield refusal("training.micro_batch_size", self.micro_batch_size, divisor)
        if 0 < self.gpus_per_rank < 1 < self.ranks_per_trial:
            whole = "0 or a whole number with several ranks a trial: NCCL takes one rank a GPU"
            yield refusal("training.gpus_per_rank", self.gpus_per_rank, whole)
        if self.ema is not None and self.zero_stage == 3:
            yield refusal("training.ema", self.ema, "null with training.zero_stage 3, which keeps weights in parts")


class NodeCache(Section):
    """Shards from S3 on a node's own disk, shared by all trials there. It changes no result."""

    folder: Folder = "~/.cache/lic-distillery"  # of every node; a store on file:// is read where it is
    gigabytes: Annotated[float, Field(gt=0)] = 20.0  # at most; what was used longest ago goes


class Search(Section):
    """Which trials of the search space are run. Controls come first, whatever the method."""

    # grid: every combination of a student, a teacher and a loss, in turns. The others draw, from ranges of weights too:
    # random | tpe, towards good BD-rates, students taking turns | nsga2, towards a front of BD-rate and MACs per pixel
    method: Literal["grid", "random", "tpe", "nsga2"] = "grid"
    replicates: Annotated[int, Field(ge=1)] = 1  # trials of each configuration, with the seeds seed, seed + 1, ...


class Preemption(Section):
    """What SIGTERM to the sweep's process does: it saves the running trials and leaves, with exit code 75."""

    grace_s: Annotated[float, Field(gt=0)] = 25.0  # it ends then in any case; Kubernetes' SIGKILL follows after 30


class EarlyStopping(Section):
    rule: StoppingRule = "stratified"  # who competes, see orchestrator/sweep/rungs.py; none: nothing is stopped
    rungs: Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(allowed.rising)] = (512, 1536, 4608)
    # images seen; the last one ends a trial
    reduction: Annotated[int, Field(ge=2)] = 3  # keeps the best 1/reduction of those that compete at each rung
    # the trials of a class are in bracket 0, 1, ... in turn; bracket b stops nobody before rung b
    brackets: Annotated[int, Field(ge=1)] = 1

    def faults(self) -> Iterator[str]:
        if self.brackets > len(self.rungs):
            yield refusal("brackets", self.brackets, f"at most {len(self.rungs)}, the number of rungs")


class Spec(Section):
    name: Name  # of the run folder, results/name
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    trials: Annotated[int, Field(ge=1)]  # how many of the search space's trials are run
    controls: bool = True  # a no-distillation trial for every student
    photographs: Photographs
    crops: Crops = Crops()
    validation: Validation = Validation()
    rate_ladder: RateLadder = RateLadder()
    teachers: Annotated[tuple[Teacher, ...], Field(min_length=1)]
    students: Annotated[tuple[Student, ...], Field(min_length=1)]
    # see orchestrator/distill/phases.py; a weight may be a range to draw from, such as {low: 0.003, high: 3.0}
    losses: Annotated[tuple[LossSpace, ...], Field(min_length=1)]
    search: Search = Search()
    training: Training = Training()
    early_stopping: EarlyStopping = EarlyStopping()
    preemption: Preemption = Preemption()
    concurrent_trials: Annotated[int, Field(ge=1)] = 1
    candidates: Annotated[int, Field(ge=1)] = 6  # at most so many trials are coded with real bitstreams
    store: Place = "runs/store"  # path or URL (file, s3) of the feature cache
    node_cache: NodeCache = NodeCache()
    results: Place = "runs"  # path or URL (file, s3); the run folder is results/name

    def faults(self) -> Iterator[str]:
        return _faults_across(self)

    @classmethod
    def written_out(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A loss may be written as a preset's name."""
        losses = data.get("losses")
        if not isinstance(losses, list):
            return data
        return data | {"losses": [{"preset": loss} if isinstance(loss, str) else loss for loss in losses]}

    def resolved(self, base: str | Path) -> Spec:
        """The same specification with every local path absolute: relative ones from `base`, ~ is the home folder."""
        data = self.model_dump()
        places = {"photographs": ("train", "validation"), "node_cache": ("folder",)}
        for section, fields in ((data, ("store", "results")), *((data[name], places[name]) for name in places)):
            section.update({field: absolute(section[field], base) for field in fields})
        for teacher in data["teachers"]:
            teacher["weights"] = absolute(teacher["weights"], base)
        for student in data["students"]:
            student["init"] = absolute(student["init"], base)
        return Spec.model_validate(data)


class Trial(Section):
    """One trial: a student, the teacher it learns from (None: the control) and the weights of its loss."""

    trial_id: str  # such as 03-hyperprior-n16-control
    student: Student
    teacher: str | None
    loss: Loss
    seed: int
    # what a search drew, by the names of its parameters, see sweep/search.py; {}: nothing was drawn
    choices: dict[str, int | float | str] = Field(default_factory=dict)

    @property
    def complexity_class(self) -> str:
        """Trials of one class compete at a rung: the same student architecture, so the same complexity."""
        student = self.student
        return f"{student.family}-n{student.N}-m{student.M}" + (f"-z{student.Z}" if student.Z else "")


Loaded = TypeVar("Loaded", bound=Section)


def absolute(path: str, base: str | Path) -> str:
    """A local path made absolute, from `base` where it is relative; a URL, a zoo name, an init's keyword stay as is."""
    if "://" in path or path.startswith("zoo:") or path in ("random", "teacher-slice"):
        return path
    return str((Path(base) / Path(path).expanduser()).resolve())


def load_spec(
    path: str | Path,
    overrides: Sequence[str] = (),
    model: type[Loaded] = Spec,  # type: ignore[assignment] # mypy has no defaults of a type variable's argument
    option: str = "--set",
) -> Loaded:
    """The specification in a YAML file, with overrides such as `training.learning_rate=3e-4` or `students.0.N=12`.

    Another `model`, such as a recipe, is read by the same rules; `option` is what its overrides are given by.

    Raises SpecError with every fault found. What concerns several fields at once is looked at when each is sound by
    itself.
    """
    try:
        data = parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SpecError([f"{path}: cannot be read: it is not UTF-8 text"]) from None
    except YamlFault as fault:
        raise SpecError([f"{path}: {fault}"]) from None
    if not isinstance(data, dict):
        raise SpecError([f"{path}: {shown(data)} is not allowed: a section with {', '.join(model.model_fields)}"])
    faults = [fault for override in overrides for fault in _override(data, override, option)]
    if faults:
        raise SpecError(faults)
    try:
        # By way of JSON: to a strict model its arrays are tuples and its whole numbers floats; nothing else converts.
        spec = model.model_validate_json(json.dumps(model.written_out(data)))
    except ValidationError as error:
        raise SpecError([f"{path}: {line}" for line in explain(error, model)]) from None
    faults = [f"{path}: {fault}" for fault in spec.faults()]
    if faults:
        raise SpecError(faults)
    return spec


def dump(spec: Spec) -> str:
    """YAML that `load_spec` reads back to an equal specification."""
    return write(spec.model_dump(mode="json"))


def missing_folders(photographs: Photographs) -> list[str]:
    """A line for each folder of photographs that is not there."""
    folders = (("train", photographs.train), ("validation", photographs.validation))
    return [
        refusal(f"photographs.{field}", folder, "a folder that exists")
        for field, folder in folders
        if not Path(folder).is_dir()
    ]


def check_paths(spec: Spec) -> None:
    """Raises SpecError unless every local file and folder that the specification reads is there."""
    faults = missing_folders(spec.photographs)
    files = [(f"teachers.{i}.weights", teacher.weights) for i, teacher in enumerate(spec.teachers)]
    files += [(f"students.{i}.init", student.init) for i, student in enumerate(spec.students)]
    faults += [
        f"{field}: {shown(name)} is not allowed: a file that exists"
        for field, name in files
        if not name.startswith("zoo:") and name not in ("random", "teacher-slice") and not Path(name).is_file()
    ]
    if faults:
        raise SpecError(faults)


def _override(data: dict[str, Any], override: str, option: str) -> list[str]:
    """Applies one FIELD=VALUE to the data, in place; returns its faults."""
    field, separator, text = override.partition("=")
    path = field.strip().split(".")
    if not separator or not all(path):
        return [
            f"{option} {without_credentials(override)}: not allowed: FIELD=VALUE, such as training.learning_rate=3e-4"
        ]
    try:
        assign(data, path, parse(text))
    except YamlFault as fault:
        return [without_credentials(f"{option} {field}: {fault}")]
    return []


def _faults_across(spec: Spec) -> Iterator[str]:
    """What is wrong between fields that are each right."""
    training, rate_points = spec.training, len(spec.rate_ladder.lambdas)
    if rate_points < MINIMUM_RATE_POINTS:
        least = f"at least {MINIMUM_RATE_POINTS} of them, since BD-rate needs a curve"
        yield refusal("rate_ladder.lambdas", spec.rate_ladder.lambdas, least)
    yield from (f"rate_ladder.{fault}" for fault in spec.rate_ladder.faults())
    yield from spec.rate_ladder.side_faults("crops.size", spec.crops.size)
    yield from spec.rate_ladder.side_faults("validation.size", spec.validation.size)
    yield from training.faults()
    for i, student in enumerate(spec.students):
        yield from (f"students.{i}.{fault}" for fault in student.faults())
    for i, each in enumerate(spec.losses):
        yield from (f"losses.{i}.{fault}" for fault in each.faults())
        if spec.search.method == "grid":
            number = "a number, since search.method is grid"
            yield from (refusal(f"losses.{i}.{name}", wide, number) for name, wide in each.ranges.items())
        loss = each.lowest
        for term in sorted(loss.terms):
            index = loss.rate_point(term, rate_points)
            if index is not None and index >= rate_points:
                least = f"same or at most {rate_points - 1}, the index of the last lambda"
                yield refusal(f"losses.{i}.teacher_rate_point.{term}", index, least)
    yield from (f"early_stopping.{fault}" for fault in spec.early_stopping.faults())
    for i, rung in enumerate(spec.early_stopping.rungs):
        if rung % training.batch_size:
            batches = f"a multiple of training.batch_size, {training.batch_size}"
            yield refusal(f"early_stopping.rungs.{i}", rung, batches)
    batches = f"a batch of {training.batch_size} for each of {rate_points} lambdas"
    if spec.crops.count is not None and spec.crops.count < training.batch_size * rate_points:
        yield refusal("crops.count", spec.crops.count, f"at least {training.batch_size * rate_points}: {batches}")
    yield from _repeats("teachers.{}.name", [teacher.name for teacher in spec.teachers])
    yield from _repeats("students.{}", [student.model_dump() for student in spec.students])
    yield from _repeats("losses.{}", [loss.model_dump(exclude_defaults=True) for loss in spec.losses])
    students, teachers = len(spec.students), len(spec.teachers)
    controls = sum(loss.lowest.is_control for loss in spec.losses)
    losses = len(spec.losses) - controls
    controls = controls or int(spec.controls)
    space = students * (teachers * losses + controls) * spec.search.replicates
    if spec.trials % spec.search.replicates:
        yield refusal("trials", spec.trials, f"a multiple of search.replicates, {spec.search.replicates}")
    elif spec.trials > space and not any(loss.ranges for loss in spec.losses):
        product = f"{students} students x ({teachers} teachers x {losses} losses + {controls} control)"
        product += f" x {spec.search.replicates} replicates" if spec.search.replicates > 1 else ""
        yield refusal("trials", spec.trials, f"at most {space}: {product}")
    if spec.store.rstrip("/") == f"{spec.results.rstrip('/')}/{spec.name}":
        yield refusal("name", spec.name, "another one, since results/name is the store")


def _repeats(field: str, entries: Sequence[object]) -> Iterator[str]:
    for i, entry in enumerate(entries):
        first = entries.index(entry)
        if first < i:
            yield refusal(field.format(i), entry, f"each only once, and {field.format(first)} has this")
