"""What coding with a bundle takes: `lic bench` on one photograph, whose time is then the same in every sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageOps
from pydantic import BaseModel, JsonValue

from models.one_line import OneLineError
from orchestrator.results.bundles import CodingCosts, Spread

PHOTOGRAPH = Path(__file__).with_name("assets") / "timed.webp"
# A process that is begun by Ray would import Ray again in the one that codes, and its memory would count.
BENCH = "from lic_codec.cli import main; main()"
PATIENCE_S = 600.0


class TimingError(OneLineError, RuntimeError):
    """A bundle could not be timed; the message is one line."""


class _Document(BaseModel):
    """Of what `lic bench` writes, what is kept."""

    processor: str
    threads: int
    encode_ms_per_megapixel: Spread
    decode_ms_per_megapixel: Spread
    peak_memory_mb: float | None = None
    peak_memory_of: str | None = None
    photographs: list[JsonValue]  # a row for each photograph and rate point


def coding_costs(bundle: Path) -> CodingCosts:
    """Times a bundle by one thread: on the photograph as it is, mirrored and upside down.

    Args:
        bundle: its folder.

    Raises:
        TimingError: it cannot code, or took longer than 10 minutes.
    """
    with tempfile.TemporaryDirectory() as temporary:
        photographs, out = Path(temporary, "photographs"), Path(temporary, "costs.json")
        width, height = _turned(photographs)
        arguments = ["bench", photographs, "--model", bundle, "--processes", "1", "--threads", "1", "--out", out]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", BENCH, *map(str, arguments)]
        try:
            code, said = _run(command, temporary, environment)
            if code:
                raise TimingError((said or f"lic bench ended with {code}").splitlines()[-1].removeprefix("Error: "))
            found = _Document.model_validate_json(out.read_bytes())
        except (OSError, ValueError) as error:
            raise TimingError(" ".join(str(error).split())) from error
    return CodingCosts(
        processor=found.processor,
        threads=found.threads,
        width=width,
        height=height,
        samples=len(found.photographs),
        encode_ms_per_megapixel=found.encode_ms_per_megapixel,
        decode_ms_per_megapixel=found.decode_ms_per_megapixel,
        # Where the system cannot leave out the metrics, the figure would not be of coding.
        peak_memory_mb=found.peak_memory_mb if found.peak_memory_of == "coding" else None,
    )


def _run(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and messages. Raises OSError, and TimingError after `PATIENCE_S`; processes that it began end too."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise TimingError(f"lic bench took longer than {PATIENCE_S:.0f} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said.decode(errors="replace").strip()


def _turned(folder: Path) -> tuple[int, int]:
    """Writes the photograph three times into a folder that it creates; returns width and height."""
    folder.mkdir()
    with Image.open(PHOTOGRAPH) as opened:
        photograph = opened.convert("RGB")
    turns = {"as it is": photograph, "mirrored": ImageOps.mirror(photograph), "upside down": ImageOps.flip(photograph)}
    for name, turned in turns.items():
        turned.save(folder / f"{name}.png", compress_level=1)
    return photograph.size
