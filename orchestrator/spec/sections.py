"""The sections of a specification that stand by themselves: fields with their defaults, and what each may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from models.families import FAMILIES, LEAST_SIDE, Distortion
from orchestrator.spec import allowed
from orchestrator.spec.section import Section, refusal

# With 4 a student overfits, 16 and 64 do as well as fresh crops without end: benchmarks/results/crops_per_image.json.
CROPS_A_PHOTOGRAPH = 16
PRIM_LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025)
MINIMUM_RATE_POINTS = 4  # a BD-rate needs a curve of four points
Inherited = Literal["g_a", "g_s", "entropy"]
Part = Literal["g_a", "h_a", "h_s", "g_s", "entropy"]  # of a network; entropy: whatever is in none of the others
Half = Literal["encoder", "decoder"]
MeasuredAxis = Literal["encode_ms_per_megapixel", "decode_ms_per_megapixel"]  # on the machine; see models/times.py
Axis = Literal["macs_per_pixel", "encoder_macs_per_pixel", "decoder_macs_per_pixel", "params", MeasuredAxis]
Criterion = Literal["activation", "sensitivity", "redundancy"]
Start = Literal["random", "teacher-slice", "teacher-refit"]
STARTS: tuple[Start, ...] = get_args(Start)
StoppingRule = Literal["stratified", "pause", "asha", "moasha", "none"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Folder = Annotated[str, AfterValidator(allowed.local_path)]
StoreUrl = Annotated[str, AfterValidator(allowed.place)]
Settled = TypeVar("Settled")


class Photographs(Section):
    """Where photographs are: in a folder or below an S3 prefix, with all that is in it, also in tars."""

    train: StoreUrl  # training photographs
    validation: StoreUrl  # photographs that early stopping and the front are computed on
    unfit: Literal["fail", "skip"] = "fail"  # what a truncated, CMYK, 16-bit, too small ... photograph does


class Crops(Section):
    """The finite crop plan: every training step reads crops of this plan, so teacher outputs can be computed once."""

    count: Annotated[int | None, Field(ge=8)] = None  # null: CROPS_A_PHOTOGRAPH for each photograph
    size: Annotated[int, Field(ge=64, multiple_of=64)] = 128  # pixels a side
    flip: bool = True  # mirror half of them left to right
    downscale: Annotated[tuple[float, float], AfterValidator(allowed.share_range)] = (1.0, 1.0)
    # a crop is cut from a box of size/f pixels, f uniform in this range, and resized


class Validation(Section):
    """The crops that trials are validated on."""

    crops: Annotated[int, Field(ge=1)] = 6
    size: Annotated[int, Field(ge=64, multiple_of=64)] = 256


class Network(Section):
    """An architecture."""

    family: Annotated[str, AfterValidator(allowed.family)]
    N: Annotated[int, Field(ge=1, le=512)]  # channels of the transforms' hidden layers
    M: Annotated[int, Field(ge=1, le=1024)]  # channels of the latent y
    Z: Annotated[int | None, Field(ge=1, le=512)] = None  # channels of the hyper-latent z; null: N
    encoder_N: Annotated[int | None, Field(ge=1, le=512)] = None  # channels of g_a's hidden layers; null: N

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        least = FAMILIES[self.family].least_M
        if least > self.M:
            yield refusal("M", self.M, f"at least {least} for {self.family}, one for each group of channels")


class Teacher(Section):
    """A network that students learn from."""

    name: Name
    weights: Annotated[
        str, AfterValidator(allowed.weights)
    ]  # a safetensors file of ours, or zoo:NAME for CompressAI's networks of the ladder's lambdas


class Student(Network):
    """A network that is trained."""

    # random | teacher-slice, the leading channels of a trial's own teacher | teacher-refit, see distill/refit/ | a file
    init: Annotated[str, AfterValidator(allowed.init)] = "random"
    # Parts that are the teacher's own: of its family, with its M, and with its Z and encoder_N if these are null.
    # entropy: h_a, h_s and all else between y and the bits. A loss's phases say whether they are trained (freeze).
    inherit: tuple[Inherited, ...] = ()
    teachers: tuple[Name, ...] | None = None  # that it learns from; null: all, or those that it can inherit from
    # of a shelf: this half alone is trained, all else is the teacher's own and stays so; written as `encoders` and
    # `decoders`
    half: Half | None = None

    @property
    def frozen(self) -> frozenset[Part]:
        """Parts that are never trained."""
        return frozenset(OTHER_PARTS[self.half]) if self.half else frozenset()

    @property
    def complexity_class(self) -> str:
        """The architecture's name. Trials of one class compete at a rung: they have the same complexity."""
        name = f"{self.family}-n{self.N}-m{self.M}" + (f"-z{self.Z}" if self.Z else "")
        return name + (f"-e{self.encoder_N}" if self.encoder_N else "")

    @property
    def width(self) -> int:
        """N of what is trained: of the encoder if that is all."""
        return (self.encoder_N or self.N) if self.half == "encoder" else self.N


OTHER_PARTS: Mapping[Half, tuple[Part, ...]] = {
    "encoder": ("h_a", "h_s", "g_s", "entropy"),
    "decoder": ("g_a", "h_a", "h_s", "entropy"),
}


class HalfNetwork(Section):
    """An encoder (g_a) or a decoder (g_s), in the latent space of the specification's teacher."""

    family: Annotated[str, AfterValidator(allowed.family)]
    N: Annotated[int, Field(ge=1, le=512)]  # channels of its hidden layers


class Shelf(Section):
    """What becomes of encoders and decoders that were trained by themselves: all pairs of them are scored, and some of
    those on the front of cost J are trained on as whole networks."""

    joined: Annotated[int, Field(ge=1)] = 6  # at most so many pairs are trained on
    share: Annotated[float, Field(gt=0)] = 0.25  # times the last rung's images, for each of them
    learning_rate: Annotated[float, Field(gt=0)] = 0.5  # times the cosine of training.learning_rate over them
    # true: the entropy model stays the teacher's, so that every decoder reads every encoder's streams
    interchangeable: bool = True
    # pairs that are scored: all | predicted, those that may be on the front by bounds from their halves' BD-rates
    scored: Literal["all", "predicted"] = "all"


class Refit(Section):
    """How the first weights of `teacher-refit` are made; see orchestrator/distill/refit."""

    # of the teacher's channels that are kept: activation | sensitivity | redundancy, see distill/refit/channels.py
    criterion: Criterion = "redundancy"
    crops: Annotated[int, Field(ge=8)] = 64  # of the crop plan, that the layers are fitted to


class RateLadderSection(Section):
    """The rate points that all networks of a sweep share."""

    kind: Literal["variable-rate", "fixed-lambda"] = "variable-rate"
    lambdas: Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(allowed.rising)] = PRIM_LAMBDAS
    # of bpp + lambda * distortion, rising
    distortion: Distortion = "mse"  # 255^2 * MSE, or 1 - MS-SSIM

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        if self.distortion == "ms-ssim" and self.lambdas == PRIM_LAMBDAS:
            yield refusal("lambdas", self.lambdas, "those of 1 - MS-SSIM, such as 2.4, 4.58, 8.73, 16.64, 31.73")

    def side_problems(self, field: str, side: int) -> Iterator[str]:
        """The problem of a crop's side (pixels) that is too small for the distortion, if it is."""
        if self.distortion == "ms-ssim" and side < LEAST_SIDE:
            yield refusal(field, side, f"at least {LEAST_SIDE} for rate_ladder.distortion ms-ssim")


class Training(Section):
    """How a trial is trained."""

    batch_size: Annotated[int, Field(ge=1)] = 8  # crops a step, over all ranks of a trial
    # crops a rank that go through the network at once; gradients of a step's are summed up. null: all of its share
    micro_batch_size: Annotated[int | None, Field(ge=1)] = None
    # soap: faster by images and by time, most of all from random weights; it takes three times the learning rate
    optimizer: Literal["adam", "soap"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    # crops over which the learning rate rises to its curve: from good weights, SOAP's first steps are too large without
    warmup_images: Annotated[int, Field(ge=0)] = 0
    aux_learning_rate: Annotated[float, Field(gt=0)] = 1e-3  # of the entropy bottleneck's quantiles
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    zero_stage: Annotated[Literal[0, 1, 2, 3], BeforeValidator(allowed.zero_stage)] = 1
    # of the transforms; auto: bf16 if what all nodes train on has instructions for it, else fp32; see sweep/settle.py
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    # transforms: g_a and g_s are compiled in training (torch.compile); it takes a C++ compiler on every node, and up to
    # minutes a student size. Faster from about N=64 on: measure it, see docs/architecture.md.
    compile: Literal["off", "transforms"] = "off"
    # decay a step, such as 0.999, of the averages of the weights that are validated and exported; null: no averages
    ema: Annotated[float | None, Field(gt=0, lt=1)] = None
    # These two and concurrent_trials, if null: trials side by side, as many as fit; see sweep/layout.py.
    ranks_per_trial: Annotated[int | None, Field(ge=1)] = None
    # 0: a sweep trains on CPUs. A fraction lets ranks of several trials share a GPU.
    gpus_per_rank: Annotated[float | None, Field(ge=0), AfterValidator(allowed.gpus)] = None
    threads_per_rank: Annotated[int, Field(ge=1)] = 1

    @property
    def ranks(self) -> int:
        """Of a trial. Raises ValueError: not settled yet."""
        return _settled("ranks_per_trial", self.ranks_per_trial)

    @property
    def gpus(self) -> float:
        """Of a rank. Raises ValueError: not settled yet."""
        return _settled("gpus_per_rank", self.gpus_per_rank)

    @property
    def settled_precision(self) -> Literal["fp32", "bf16"]:
        """Of the transforms. Raises ValueError: not settled yet."""
        return _settled("precision", None if self.precision == "auto" else self.precision)

    @property
    def crops_at_once(self) -> int:
        """Crops of a rank that go through the network at once."""
        return self.micro_batch_size or self.batch_size // self.ranks

    def ranks_on(self, cpus: float, gpus: float) -> int:
        """How many ranks fit on a node with so many CPUs and GPUs: each takes one CPU, and its GPUs on that node."""
        share = self.gpus_per_rank
        if not share:
            return int(cpus)
        return min(int(cpus), int(gpus) * int(1 / share + 1e-9) if share <= 1 else int(gpus // share))

    def shared_by(self, ranks: int) -> bool:
        """Whether so many ranks can share a batch evenly, and each its micro-batches."""
        return not self.batch_size % ranks and not self.batch_size // ranks % (self.micro_batch_size or 1)

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        given = self.ranks_per_trial or 1
        if self.batch_size % given:
            ranks = f"a multiple of training.ranks_per_trial, {given}"
            yield refusal("training.batch_size", self.batch_size, ranks)
        share = self.batch_size // given
        if self.micro_batch_size is not None and share % self.micro_batch_size:
            divisor = f"a divisor of {share}, a rank's share of training.batch_size"
            yield refusal("training.micro_batch_size", self.micro_batch_size, divisor)
        if 0 < (self.gpus_per_rank or 0) < 1 < given:
            whole = "0 or a whole number with several ranks a trial: NCCL takes one rank a GPU"
            yield refusal("training.gpus_per_rank", self.gpus_per_rank, whole)
        if self.optimizer == "soap" and self.zero_stage:
            whole = f"adam with training.zero_stage {self.zero_stage}, which parts flattened layers; soap takes 0"
            yield refusal("training.optimizer", self.optimizer, whole)
        if self.compile != "off" and self.zero_stage == 3:
            yield refusal(
                "training.compile", self.compile, "off with training.zero_stage 3, which reads inside g_a and g_s"
            )
        if self.ema is not None and self.zero_stage == 3:
            yield refusal("training.ema", self.ema, "null with training.zero_stage 3, which keeps weights in parts")


def _settled(field: str, value: Settled | None) -> Settled:
    """Raises ValueError for one that a sweep settles when it starts, and has not."""
    if value is None:
        raise ValueError(f"training.{field} is not settled: orchestrator/sweep/settle.py does that")
    return value


class NodeCacheSection(Section):
    """Shards on a node's own disk, shared by all trials there. It changes no result."""

    # on every node; a store on file:// is read directly, unless `decoded`. The default is in XDG_CACHE_HOME where that
    # is set.
    folder: Folder = "~/.cache/lic-distillery"
    gigabytes: Annotated[float, Field(gt=0)] = 20.0  # at most; what was used longest ago is removed
    # true: shards are kept decoded, those of a store on file:// too. They take about twice the disk, and a crop a
    # fraction of the CPU time. As stored, if `gigabytes` has no room for all decoded shards that a trial reads
    decoded: bool = False


class SearchSection(Section):
    """Which trials of the search space are run. Controls come first, whatever the method."""

    # grid: every combination of a student, a teacher and a loss, in turns. The others draw, from ranges of weights too:
    # random | tpe, towards good BD-rates, students taking turns | nsga2, towards a front of BD-rate and MACs per pixel
    method: Literal["grid", "random", "tpe", "nsga2"] = "grid"
    replicates: Annotated[int, Field(ge=1)] = 1  # trials of each configuration, with the seeds seed, seed + 1, ...


class Preemption(Section):
    """What happens at SIGTERM: the sweep saves the running trials and exits with code 75."""

    grace_s: Annotated[float, Field(gt=0)] = 25.0  # it exits then in any case; Kubernetes sends SIGKILL after 30


class EarlyStopping(Section):
    """When trials are compared, and which of them continue."""

    rule: StoppingRule = "stratified"  # who competes, see orchestrator/sweep/choose/rungs.py; none: nothing is stopped
    rungs: Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(allowed.rising)] = (512, 1536, 4608)
    # images seen; the last one ends a trial
    reduction: Annotated[int, Field(ge=2)] = 3  # keeps the best 1/reduction of those that compete at each rung
    # the trials of a class are in bracket 0, 1, ... in turn; bracket b stops nobody before rung b
    brackets: Annotated[int, Field(ge=1)] = 1

    def problems(self) -> Iterator[str]:
        """See `Section.problems`."""
        if self.brackets > len(self.rungs):
            yield refusal("brackets", self.brackets, f"at most {len(self.rungs)}, the number of rungs")
