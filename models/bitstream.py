"""Photographs to bytes and back with a rate ladder: the container, and how coding is made exact.

A stream is a header of 20 bytes (big-endian: magic, version, entropy model, rate point, width, height, length of y's
string, CRC-32) followed by the range coder's strings of y and z. The range decoder can crash the process on bytes that
its encoder did not write, so everything is checked before decoding: the CRC covers header and payload. The entropy
model's id is of all that encoder and decoder must have in common: h_a, h_s, the entropy models and the rate points. So
networks that inherit one teacher's entropy model, whatever their transforms, read each other's streams.

Encoder and decoder must compute the same symbols and the same entropy parameters: a difference in the last bit makes a
stream undecodable, and the summation order of a convolution changes with the number of threads. `prepare_for_coding`
therefore computes everything up to the symbols in float64 on the CPU, where such differences are too small to cross a
rounding boundary. This includes the networks that predict a channel group from the groups before it. The synthesis
transform comes after all symbols and stays in float32.
"""

from __future__ import annotations

import copy
import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.one_line import OneLineError
from models.plain_number import Numeric

if TYPE_CHECKING:
    from models.ladder import RateLadder

Rgb = npt.NDArray[np.uint8]  # [height, width, 3]

MAGIC = b"LD"
VERSION = 2
HEADER = struct.Struct(">2sB3sHHHII")
ID_BYTES = 3  # of the entropy model's id, in the header
STRIDE = 64  # pixels a side of one element of z: photographs are padded to it
GAIN_FLAG = 0x8000  # if set, the other 15 bits are a gain between the rate points: (bits + 1) * 2^-14
GAIN_STEPS = 1 << 14  # a gain of 1


class CodecError(OneLineError, ValueError):
    """Bytes that are not an intact stream of this entropy model, or a photograph that cannot be coded; one line."""


class _Analysis(nn.Module):
    """g_a in float64, keeping its last input and output: coding one photograph at several rate points, and comparing
    the decoder with `forward`, use the same latent many times."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        last = self._last
        if last is None or not torch.equal(last[0], x):
            last = self._last = (x.clone(), self.transform(x.double()))
        return last[1].clone()


class _Synthesis(nn.Module):
    """g_s in float32 on inputs of any precision."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, y_hat: Tensor) -> Tensor:
        x_hat: Tensor = self.transform(y_hat.float())
        return x_hat


@dataclass(frozen=True, kw_only=True)
class CodingLadder:
    """A ladder prepared for exact coding, by `prepare_for_coding`."""

    ladder: RateLadder
    entropy_id: str  # of the entropy model, hex; streams can be exchanged where it is equal

    def forward(self, rgb: Rgb, rate_point: Numeric) -> Tensor:
        """The reconstruction of the encoder's own forward pass.

        Args:
            rgb: uint8 [H, W, 3], any size.
            rate_point: see `encode_image`.

        Returns:
            float32 [3, H, W], not clamped; within 1e-5 of `decode` after clamping to 0..1.

        Raises:
            CodecError: no such rate point.
        """
        height, width = rgb.shape[:2]
        with torch.no_grad():
            x_hat: Tensor = self.ladder(to_padded_tensor(rgb), _exact(self.ladder, rate_point))["x_hat"]
        return x_hat[0, :, :height, :width]


def prepare_for_coding(ladder: RateLadder) -> CodingLadder:
    """A copy of `ladder` on the CPU in eval mode that codes exactly, with the range coder's tables built."""
    coding = copy.deepcopy(ladder).cpu().eval()
    coding.set_precision(torch.float32)
    coding.double()
    for network in coding.networks:
        network.g_a = _Analysis(network.get_submodule("g_a"))
        network.g_s = _Synthesis(network.get_submodule("g_s").float())
    with torch.no_grad():
        coding.update()
    return CodingLadder(ladder=coding, entropy_id=entropy_id(ladder))


def entropy_id(ladder: RateLadder) -> str:
    """SHA-256, hex, of all that a stream depends on: every parameter but those of g_a and g_s, and the rate points."""
    found = hashlib.sha256(json.dumps([ladder.kind, ladder.lambdas]).encode())
    for name, parameter in sorted(ladder.named_parameters()):
        if ".g_a." not in name and ".g_s." not in name:
            found.update(name.encode() + parameter.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()


def encode_image(coding: CodingLadder, rgb: Rgb, rate_point: Numeric) -> bytes:
    """Codes a photograph into a stream.

    Args:
        coding: see `prepare_for_coding`.
        rgb: uint8 [H, W, 3], 1 to 65,535 pixels a side.
        rate_point: a whole number, an index into the ladder's lambdas; or any other real number, a gain above 0 and up
            to 2 of a variable-rate ladder, rounded to steps of 2^-14. Python's, NumPy's, pandas' or torch's numbers.

    Raises:
        CodecError: not a photograph as described, or no such rate point.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise CodecError(f"a photograph is uint8 [height, width, 3], not {rgb.dtype} {list(rgb.shape)}")
    height, width = rgb.shape[:2]
    if not (1 <= height <= 0xFFFF and 1 <= width <= 0xFFFF):
        raise CodecError(f"{width}x{height} pixels: a side has 1 to 65535")
    code = _rate_code(coding.ladder, rate_point)
    with torch.no_grad():
        coded = coding.ladder.compress(to_padded_tensor(rgb), _from_rate_code(coding.ladder, code))
    (y,), (z,) = coded["strings"]
    unsigned = HEADER.pack(MAGIC, VERSION, _short_id(coding), code, width, height, len(y), 0)[:-4]
    checksum = zlib.crc32(y + z, zlib.crc32(unsigned))
    return unsigned + struct.pack(">I", checksum) + y + z


def decode(coding: CodingLadder, stream: bytes) -> Tensor:
    """The inverse of `encode_image`, before it is rounded to 8 bits: float32 [3, H, W] in 0..1.

    Raises:
        CodecError: `stream` is damaged, or of another entropy model; the range decoder was not called.
    """
    if stream[:2] != MAGIC:
        raise CodecError("not a stream of this codec")
    if len(stream) > len(MAGIC) and stream[2] != VERSION:
        raise CodecError(f"stream of version {stream[2]}; this codec reads version {VERSION}")
    if len(stream) < HEADER.size:
        raise CodecError(f"damaged stream: {len(stream)} bytes, the header alone has {HEADER.size}")
    _, _, model, code, width, height, y_length, checksum = HEADER.unpack_from(stream)
    payload = stream[HEADER.size :]
    if zlib.crc32(payload, zlib.crc32(stream[: HEADER.size - 4])) != checksum:
        raise CodecError("damaged stream: its checksum does not match")
    if model != _short_id(coding):
        raise CodecError(f"stream of entropy model {model.hex()}; this codec has {_short_id(coding).hex()}")
    if y_length > len(payload) or not width or not height:
        raise CodecError("damaged stream: its header contradicts its length")
    rate_point = _from_rate_code(coding.ladder, code)
    shape = (-(-height // STRIDE), -(-width // STRIDE))
    with torch.no_grad():
        decoded = coding.ladder.decompress([[payload[:y_length]], [payload[y_length:]]], shape, rate_point)
    x_hat: Tensor = decoded["x_hat"][0, :, :height, :width]
    return x_hat


def decode_image(coding: CodingLadder, stream: bytes) -> Rgb:
    """The inverse of `encode_image`: uint8 [H, W, 3]. Raises CodecError, see `decode`."""
    return to_rgb(decode(coding, stream))


def to_padded_tensor(rgb: Rgb) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H', W'] in 0..1, its right and bottom edges repeated up to multiples of 64."""
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
    return torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].float() / 255


def to_rgb(x_hat: Tensor) -> Rgb:
    """float [3, H, W] -> uint8 [H, W, 3], clamped and rounded to the nearest of 256 values."""
    rounded: Rgb = (x_hat.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return rounded


def _short_id(coding: CodingLadder) -> bytes:
    return bytes.fromhex(coding.entropy_id)[:ID_BYTES]


def _rate_code(ladder: RateLadder, rate_point: Numeric) -> int:
    try:
        number = ladder.rate_point(rate_point)
    except ValueError as error:
        raise CodecError(str(error)) from None
    if isinstance(number, int):
        return number
    steps = round(number * GAIN_STEPS) if number <= 2 else 0
    if not steps:
        raise CodecError(f"gain {number} is not above 0 and at most 2")
    return GAIN_FLAG | (steps - 1)


def _from_rate_code(ladder: RateLadder, code: int) -> int | float:
    if code & GAIN_FLAG:
        return ((code & ~GAIN_FLAG) + 1) / GAIN_STEPS
    if code >= len(ladder.lambdas):
        raise CodecError(f"damaged stream: rate point {code} of {len(ladder.lambdas)}")
    return code


def _exact(ladder: RateLadder, rate_point: Numeric) -> int | float:
    return _from_rate_code(ladder, _rate_code(ladder, rate_point))
