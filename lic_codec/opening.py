"""The codec of a model, by what the user names it: a bundle, or a zip file of one.

With lic-distillery installed weights and models:/ addresses too.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from lic_codec import bundle
from lic_codec.codec import Codec
from lic_codec.errors import CodecError

WHOLE_PROJECT = "lic-distillery, which is not installed here"


def opened(model: str, threads: int | None) -> Codec:
    """The codec of a model.

    Args:
        model: see above.
        threads: that transforms use; None: one a core.

    Raises:
        CodecError: there is none.
    """
    if bundle.folder_of(model):
        return bundle.load(model, threads).codec
    if Path(model).is_dir():
        raise CodecError(f"{model}: no bundle: {bundle.CARD} is not in it")
    for entry in entry_points(group="lic.models"):
        codec: Codec = entry.load()(model, threads)
        return codec
    raise CodecError(f"{model}: no bundle; for weights and models:/ addresses this needs {WHOLE_PROJECT}")
