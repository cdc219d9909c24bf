"""Codecs of weights files and of versions in MLflow, for the command line (the entry point `lic.models`)."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from lic_codec import bundle
from lic_codec.codec import Codec
from lic_codec.errors import CodecError
from models.weights import WeightsError
from orchestrator.registry.database import settle
from orchestrator.registry.package import BUNDLE
from orchestrator.registry.reach import VARIABLE, RegistryError, little_patience, reached

VERSION, WEIGHTS = "models:/", ".safetensors"


def open_model(model: str, threads: int | None) -> Codec:
    """The codec of a model.

    Args:
        model: a .safetensors file, which runs under torch; or models:/NAME@ALIAS or models:/NAME/VERSION in the MLflow
            that MLFLOW_TRACKING_URI names, whose bundle runs without it.
        threads: that transforms use; None: one a core.

    Raises:
        CodecError: neither, or it cannot be loaded; one line.
    """
    if model.startswith(VERSION):
        folder = tempfile.mkdtemp(prefix="lic-")
        try:
            codec = bundle.load(fetched(model, folder), threads).codec
        except BaseException:
            shutil.rmtree(folder)
            raise
        weakref.finalize(codec, shutil.rmtree, folder, ignore_errors=True)  # transforms are read at their first use
        return codec
    if not model.endswith(WEIGHTS):
        raise CodecError(f"{model}: no bundle's folder, no {WEIGHTS} file, and no address {VERSION}NAME@ALIAS")
    import torch

    from models.bitstream import prepare_for_coding
    from models.weights import load_ladder

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return prepare_for_coding(load_ladder(model)).codec
    except WeightsError as error:
        raise CodecError(str(error)) from None


def fetched(address: str, to: str | os.PathLike[str]) -> Path:
    """The bundle of a version, copied into the folder `to`.

    Args:
        address: models:/NAME@ALIAS or models:/NAME/VERSION.
        to: a folder that is there.

    Raises:
        CodecError: MLflow has no such version, or cannot be used; one line.
    """
    uri = os.environ.get(VARIABLE)
    if not uri:
        example = "sqlite:////FOLDER/mlflow.db of a sweep's folder, or http://HOST:PORT"
        raise CodecError(f"{address}: {VARIABLE} is not set: {example}")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        with reached(uri), little_patience():
            from mlflow import artifacts

            settle(uri)
            content = f"{address}/artifacts/{BUNDLE}"
            found = Path(artifacts.download_artifacts(content, dst_path=str(to), tracking_uri=uri))
    except RegistryError as error:
        raise CodecError(f"{address}: {error}") from None
    if not (found / bundle.CARD).is_file():
        raise CodecError(f"{address}: it has no bundle: register its run folder again (jobs/register_front.py)")
    return found
