"""Photographs on disk: which files of a folder are fit, their digests and their pixels.

A photograph is identified by the digest of its decoded pixels, so renaming or losslessly re-encoding a file changes
nothing downstream, and one picture in two folders is recognised.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from models.one_line import one_line
from orchestrator.photographs.picture import NOT_READ, Pixels, Unfit, decode, endings

KINDS_NAMED = 8  # kinds of files left out that a summary counts one by one


class PhotographError(ValueError):
    """Photographs that cannot be used: one line `path: reason` each."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    path: str  # absolute
    digest: str  # sha256 hex of its shape and its decoded, upright RGB bytes
    width: int  # pixels, upright
    height: int


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The photographs of a folder."""

    photographs: tuple[Photograph, ...]  # the fit ones, by file name
    findings: tuple[str, ...]  # `path: reason` for each unfit file
    summary: str  # one line: the folder, how many photographs are used, and what is not, counted by kind


def survey(
    folder: str | os.PathLike[str],
    *,
    minimum_side: int,
    unfit: Literal["fail", "skip"] = "fail",
    exclude: Collection[str] = frozenset(),
) -> Survey:
    """Examines every picture of a folder, by its ending in upper or lower case.

    Pictures are turned upright by their EXIF tag; greyscale, palettes and fully opaque alpha become RGB. Unfit are:
    files that do not decode, links to nothing, pictures that Pillow does not read (`NOT_READ`), CMYK and other colour
    spaces, transparency, more than 8 bits a channel, several frames, a side below `minimum_side` pixels, more pixels
    than Pillow's decompression-bomb limit, a picture that occurs twice, and pictures whose digest is in `exclude`
    (those of the other folder, so that train and validation stay apart). Subfolders, hidden files and other endings
    are passed over, and counted in the summary.

    Raises PhotographError: with unfit="fail" if anything is unfit, and always if no file is fit.
    """
    root = Path(folder).absolute()
    files, left_out = _listed(root)
    if not files:
        looked_for = f"looked for *{', *'.join(sorted(endings()))}{_counts(left_out)}"
        raise PhotographError(f"{one_line(str(root))}: no photographs in it ({looked_for})")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter lock
        examined = list(pool.map(lambda file: _examine(file, minimum_side), files))
    fit: dict[str, Photograph] = {}
    findings = []
    for file, result in zip(files, examined, strict=True):
        if isinstance(result, Photograph) and result.digest in exclude:
            reason = "the same picture is in the other folder; train and validation must be apart"
            result = Unfit("in the other folder", reason)
        elif isinstance(result, Photograph) and result.digest in fit:
            result = Unfit("the same picture", f"the same picture as {Path(fit[result.digest].path).name}")
        if isinstance(result, Photograph):
            fit[result.digest] = result
        else:
            left_out[result.kind] += 1
            findings.append(one_line(f"{file}: {result.reason}"))
    if findings and unfit == "fail":
        raise PhotographError("\n".join(findings))
    if not fit:
        raise PhotographError("\n".join([*findings, f"{one_line(str(root))}: no photograph in it is fit"]))
    summary = one_line(f"{root}: {len(fit)} used{_counts(left_out)}")
    return Survey(photographs=tuple(fit.values()), findings=tuple(findings), summary=summary)


def _listed(root: Path) -> tuple[list[Path], Counter[str]]:
    """The pictures of a folder by name, and what else is there, counted by kind. Raises PhotographError."""
    files, passed_over = [], Counter[str]()
    try:
        for entry in sorted(root.iterdir()):
            if entry.name.startswith("."):
                passed_over["hidden"] += 1
            elif entry.is_dir():
                passed_over["subfolders"] += 1
            elif entry.suffix.lower() in endings() or entry.suffix.lower() in NOT_READ:
                files.append(entry)
            else:
                passed_over[f"*{entry.suffix.lower()}" if entry.suffix else "without an ending"] += 1
    except FileNotFoundError:
        raise PhotographError(f"{one_line(str(root))}: no such folder") from None
    except OSError as error:
        raise PhotographError(f"{one_line(str(root))}: cannot be read: {error.strerror}") from None
    return files, passed_over


def _counts(left_out: Counter[str]) -> str:
    """What was left out, the most frequent kinds first."""
    if not left_out:
        return ""
    named = left_out.most_common(KINDS_NAMED)
    others = left_out.total() - sum(count for _, count in named)
    kinds = [f"{kind} {count}" for kind, count in named] + ([f"others {others}"] if others else [])
    return f"; left out {left_out.total()}: {', '.join(kinds)}"


def load_rgb(photograph: Photograph) -> Pixels:
    """Pixels, uint8 [H, W, 3], upright. Raises PhotographError if the file has changed since it was surveyed."""
    try:
        rgb = decode(Path(photograph.path), minimum_side=1)
    except Exception as error:
        raise PhotographError(one_line(f"{photograph.path}: {_one_line(error)}")) from error
    if isinstance(rgb, Unfit):
        raise PhotographError(one_line(f"{photograph.path}: {rgb.reason}"))
    if _digest(rgb) != photograph.digest:
        raise PhotographError(one_line(f"{photograph.path}: its pixels changed since the photographs were surveyed"))
    return rgb


def _examine(file: Path, minimum_side: int) -> Photograph | Unfit:
    # Decoders get arbitrary bytes and raise nearly anything: any error becomes the file's reason.
    try:
        rgb = decode(file, minimum_side)
    except Exception as error:
        return Unfit("cannot be decoded", f"cannot be decoded ({_one_line(error)})")
    if isinstance(rgb, Unfit):
        return rgb
    return Photograph(path=str(file), digest=_digest(rgb), width=rgb.shape[1], height=rgb.shape[0])


def _digest(rgb: Pixels) -> str:
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]}\n".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
