"""Photographs to bytes and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lic_codec.container import ID_BYTES, LONGEST_SIDE, ChunkKind, Stream, parse
from lic_codec.entropy import EntropyModel, Float
from lic_codec.errors import CodecError
from lic_codec.rates import Rate, rate_of
from lic_codec.tables import LONGEST_SYMBOL, Indexes, SymbolDecoder, SymbolEncoder, Symbols, gaussians
from lic_codec.tiles import BLOCK, PART, Part, parts
from lic_codec.whole import VALUE_BITS, Whole

Rgb = npt.NDArray[np.uint8]  # [height, width, 3]

LATENT = 4  # elements of the latent a block and side
LARGEST_PHOTOGRAPH = 1 << 28  # pixels that are decoded unless told otherwise


class Transforms(Protocol):
    """The networks that need not be exact, in any library."""

    @property
    def analysis_margin(self) -> int:
        """Blocks of 64 pixels that a block of g_a's output depends on, beyond its own."""
        ...

    @property
    def synthesis_margin(self) -> int:
        """As `analysis_margin`, of g_s."""
        ...

    @property
    def absolute(self) -> bool:
        """Whether the hyper-analysis reads the latent's absolute values."""
        ...

    def analysis(self, network: int, x: Float) -> Float:
        """g_a: [1, 3, H, W] in 0..1, multiples of 64 -> [1, M, H/16, W/16]."""
        ...

    def hyper_analysis(self, network: int, y: Float) -> Float:
        """h_a: [1, M, h, w] -> [1, Z, h/4, w/4]."""
        ...

    def synthesis(self, network: int, y_hat: Float) -> Float:
        """g_s: [1, M, h, w] -> [1, 3, 16h, 16w], not clamped."""
        ...


@dataclass(frozen=True, kw_only=True)
class Latent:
    """A photograph's latents; it can be coded at several rates.

    Attributes:
        width, height: pixels of the photograph.
        of_network: network -> y [1, M, H/16, W/16].
    """

    width: int
    height: int
    of_network: dict[int, Float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What coding gives.

    Attributes:
        stream: the bytes.
        y_hat: what the decoder's synthesis will read, [1, M, H/16, W/16].
    """

    stream: bytes
    y_hat: Float


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A codec of one rate ladder.

    Attributes:
        transforms: see `Transforms`.
        entropy: what encoder and decoder share.
        part: blocks a side that are transformed at a time.
    """

    transforms: Transforms
    entropy: EntropyModel
    part: int = PART

    def encode(self, rgb: Rgb, rate: Rate, chunks: Mapping[ChunkKind, bytes] | None = None) -> bytes:
        """Codes a photograph.

        Args:
            rgb: uint8 [H, W, 3], 1 to 65,535 pixels a side.
            rate: of `lic_codec.rates`.
            chunks: what is kept beside the pixels.

        Raises:
            CodecError: not such a photograph.
        """
        return self.encode_latent(self.analyse(rgb, rate), rate, chunks).stream

    def analyse(self, rgb: Rgb, rate: Rate, latent: Latent | None = None) -> Latent:
        """The latent of a photograph for a rate; see `encode`. Given one of another rate, it is completed."""
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise CodecError(f"a photograph is uint8 [height, width, 3], not {rgb.dtype} {list(rgb.shape)}")
        height, width = rgb.shape[:2]
        if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE):
            raise CodecError(f"{width}x{height} pixels: a side has 1 to {LONGEST_SIDE}")
        latent = latent or Latent(width=width, height=height)
        if rate.network not in latent.of_network:
            latent.of_network[rate.network] = self._analysed(rgb, rate.network)
        return latent

    def encode_latent(self, latent: Latent, rate: Rate, chunks: Mapping[ChunkKind, bytes] | None = None) -> Coded:
        """Codes a latent of `analyse` at a rate; see `encode`."""
        network = self.entropy.networks[rate.network]
        y = latent.of_network[rate.network]
        y = y * np.float32(rate.gain) if network.gain_before_z else y
        z = self.transforms.hyper_analysis(rate.network, np.abs(y) if self.transforms.absolute else y)
        z_symbols = _limited(np.round(_last(z) - (network.medians * 2.0**-VALUE_BITS).astype(np.float32)))
        coder = SymbolEncoder()
        coder.encode(z_symbols.reshape(-1), _channels(z_symbols.shape), network.z_tables)
        latent_last = _last(y)

        def take(channels: slice, indexes: Indexes, means: Whole) -> Symbols:
            centred = latent_last[..., channels] - means * np.float32(2.0**-VALUE_BITS)
            symbols = _limited(np.round(centred if network.gain_before_z else centred * np.float32(rate.gain)))
            coder.encode(symbols.reshape(-1), indexes.reshape(-1), gaussians().tables)
            return symbols

        y_hat = network.latent(network.hyper(z_symbols), rate.gain, take)
        stream = Stream(
            entropy_id=self._short_id,
            rate_code=rate.code,
            width=latent.width,
            height=latent.height,
            chunks=chunks or {},
            payload=coder.payload(),
        )
        return Coded(stream=stream.pack(), y_hat=_first(y_hat))

    def decode(self, stream: bytes, largest: int = LARGEST_PHOTOGRAPH) -> Rgb:
        """The photograph of a stream, uint8 [H, W, 3].

        Args:
            stream: of `encode`, by a codec of the same entropy model.
            largest: pixels; a stream of more is refused.

        Raises:
            CodecError: damaged, of another entropy model, or too large.
        """
        parsed = parse(stream)
        rate, y_hat = self.decode_latent(parsed, largest)
        return self.synthesise(rate.network, y_hat, parsed.width, parsed.height)

    def decode_latent(self, stream: Stream, largest: int = LARGEST_PHOTOGRAPH) -> tuple[Rate, Float]:
        """A stream's rate, and what the synthesis reads [1, M, H/16, W/16]; see `decode`."""
        if stream.entropy_id != self._short_id:
            ids = f"{stream.entropy_id.hex()}; this codec has {self._short_id.hex()}"
            raise CodecError(f"stream of entropy model {ids}")
        if stream.width * stream.height > largest:
            raise CodecError(f"{stream.width}x{stream.height} pixels are more than the limit of {largest}")
        rate = rate_of(self.entropy, stream.rate_code)
        network = self.entropy.networks[rate.network]
        rows, columns = self._blocks(stream.height), self._blocks(stream.width)
        if network.least_bits(rows * columns) > 8 * len(stream.payload) + 64:
            raise CodecError(f"damaged stream: {len(stream.payload)} bytes of {stream.width}x{stream.height} pixels")
        decoder = SymbolDecoder(stream.payload)
        shape = (rows, columns, len(network.z_tables))
        z = decoder.decode(_channels(shape), network.z_tables).reshape(shape)

        def take(channels: slice, indexes: Indexes, means: Whole) -> Symbols:
            del channels, means
            return decoder.decode(indexes.reshape(-1), gaussians().tables).reshape(indexes.shape)

        return rate, _first(network.latent(network.hyper(z), rate.gain, take))

    def synthesise(self, network: int, y_hat: Float, width: int, height: int) -> Rgb:
        """The photograph uint8 [H, W, 3] of what the synthesis reads, rounded to the nearest of 256 values."""
        rows, columns = self._blocks(height), self._blocks(width)
        rgb = np.empty((height, width, 3), np.uint8)
        for part in self._parts(rows, columns, lambda: self.transforms.synthesis_margin):
            read = y_hat[:, :, part.read_rows(LATENT), part.read_columns(LATENT)]
            x_hat = self.transforms.synthesis(network, np.ascontiguousarray(read))[0]
            kept = x_hat[:, part.inner_rows(BLOCK), part.inner_columns(BLOCK)]
            place = rgb[part.rows(BLOCK), part.columns(BLOCK)]
            kept = kept[:, : place.shape[0], : place.shape[1]]
            place[...] = np.rint(np.clip(kept, 0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
        return rgb

    def _analysed(self, rgb: Rgb, network: int) -> Float:
        height, width = rgb.shape[:2]
        rows, columns = self._blocks(height), self._blocks(width)
        y: Float | None = None
        for part in self._parts(rows, columns, lambda: self.transforms.analysis_margin):
            x = _padded(rgb[part.read_rows(BLOCK), part.read_columns(BLOCK)], part.read)
            computed = self.transforms.analysis(network, x)
            if y is None:
                y = np.empty((1, computed.shape[1], rows * LATENT, columns * LATENT), np.float32)
            kept = computed[:, :, part.inner_rows(LATENT), part.inner_columns(LATENT)]
            y[:, :, part.rows(LATENT), part.columns(LATENT)] = kept
        assert y is not None
        return y

    def _parts(self, rows: int, columns: int, margin: Callable[[], int]) -> Iterator[Part]:
        """The margin is asked for where there are several parts: finding it takes a while under torch."""
        return parts(rows, columns, margin() if max(rows, columns) > self.part else 0, self.part)

    def _blocks(self, side: int) -> int:
        return -(-max(side, self.entropy.least_side) // BLOCK)

    @property
    def _short_id(self) -> bytes:
        return bytes.fromhex(self.entropy.id)[:ID_BYTES]


def _padded(rgb: Rgb, read: tuple[int, int, int, int]) -> Float:
    """uint8 [h, w, 3] -> [1, 3, ...] in 0..1, its bottom and right edges repeated up to the blocks that are read."""
    top, bottom, left, right = read
    missing = ((0, (bottom - top) * BLOCK - rgb.shape[0]), (0, (right - left) * BLOCK - rgb.shape[1]), (0, 0))
    whole = np.pad(rgb, missing, mode="edge").transpose(2, 0, 1)[None]
    return np.divide(whole, np.float32(255), dtype=np.float32)


def _last(values: Float) -> Float:
    """[1, C, h, w] -> [h, w, C]."""
    return np.ascontiguousarray(values[0].transpose(1, 2, 0))


def _first(values: Float) -> Float:
    """[h, w, C] -> [1, C, h, w]."""
    return np.ascontiguousarray(values.transpose(2, 0, 1))[None]


def _limited(values: Float) -> Symbols:
    return np.clip(values, -LONGEST_SYMBOL, LONGEST_SYMBOL).astype(np.int32)


def _channels(shape: tuple[int, ...]) -> Indexes:
    """The channel of each element of [h, w, C], flat."""
    return np.tile(np.arange(shape[2], dtype=np.uint16), shape[0] * shape[1])
