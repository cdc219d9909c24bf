"""A bundle: a folder, or a zip file of one, with all that a codec needs, and nothing of the library that trained it.

`codec.json` says what it is and has the SHA-256 of the other files: `entropy.npz`, and in ONNX form `g_a`, `h_a` and
`g_s` of each network. The transforms take any height and width, and run under ONNX Runtime on any CPU.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

from lic_codec import entropy_file
from lic_codec.codec import Codec
from lic_codec.entropy import Float
from lic_codec.errors import CodecError, one_line
from lic_codec.json_values import Json

FORMAT = 1
CARD = "codec.json"
ENTROPY = "entropy.npz"
PARTS = ("g_a", "h_a", "g_s")
Folder = Path | zipfile.Path  # where a bundle's files are
# What reading one of them raises. All but the first are a zip file's; RuntimeError: encrypted, or of an unknown method.
UNREADABLE = (OSError, zipfile.BadZipFile, EOFError, zlib.error, ValueError, RuntimeError)


def part_file(part: str, network: int) -> str:
    """The file of a transform."""
    return f"{part}.{network}.onnx"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What `codec.json` says.

    Attributes:
        name: of the model.
        family, N, M, Z, encoder_N, kind, lambdas, distortion: of the network, in the words of its weights file.
        entropy_id: of the entropy model, hex.
        analysis_margin, synthesis_margin, absolute: see `lic_codec.codec.Transforms`.
        files: name -> SHA-256, hex.
        figures: what is known of it, such as its curve and complexity.
    """

    name: str
    family: str
    N: int
    M: int
    Z: int
    encoder_N: int
    kind: str
    lambdas: Sequence[float]
    distortion: str
    entropy_id: str
    analysis_margin: int
    synthesis_margin: int
    absolute: bool
    files: Mapping[str, str]
    figures: Mapping[str, Json] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Writes `codec.json`. Raises OSError."""
        (folder / CARD).write_text(json.dumps(self.__dict__, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Folder) -> Card:
        """Reads `codec.json`. Raises CodecError: it is missing, or is no card of this format."""
        try:
            content = (folder / CARD).read_bytes()
        except UNREADABLE as error:
            raise CodecError(f"{folder}: no bundle: {CARD}: {_reason(error)}") from None
        try:
            values = json.loads(content)
        except ValueError as error:
            raise CodecError(f"{folder / CARD}: {error}") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise CodecError(f"{folder / CARD}: of format {found}; this codec reads format {FORMAT}")
        try:
            return cls(**values)
        except TypeError as error:
            raise CodecError(f"{folder / CARD}: {error}".replace("Card.__init__() ", "")) from None


class OnnxTransforms:
    """The transforms of a bundle; each is loaded when it is first used.

    Args:
        folder: the bundle.
        card: of it.
        threads: that a transform uses; None: one a core.
    """

    def __init__(self, folder: Folder, card: Card, threads: int | None) -> None:
        self.analysis_margin, self.synthesis_margin = card.analysis_margin, card.synthesis_margin
        self.absolute = card.absolute
        self._folder, self._card, self._threads = folder, card, threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def analysis(self, network: int, x: Float) -> Float:
        """g_a."""
        return self._run("g_a", network, x)

    def hyper_analysis(self, network: int, y: Float) -> Float:
        """h_a."""
        return self._run("h_a", network, y)

    def synthesis(self, network: int, y_hat: Float) -> Float:
        """g_s."""
        return self._run("g_s", network, y_hat)

    def _run(self, part: str, network: int, values: Float) -> Float:
        name = part_file(part, network)
        if name not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads or 0
            options.log_severity_level = 3
            content = checked(self._folder, self._card, name)
            self._sessions[name] = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        session = self._sessions[name]
        (found,) = session.run(None, {session.get_inputs()[0].name: values})
        return np.asarray(found, np.float32)


def checked(folder: Folder, card: Card, name: str) -> bytes:
    """The content of a bundle's file. Raises CodecError: it is missing, or is not what the card says."""
    try:
        content = (folder / name).read_bytes()
    except UNREADABLE as error:
        raise CodecError(f"{folder / name}: {_reason(error)}") from None
    if hashlib.sha256(content).hexdigest() != card.files.get(name):
        raise CodecError(f"{folder / name}: damaged: its SHA-256 is not the one in {CARD}")
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)  # a zip file's error has a name alone
    return one_line(getattr(error, "strerror", None) or str(error))


def folder_of(model: str | os.PathLike[str]) -> Folder | None:
    """Where the files of a bundle are.

    Args:
        model: a bundle's folder, or a zip file of one.

    Returns:
        None: it is neither.

    Raises:
        CodecError: a zip file that is damaged.
    """
    path = Path(model)
    try:
        folder = zipfile.Path(path) if path.is_file() and zipfile.is_zipfile(path) else path
        return folder if (folder / CARD).is_file() else None
    except UNREADABLE as error:
        raise CodecError(f"{path}: {_reason(error)}") from None


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle, loaded."""

    card: Card
    codec: Codec


def load(folder: str | os.PathLike[str], threads: int | None = None) -> Bundle:
    """Loads a bundle.

    Args:
        folder: the bundle, or a zip file of it.
        threads: that a transform uses; None: one a core.

    Raises:
        CodecError: no bundle, or a damaged one.
    """
    files = folder_of(folder) or Path(folder)
    card = Card.read(files)
    entropy = entropy_file.loads(checked(files, card, ENTROPY))
    if entropy.id != card.entropy_id:
        raise CodecError(f"{folder}: its entropy model is {entropy.id[:8]}, {CARD} says {card.entropy_id[:8]}")
    return Bundle(card=card, codec=Codec(transforms=OnnxTransforms(files, card, threads), entropy=entropy))
