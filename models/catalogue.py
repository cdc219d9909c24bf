"""Networks by name. `python -m models.catalogue` prints the shipped ones and those of the papers, with their costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.families import Distortion, Kind
from models.one_line import OneLineParser
from models.weights import assign, load_ladder, read_tensors, slice_from

if TYPE_CHECKING:
    from models.ladder import RateLadder

SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Widths:
    """N, M and Z (None: N) of a network of `family`."""

    family: str
    N: int
    M: int
    Z: int | None = None


REFERENCE: Mapping[str, Widths] = {
    "prim-teacher": Widths(family="hyperprior", N=128, M=192),  # CompressAI's bmshj2018-hyperprior up to quality 5
    **{f"prim-student-n{N}": Widths(family="hyperprior", N=N, M=192) for N in (112, 96, 64, 32, 16)},
    "prim-l2-student-n64": Widths(family="hyperprior", N=64, M=192, Z=128),
    "mean-scale-teacher": Widths(family="mean-scale", N=128, M=192),  # CompressAI's mbt2018-mean up to quality 4
    **{f"mean-scale-student-n{N}": Widths(family="mean-scale", N=N, M=192) for N in (64, 32, 16)},
    "feds-teacher": Widths(family="feds-teacher", N=192, M=320),
    "feds-student": Widths(family="feds-student", N=96, M=192, Z=192),  # the teacher's Z: its z can be learned from
    "transformer-student": Widths(family="transformer", N=64, M=192),
}


def build_ladder(
    *,
    family: str,
    N: int,
    M: int,
    Z: int | None = None,
    encoder_N: int | None = None,
    lambdas: Sequence[float],
    kind: Kind,
    distortion: Distortion = "mse",
    init: str = "random",
    teacher: str | None = None,
) -> RateLadder:
    """A ladder with its initial weights.

    Args:
        family, N, M, Z, encoder_N, lambdas, kind, distortion: see `RateLadder`.
        init: `random`; `teacher-slice`, the leading channels of `teacher`; or the path of a weights file of the same
            network.
        teacher: path of the teacher's weights, for `teacher-slice`.

    Raises:
        WeightsError: `init` names a file that is missing, damaged or of another network.
        ValueError: `teacher-slice` without a teacher.
    """
    from models.ladder import RateLadder  # and torch, seconds later: not for a command line that is wrong

    ladder = RateLadder(
        family=family, N=N, M=M, Z=Z, encoder_N=encoder_N, lambdas=lambdas, kind=kind, distortion=distortion
    )
    if init == "random":
        return ladder
    if init == "teacher-slice":
        if teacher is None:
            raise ValueError("init: teacher-slice needs a teacher")
        slice_from(ladder, load_ladder(teacher))
        return ladder
    assign(ladder, read_tensors(init), source=init)
    return ladder


def reference_ladder(name: str, lambdas: Sequence[float] = (0.025,), kind: Kind = "fixed-lambda") -> RateLadder:
    """One of `REFERENCE`, with random weights; by default of one rate point. Raises KeyError: no such name."""
    from models.ladder import RateLadder

    widths = REFERENCE[name]
    return RateLadder(family=widths.family, N=widths.N, M=widths.M, Z=widths.Z, lambdas=lambdas, kind=kind)


def listing() -> Iterator[str]:
    """The lines of a table: all shipped weights, then all of `REFERENCE`."""
    from models import macs

    yield f"{'name':26} {'family':12} {'N':>4} {'M':>4} {'Z':>4} {'parameters':>11} {'kMAC/pixel: encoder':>20} decoder"
    ladders = [(path.stem, load_ladder(path)) for path in sorted(SHIPPED.glob("*.safetensors"))]
    for name, ladder in [*ladders, *((name, reference_ladder(name)) for name in REFERENCE)]:
        parameters = sum(parameter.numel() for parameter in ladder.parameters())
        counted = macs.count(ladder)
        yield (
            f"{name:26} {ladder.family:12} {ladder.N:4} {ladder.M:4} {ladder.Z:4} {parameters:11,} "
            f"{counted.encoder / 1e3:20.1f} {counted.decoder / 1e3:7.1f}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table. There are no arguments but --help."""
    OneLineParser(prog="python -m models.catalogue", description=__doc__).parse_args(arguments)
    for line in listing():
        print(line)


if __name__ == "__main__":
    main()
