"""What stands for other machines here: other kernels of the linear algebra, other numbers of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lic_codec import entropy_file
from models.bitstream import encode_image, prepare_for_coding
from models.ladder import RateLadder

ROOT = Path(__file__).parents[2]
MACHINES = [
    {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": threads}
    for kernel, threads in (("Nehalem", "1"), ("Sandybridge", "2"), ("Haswell", "1"), ("Haswell", "4"))
]
DECODER = """
import hashlib, sys
from lic_codec import entropy_file
from lic_codec.codec import Codec
from lic_codec.container import parse
codec = Codec(transforms=None, entropy=entropy_file.load(sys.argv[1]))
print(hashlib.sha256(codec.decode_latent(parse(open(sys.argv[2], "rb").read()))[1].tobytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hyperprior", "mean-scale", "feds-student"])
def test_the_decoders_latent_is_the_same_to_the_last_bit(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = RateLadder(family=family, N=16, M=20, lambdas=(0.002, 0.01)).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".h_s." in name or ".h_a." in name:
                parameter.mul_(2.5)  # so that scales and offsets differ from place to place
        *_, last = (layer for layer in made.networks[0].h_s if isinstance(layer, torch.nn.Conv2d))
        assert last.bias is not None
        last.bias.uniform_(0, 30)
    coding = prepare_for_coding(made)
    rgb = np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)
    (tmp_path / "it.lic").write_bytes(encode_image(coding, rgb, 1))
    entropy_file.save(coding.codec.entropy, tmp_path / "entropy.npz")
    found = set()
    for machine in MACHINES:
        done = subprocess.run(
            [sys.executable, "-c", DECODER, str(tmp_path / "entropy.npz"), str(tmp_path / "it.lic")],
            env=os.environ | machine | {"PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1
