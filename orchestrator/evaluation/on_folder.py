"""Weights files as `lic_codec.measuring` measures them: under torch, by real bitstreams or by estimated rates."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lic_codec import photographs as of_codec
from lic_codec.codec import Rgb
from lic_codec.learned import DESCRIPTION, LearnedCoder
from lic_codec.measuring import Candidate, Coder, Sample
from models.families import Distortion, Kind
from models.weights import digest, load_ladder, read_metadata
from orchestrator.photographs.photos import Photograph

if TYPE_CHECKING:
    from models.ladder import RateLadder


def of_weights(weights: Path, *, estimated: bool) -> Candidate:
    """A weights file.

    Args:
        weights: a file of ours.
        estimated: rates from the likelihoods; else from real bitstreams, whose decoder is compared with the encoder.

    Raises:
        WeightsError: it cannot be used.
    """
    described = read_metadata(weights)
    quiet_compressai()
    load_ladder(weights)  # what is wrong with it is found before other processes load it
    return Candidate(
        name=weights.stem,
        description="estimated from likelihoods" if estimated else DESCRIPTION,
        open=partial(open_weights, weights, estimated),
        source=os.fspath(weights),
        distortion=described.distortion,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluatedWeights:
    """The weights file that was measured; all but the digest is what the file says of itself."""

    digest: str  # SHA-256
    family: str
    N: int
    M: int
    kind: Kind
    lambdas: tuple[float, ...]
    distortion: Distortion

    @classmethod
    def of(cls, weights: Path) -> EvaluatedWeights:
        """Raises WeightsError: the file cannot be used."""
        described = read_metadata(weights)
        return cls(
            digest=digest(weights),
            family=described.family,
            N=described.N,
            M=described.M,
            kind=described.kind,
            lambdas=tuple(described.lambdas),
            distortion=described.distortion,
        )


def measured_photographs(surveyed: Sequence[Photograph]) -> tuple[of_codec.Photograph, ...]:
    """As the codec's package has them; its digests are the same."""
    return tuple(
        of_codec.Photograph(path=found.path, digest=found.digest, width=found.width, height=found.height)
        for found in surveyed
    )


def open_weights(weights: Path, estimated: bool, threads: int) -> Coder:
    """Loads a weights file in a process that measures."""
    quiet_compressai()
    import torch

    from models.bitstream import prepare_for_coding

    torch.set_num_threads(threads)
    ladder = load_ladder(weights)
    return EstimatedCoder(ladder) if estimated else LearnedCoder(prepare_for_coding(ladder).codec)


class EstimatedCoder:
    """The rates of the likelihoods, without header; see `lic_codec.measuring.Coder`."""

    def __init__(self, ladder: RateLadder) -> None:
        self._ladder = ladder

    def samples(self, rgb: Rgb) -> Iterator[Sample]:
        """The photograph at each rate point."""
        from orchestrator.evaluation.rate_distortion import estimated

        for rate_point in range(len(self._ladder.lambdas)):
            bits, decoded = estimated(self._ladder, rgb, rate_point)
            yield Sample(rate_point=rate_point, bits=bits, decoded=decoded)


def quiet_compressai() -> None:
    """CompressAI 1.2.8 scripts a function at import, which torch 2.14 announces as deprecated in every process."""
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
