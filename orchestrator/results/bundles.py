"""bundles/: the front's students as bundles that `lic_codec` runs without torch, a zip file each, and their costs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Literal

from lic_codec.bundle import CARD, ENTROPY, UNREADABLE
from orchestrator.results.format import FormatError, OrNotMeasured, ResultFile, StrictModel

BUNDLES = "bundles"
SHORT = 12  # hex digits of a digest in a name, here and in MLflow
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file knows: equal bundles are equal bytes


def bundle_file(trial_id: str, weights_digest: str) -> str:
    """The name of a student's bundle inside the run folder. Other weights have another one."""
    return f"{BUNDLES}/{trial_id}-{weights_digest[:SHORT]}.zip"


def costs_file(trial_id: str, weights_digest: str) -> str:
    """The name of its CodingCosts."""
    return f"{BUNDLES}/{trial_id}-{weights_digest[:SHORT]}.json"


class Spread(StrictModel):
    """Over turns of the photograph and rate points."""

    median: float
    lower_quartile: float
    upper_quartile: float


class CodingCosts(ResultFile):
    """bundles/TRIAL-DIGEST.json: what coding took where the bundle was made, as `lic bench` measures it.

    Always of the same photograph, beside whatever else the machine did.
    """

    format: Literal[1] = 1
    processor: str
    threads: int
    width: int  # of the photograph, pixels
    height: int
    samples: int  # how often it was coded: turned, and at every rate point
    encode_ms_per_megapixel: Spread
    decode_ms_per_megapixel: Spread
    peak_memory_mb: OrNotMeasured = None  # 10^6 bytes, Python and libraries included


def packed(folder: Path, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A bundle's folder as a zip file, stored unless told: full-precision weights do not shrink. Raises OSError."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name, EPOCH), path.read_bytes(), compression, compresslevel=9)
    return buffer.getvalue()


def unpacked(content: bytes, name: str) -> dict[str, bytes]:
    """The files of a bundle by their names.

    Args:
        content: of the zip file.
        name: of it, for messages.

    Raises:
        FormatError: damaged, or no bundle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except UNREADABLE as error:
        raise FormatError(f"{name}: damaged: {error}; without it the same command makes it again") from None
    if not files.keys() >= {CARD, ENTROPY} or any(Path(file).name != file for file in files):
        raise FormatError(f"{name}: no bundle; without it the same command makes it again")
    return files
