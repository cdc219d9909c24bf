"""shelf.json: the pairs of a shelf's encoders and decoders, scored before any of them was trained as a whole (pure)."""

from __future__ import annotations

from typing import Literal

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.format import OrNotMeasured, ResultFile, StrictModel

SHELF = "shelf.json"


class Pair(StrictModel):
    """An encoder and a decoder, each trained by itself; None: the teacher's own."""

    encoder: str | None  # the trial of the encoder
    decoder: str | None
    encoder_N: int
    decoder_N: int
    params: int
    macs_per_pixel: float
    encoder_macs_per_pixel: float
    decoder_macs_per_pixel: float
    encode_ms_per_megapixel: OrNotMeasured = None
    decode_ms_per_megapixel: OrNotMeasured = None
    # the sum of the BD-rates of the encoder with the teacher's decoder and of the decoder with the teacher's encoder;
    # None: one of them has none
    predicted_pct: float | None
    bd_rate_pct: float | None  # None: not scored, or not valid
    log_lagrangian_ratio: float | None  # None: not scored
    points: tuple[CurvePoint, ...] = ()  # rates estimated; empty: not scored
    joined: str | None = None  # the trial that trains it on as a whole

    @property
    def halves(self) -> tuple[str | None, str | None]:
        """The trials of the encoder and of the decoder."""
        return self.encoder, self.decoder

    @property
    def of_trained_halves(self) -> bool:
        """Whether neither half is the teacher's own."""
        return self.encoder is not None and self.decoder is not None

    @property
    def prediction_error(self) -> float | None:
        """Scored less predicted, in points; None: a half is the teacher's, or one of the two is not known."""
        if not self.of_trained_halves or self.bd_rate_pct is None or self.predicted_pct is None:
            return None
        return self.bd_rate_pct - self.predicted_pct

    @property
    def trial_id(self) -> str:
        """Its name in messages, and where a front's entries are named."""
        return f"encoder-n{self.encoder_N} with decoder-n{self.decoder_N}"


class ShelfFile(ResultFile):
    """shelf.json."""

    format: Literal[1] = 1
    teacher: str
    anchor_digest: str
    weights: dict[str, str]  # trial of a half -> SHA-256 of its weights
    pairs: tuple[Pair, ...]  # every encoder, and the teacher's, with every decoder, and the teacher's
