"""Learned codecs as they are measured: at every rate point, with what the decoder reads compared with the encoder's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from lic_codec.bundle import Card, folder_of
from lic_codec.codec import Codec, Rgb
from lic_codec.container import parse
from lic_codec.errors import MismatchError
from lic_codec.measuring import Candidate, Sample
from lic_codec.opening import opened
from lic_codec.rates import rate_point

DESCRIPTION = "real bitstreams, header included"


def learned(model: str) -> Candidate:
    """A model as `opening.opened` takes it. Raises CodecError: there is none, or it cannot be used."""
    opened(model, 1)
    folder = folder_of(model)
    card = Card.read(folder) if folder else None
    return Candidate(
        name=card.name if card else Path(model).stem,
        description=DESCRIPTION,
        open=partial(open_model, model),
        source=model,
        distortion=card.distortion if card else "mse",
    )


def open_model(model: str, threads: int) -> LearnedCoder:
    """Opens a model in a process that measures."""
    return LearnedCoder(opened(model, threads))


class LearnedCoder:
    """Codes photographs with a learned codec; see `lic_codec.measuring.Coder`."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        for _ in self.samples(np.full((64, 64, 3), 128, np.uint8)):  # loads the transforms, which is no part of coding
            pass

    def samples(self, rgb: Rgb) -> Iterator[Sample]:
        """The photograph at each rate point.

        The networks' analysis is computed once for several rate points; its time counts at each.

        Raises:
            MismatchError: the decoder's latent is not the encoder's.
        """
        codec, height, width = self._codec, *rgb.shape[:2]
        latent, seconds_of = None, dict[int, float]()
        for index in range(len(codec.entropy.gains)):
            rate = rate_point(codec.entropy, index)
            begun = perf_counter()
            latent = codec.analyse(rgb, rate, latent)
            analysed = perf_counter()
            seconds_of.setdefault(rate.network, analysed - begun)
            encoded = codec.encode_latent(latent, rate)
            coded = perf_counter()
            read, y_hat = codec.decode_latent(parse(encoded.stream))
            decoded = codec.synthesise(read.network, y_hat, width, height)
            done = perf_counter()
            if not np.array_equal(y_hat, encoded.y_hat):
                raise MismatchError(f"at rate point {index}: the decoder's latent is not the encoder's")
            yield Sample(
                rate_point=index,
                bits=8 * len(encoded.stream),
                decoded=decoded,
                stream=encoded.stream,
                encode_s=seconds_of[rate.network] + coded - analysed,
                decode_s=done - coded,
            )
