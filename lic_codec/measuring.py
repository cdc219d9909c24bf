"""Measures codecs on photographs, each in processes of its own: bytes, quality and time of every photograph and rate.

A codec is opened in the process that runs it, so what is passed is a `Candidate`, which can be pickled. Several
photographs are measured at a time, each process with as many threads as it is told.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Protocol

from lic_codec.codec import Rgb
from lic_codec.counters import Energy, forget_peak, peak_memory_mb
from lic_codec.errors import MismatchError, WorkerDiedError
from lic_codec.metrics import HIGHEST_DB, ms_ssim, psnr_db
from lic_codec.photographs import Photograph

# Libraries of linear algebra read these when they are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A photograph, coded at one rate.

    Attributes:
        rate_point: the codec's own name of the rate: a rate point, or a quality.
        bits: of the stream with its header; estimated ones need not be whole.
        decoded: uint8 [H, W, 3].
        stream: the bytes; None: the bits are estimated, and so there is no time of coding either.
        encode_s, decode_s: seconds.
    """

    rate_point: int | float
    bits: float
    decoded: Rgb
    stream: bytes | None = None
    encode_s: float | None = None
    decode_s: float | None = None


class Coder(Protocol):
    """A codec that is open."""

    def samples(self, rgb: Rgb) -> Iterator[Sample]:
        """The photograph at each rate of the codec; the same rates for every photograph."""
        ...


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A codec to be measured.

    Attributes:
        name: in results.
        description: what it is, and its settings.
        open: makes the codec, given its number of threads; it can be pickled.
        source: what the user named it by, for messages; empty: its name.
        distortion: that it is made for, mse or ms-ssim.
    """

    name: str
    description: str
    open: Callable[[int], Coder]
    source: str = ""
    distortion: str = "mse"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One photograph at one rate.

    Attributes:
        photograph: the file's name.
        digest: of the photograph's pixels.
        rate_point: see `Sample`.
        bpp: bits per pixel.
        psnr_db: of all three channels together, at most 100.
        mse: on values in 0..1.
        ms_ssim: None: a side is below 161 pixels.
        bytes, sha256: of the stream; None: estimated.
        encode_s, decode_s: seconds; None: estimated.
        pixels: of the photograph.
    """

    photograph: str
    digest: str
    rate_point: int | float
    bpp: float
    psnr_db: float
    mse: float
    ms_ssim: float | None
    bytes: int | None
    sha256: str | None
    encode_s: float | None
    decode_s: float | None
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A codec on all photographs.

    Attributes:
        candidate: the codec.
        rows: in the order of the photographs, then of rates.
        threads: of a process.
        processes: that ran at a time.
        peak_memory_mb: of the process that had most, in 10^6 bytes, Python and libraries included; None: unknown.
        peak_memory_of: `coding`, or `coding and measuring` where the system cannot tell them apart.
        energy_joules: of the whole machine's processors meanwhile; None: there is no counter.
    """

    candidate: Candidate
    rows: tuple[Row, ...]
    threads: int
    processes: int
    peak_memory_mb: float | None
    peak_memory_of: str
    energy_joules: float | None


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """With names that differ: those of one name are called by what the user named them by."""
    names = [candidate.name for candidate in candidates]
    return [
        replace(candidate, name=candidate.source or candidate.name) if names.count(candidate.name) > 1 else candidate
        for candidate in candidates
    ]


def measure(
    candidate: Candidate,
    photographs: Sequence[Photograph],
    *,
    processes: int,
    threads: int = 1,
    progress: Callable[[str], None],
) -> Measurement:
    """Measures a codec.

    Args:
        candidate: the codec.
        photographs: of `photographs.survey`.
        processes: photographs at a time.
        threads: of each process.
        progress: told a line a photograph.

    Raises:
        CodecError: the codec or a photograph cannot be used.
        WorkerDiedError: a process was killed, or had too little memory.
    """
    processes = min(processes, len(photographs))
    found: dict[str, list[Row]] = {}
    peaks, energy = list[float](), Energy()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        with _surroundings_of_workers(threads):
            waiting = {pool.submit(_measured, candidate, threads, photograph): photograph for photograph in photographs}
        try:
            for done in as_completed(waiting):
                photograph = waiting[done]
                rows, of_photograph = done.result()
                found[photograph.path] = rows
                peaks += of_photograph
                mean = math.fsum(row.bpp for row in rows) / len(rows)
                count = f"[{len(found)}/{len(photographs)}]"
                progress(f"{candidate.name} {count} {photograph.name}: {mean:.3f} bpp over {len(rows)} rate points")
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a process that measures photographs died, perhaps for want of memory: try fewer at a time"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return Measurement(
        candidate=candidate,
        rows=tuple(row for photograph in photographs for row in found[photograph.path]),
        threads=threads,
        processes=processes,
        peak_memory_mb=max(peaks, default=None),
        peak_memory_of="coding" if forget_peak() else "coding and measuring",
        energy_joules=energy.joules(),
    )


@contextmanager
def _surroundings_of_workers(threads: int) -> Iterator[None]:
    """For processes that are started inside: so many threads; and they ignore Ctrl-C.

    A terminal sends it to all of them, and each would print a traceback.
    """
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_open: dict[str, Coder] = {}  # a worker process's codec, opened once


def _measured(candidate: Candidate, threads: int, photograph: Photograph) -> tuple[list[Row], list[float]]:
    """A photograph's rows, and the peak memory of coding it at each rate, where it is known."""
    try:
        if candidate.name not in _open:
            _open[candidate.name] = candidate.open(threads)
        rgb = photograph.load()
        samples = _open[candidate.name].samples(rgb)
        rows, peaks = list[Row](), list[float]()
        forget_peak()
        for sample in samples:
            if (peak := peak_memory_mb()) is not None:
                peaks.append(peak)
            rows.append(_row(photograph, rgb, sample))
            forget_peak()  # the metrics'
    except MismatchError as error:
        raise MismatchError(f"{photograph.name} {error}") from None
    except MemoryError:
        raise WorkerDiedError(f"{photograph.path}: too little memory: try fewer photographs at a time") from None
    return rows, peaks


def _row(photograph: Photograph, rgb: Rgb, sample: Sample) -> Row:
    pixels = photograph.width * photograph.height
    psnr = psnr_db(rgb, sample.decoded)
    return Row(
        photograph=photograph.name,
        digest=photograph.digest,
        rate_point=sample.rate_point,
        bpp=sample.bits / pixels,
        psnr_db=min(psnr, HIGHEST_DB),
        mse=10 ** (-psnr / 10),
        ms_ssim=ms_ssim(rgb, sample.decoded),
        bytes=None if sample.stream is None else len(sample.stream),
        sha256=None if sample.stream is None else hashlib.sha256(sample.stream).hexdigest(),
        encode_s=sample.encode_s,
        decode_s=sample.decode_s,
        pixels=pixels,
    )
