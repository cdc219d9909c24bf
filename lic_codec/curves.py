"""Rate-distortion curves, and the photographs that they are of: none is compared with one of other photographs.

A curve's file is of CompressAI's form, {"name", "results": {"bpp": [...], "psnr-rgb": [...], "ms-ssim-rgb": [...]}}.
One that was measured here has rows of photographs, with the digests of their pixels. A published one has the name of a
standard set, as CompressAI writes it, {"meta": {"dataset": "kodak"}}.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lic_codec.bd_rate import Point, invalid_curve
from lic_codec.errors import CurveError, one_line
from lic_codec.json_values import Json
from lic_codec.metrics import ms_ssim_db
from lic_codec.sets import SETS, set_of

Distortion = Literal["mse", "ms-ssim"]
DISTORTIONS: tuple[Distortion, ...] = get_args(Distortion)
COLUMNS: Mapping[Distortion, str] = {"mse": "psnr-rgb", "ms-ssim": "ms-ssim-rgb"}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A codec's curve.

    Attributes:
        name: of the codec.
        points: (bpp, quality in dB), means over the photographs.
        of_photograph: digest -> the photograph's own points; empty: it is not known which photographs they are.
        photograph_set: the name of a standard set; None: unknown.
        file: its file's name; None: measured in this run.
    """

    name: str
    points: tuple[Point, ...]
    of_photograph: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    photograph_set: str | None = None
    file: str | None = None

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], distortion: Distortion = "mse", published_on: str | None = None
    ) -> Curve:
        """A file's curve.

        Args:
            path: of the file.
            distortion: of which quality it is to be.
            published_on: the set of a curve that names none.

        Raises:
            CurveError: the file holds no such curve, or one of which no BD-rate can be taken.
        """
        path = Path(path)
        column = COLUMNS[distortion]
        document = _document(path)
        try:
            results: Any = document["results"]
            points = _points(f"bpp and {column}", zip(results["bpp"], results[column], strict=True))
        except (ValueError, KeyError, TypeError) as error:
            why = f": {error}" if isinstance(error, ValueError) else ""
            raise CurveError(f"{path}: no curve with results.bpp and results.{column} of one length{why}") from None
        if distortion == "ms-ssim":
            if beyond := [value for _, value in points if not 0 <= value <= 1]:
                raise CurveError(f"{path}: results.{column}: {beyond[0]} is no MS-SSIM, which is 0 to 1 and not in dB")
            points = [(rate, ms_ssim_db(value)) for rate, value in points]
        name = document.get("name", path.stem)
        if not isinstance(name, str):
            raise CurveError(f"{path}: name: {reprlib.repr(name)} is not allowed: text")
        if why_not := invalid_curve(f"results.bpp and results.{column}", points):
            raise CurveError(f"{path}: no curve to compare with: {why_not.detail}")
        return cls(
            name=one_line(name),
            points=tuple(points),
            of_photograph=_of_photographs(path, document, distortion),
            photograph_set=_set(path, document) or published_on,
            file=one_line(path.name),
        )

    def check_photographs(self, digests: Set[str]) -> None:
        """Raises CurveError: the curve is not, or not known to be, of exactly the photographs of these digests."""
        own = frozenset(self.of_photograph)
        where = f"{self.file or self.name}: not compared"
        if own:
            if own != digests:
                raise CurveError(f"{where}: it is of {_difference(own, digests)}")
        elif self.photograph_set is None:
            raise CurveError(
                f"{where}: it does not say which photographs it is of; if they are those of a standard set, name it: "
                f"--published-on {'|'.join(SETS)}"
            )
        elif self.photograph_set not in SETS:
            known = ", ".join(SETS)
            raise CurveError(f"{where}: it is of {self.photograph_set}, whose photographs are not known here ({known})")
        elif self.photograph_set != set_of(digests):
            difference = _difference(SETS[self.photograph_set], digests)
            raise CurveError(f"{where}: it is of {self.photograph_set}, {difference}")


def _difference(own: Set[str], digests: Set[str]) -> str:
    return f"{len(own)} photographs, {len(own & digests)} of which are among the folder's {len(digests)}"


def _document(path: Path) -> dict[str, Json]:
    """A file's JSON object. Raises CurveError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except OSError as error:
        raise CurveError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CurveError(f"{path}: it is not UTF-8 text; UTF-16 has to be converted") from None
    except RecursionError:
        raise CurveError(f"{path}: no JSON: nested too deep") from None
    except ValueError as error:
        raise CurveError(f"{path}: no JSON: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise CurveError(f"{path}: not an object with results")
    return document


def _set(path: Path, document: Mapping[str, Json]) -> str | None:
    """The set's name that a document has, in small letters."""
    meta = document.get("meta")
    name = document.get("photograph_set") or (meta.get("dataset") if isinstance(meta, dict) else None)
    if not (name is None or isinstance(name, str)):
        raise CurveError(f"{path}: the name of its set of photographs is no text: {reprlib.repr(name)}")
    return None if name is None else one_line(name.lower())


def _of_photographs(path: Path, document: Mapping[str, Json], distortion: Distortion) -> dict[str, tuple[Point, ...]]:
    """digest -> points, of rows with digests; empty if there are none. Raises CurveError: half of what they need."""
    rows = document.get("photographs")
    if not isinstance(rows, list) or not any(isinstance(row, dict) and "digest" in row for row in rows):
        return {}
    try:
        pairs: dict[str, list[tuple[Any, Any]]] = {}
        for row in rows:
            quality = row["psnr_db"] if distortion == "mse" else row["ms_ssim"]
            pairs.setdefault(str(row["digest"]), []).append((row["bpp"], quality))
        found = {digest: _points("photographs", of_one) for digest, of_one in pairs.items()}
    except (KeyError, TypeError, ValueError):
        needed = "digest, bpp and psnr_db" if distortion == "mse" else "digest, bpp and ms_ssim"
        raise CurveError(f"{path}: photographs: each row needs {needed}") from None
    if distortion == "ms-ssim":
        return {digest: tuple((rate, ms_ssim_db(value)) for rate, value in of_one) for digest, of_one in found.items()}
    return {digest: tuple(of_one) for digest, of_one in found.items()}


def _points(name: str, pairs: Iterable[Sequence[Any]]) -> list[Point]:
    """Raises ValueError: not all are pairs of numbers."""
    points = []
    for pair in pairs:
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in pair):
            raise ValueError(f"{name}: {reprlib.repr(tuple(pair))} is not a pair of numbers")
        try:
            rate, quality = map(float, pair)
        except OverflowError:
            raise ValueError(f"{name}: {reprlib.repr(tuple(pair))} is not a pair of numbers") from None
        points.append((rate, quality))
    return points
