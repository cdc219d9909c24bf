"""Names -> networks. `python -m models.catalogue` prints the shipped ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from models.ladder import RateLadder
from models.weights import assign, load_ladder, read_tensors, slice_from

SHIPPED = Path(__file__).parent / "weights"


def build_ladder(
    *,
    family: str,
    N: int,
    M: int,
    Z: int | None = None,
    lambdas: Sequence[float],
    kind: Literal["variable-rate", "fixed-lambda"],
    init: str = "random",
    teacher: str | None = None,
) -> RateLadder:
    """A ladder with its first weights.

    Args:
        family, N, M, Z, lambdas, kind: see `RateLadder`.
        init: `random`; `teacher-slice`, the leading channels of `teacher`; or the path of a weights file of the same
            network.
        teacher: path of the teacher's weights, for `teacher-slice`.

    Raises:
        WeightsError: `init` names a file that is missing, damaged or of another network.
        ValueError: `teacher-slice` without a teacher.
    """
    ladder = RateLadder(family=family, N=N, M=M, Z=Z, lambdas=lambdas, kind=kind)
    if init == "random":
        return ladder
    if init == "teacher-slice":
        if teacher is None:
            raise ValueError("init: teacher-slice needs a teacher")
        slice_from(ladder, load_ladder(teacher))
        return ladder
    assign(ladder, read_tensors(init), source=init)
    return ladder


def main() -> None:
    print(f"{'weights':32} {'family':12} {'N':>4} {'M':>4} {'parameters':>11}")
    for path in sorted(SHIPPED.glob("*.safetensors")):
        ladder = load_ladder(path)
        count = sum(parameter.numel() for parameter in ladder.parameters())
        print(f"{path.stem:32} {ladder.family:12} {ladder.N:4} {ladder.M:4} {count:11,}")


if __name__ == "__main__":
    main()
