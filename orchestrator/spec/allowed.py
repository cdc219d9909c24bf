"""What a field of the specification may hold beyond its type.

Each check returns the value, or raises ValueError whose message is what is allowed.
"""

from __future__ import annotations

import re
from itertools import pairwise

from models.families import FAMILIES
from orchestrator.spec.messages import one_of


def rising(values: tuple[float, ...]) -> tuple[float, ...]:
    """Numbers above 0, each greater than the one before."""
    if values[0] <= 0 or any(late <= early for early, late in pairwise(values)):
        raise ValueError("numbers above 0, each greater than the one before")
    return values


def share_range(values: tuple[float, float]) -> tuple[float, float]:
    """The bounds of a range within 0..1, without 0."""
    if not 0 < values[0] <= values[1] <= 1:
        raise ValueError("two numbers above 0 and up to 1, the smaller one first")
    return values


def zero_stage(value: object) -> object:
    """No boolean: to Python, and so to a Literal, it equals 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("0, 1, 2 or 3")
    return value


def gpus(value: float | None) -> float | None:
    """GPUs per rank: Ray gives a rank whole GPUs, or a share of one."""
    if value is not None and value > 1 and value != int(value):
        raise ValueError("a number of at most 1, or a whole number")
    return value


def local_path(value: str) -> str:
    """A path on a local or mounted disk, not a URL."""
    if not value.strip() or "\0" in value or "://" in value:
        raise ValueError("a local path")
    return value


def place(value: str) -> str:
    """A local path, file:///path or s3://bucket/prefix; credentials stay in the environment."""
    allowed = "a path, file:///path or s3://bucket/prefix"
    scheme, separator, rest = value.partition("://")
    if not separator and (re.match(r"[A-Za-z0-9]*:", value) or not value.strip() or "\0" in value):
        raise ValueError(allowed)
    if not separator:
        return value
    if scheme not in ("file", "s3"):
        raise ValueError(allowed)
    if scheme == "s3" and re.search(r"[@?#]", rest):
        raise ValueError(
            "a URL without credentials, @, ? and #: credentials are read from the environment (AWS_ACCESS_KEY_ID)"
        )
    if not re.match(r"/[^/]" if scheme == "file" else r"[a-z0-9][a-z0-9.-]+(/|$)", rest):
        raise ValueError(allowed)
    return value


def weights(value: str) -> str:
    """A local weights file, or the name of a pretrained network of CompressAI's zoo."""
    if value.startswith("zoo:"):
        if not re.fullmatch(r"zoo:[a-z0-9-]+", value):
            raise ValueError("zoo:NAME, such as zoo:bmshj2018-hyperprior; rate_ladder.lambdas say which qualities")
    elif not value.endswith(".safetensors") or "://" in value or "\0" in value:
        raise ValueError("a local .safetensors file or zoo:NAME")
    return value


def init(value: str) -> str:
    """Where a student's first weights come from."""
    words = ("random", "teacher-slice", "teacher-refit")
    if value not in words and (not value.endswith(".safetensors") or "://" in value or "\0" in value):
        raise ValueError(f"{', '.join(words)} or a local .safetensors file")
    return value


def teacher_rate_point(value: object) -> object:
    """`same`, an index of at least 0, or None."""
    if value in (None, "same") or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError("same or an index into rate_ladder.lambdas")


def family(value: str) -> str:
    """One of `models.families.FAMILIES`."""
    if value not in FAMILIES:
        raise ValueError(one_of(FAMILIES))
    return value
