"""What is measured here is what CompressAI's own evaluation measures."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.utils.eval_model.__main__ import inference
from PIL import Image

from lic_codec.codec import Rgb
from lic_codec.container import HEADER
from lic_codec.learned import LearnedCoder
from lic_codec.metrics import ms_ssim, psnr_db
from models.bitstream import prepare_for_coding
from models.ladder import RateLadder
from models.weights import load_ladder
from orchestrator.evaluation.on_folder import EstimatedCoder

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["hyperprior", "mean-scale"])
def ladder(request: pytest.FixtureRequest) -> RateLadder:
    """A shipped network at its last rate point, whose gain is 1: what it computes there needs no gain."""
    trained = load_ladder(ROOT / f"models/weights/teacher-{request.param}.safetensors")
    assert trained.gains[-1] == 1
    sizes = {name: getattr(trained, name) for name in ("family", "N", "M", "Z")}
    made = RateLadder(**sizes, lambdas=trained.lambdas[-1:], kind="fixed-lambda").eval()
    (network,), (source,) = made.networks, trained.networks
    own = set(network.state_dict())
    network.load_state_dict({name: value for name, value in source.state_dict().items() if name in own})
    return made


def photographs() -> list[Rgb]:
    """Of 320x384 pixels, multiples of 64, which neither pads."""
    files = sorted((ROOT / "data/quickstart/train").glob("*.webp"))[:4]
    return [np.array(Image.open(file).convert("RGB")) for file in files]


def test_rate_and_quality_are_those_of_compressais_evaluation(ladder: RateLadder) -> None:
    """Means in whole numbers move a few roundings of the latent, up and down; without means nothing moves."""
    (network,) = deepcopy(ladder.networks)
    network.update(force=True)
    coder = LearnedCoder(prepare_for_coding(ladder).codec)
    with_means = ladder.family == "mean-scale"
    differences = []
    for rgb in photographs():
        theirs = inference(network, torch.from_numpy(rgb).permute(2, 0, 1).float() / 255)
        (sample,) = coder.samples(rgb)
        bpp = (sample.bits - 8 * HEADER.size) / (rgb.shape[0] * rgb.shape[1])
        assert bpp == pytest.approx(theirs["bpp"], rel=5e-3)
        differences.append(psnr_db(rgb, sample.decoded) - theirs["psnr-rgb"])
        assert abs(differences[-1]) <= (5e-3 if with_means else 1e-5)
        assert ms_ssim(rgb, sample.decoded) == pytest.approx(theirs["ms-ssim-rgb"], abs=5e-4 if with_means else 5e-6)
    assert abs(float(np.mean(differences))) <= 1e-3


def test_estimated_rates_are_those_of_real_bitstreams(ladder: RateLadder) -> None:
    real, estimated = LearnedCoder(prepare_for_coding(ladder).codec), EstimatedCoder(ladder)
    rgb = photographs()[0]
    ((coded,), (guessed,)) = real.samples(rgb), estimated.samples(rgb)
    assert guessed.stream is None and guessed.encode_s is None
    assert guessed.bits == pytest.approx(coded.bits - 8 * HEADER.size, rel=2e-2)
    assert psnr_db(rgb, guessed.decoded) == pytest.approx(psnr_db(rgb, coded.decoded), abs=5e-3)
