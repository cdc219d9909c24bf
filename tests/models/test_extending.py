"""The family of docs/extending.md works as it stands there."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import cast, get_args

import pytest
import torch

from models import families, ladder
from models.bitstream import prepare_for_coding
from models.families import FAMILIES, Family, Kind, Stage
from models.ladder import BUILDERS, RateLadder
from orchestrator.evaluation.rate_distortion import coded
from testing.examples import examples

LAMBDAS = (0.0018, 0.0067, 0.025)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the documented family, registered while a test runs."""
    code = examples("A family of networks")
    plain = ModuleType("models.plain")
    exec(code["models/plain.py"], vars(plain))
    monkeypatch.setitem(sys.modules, "models.plain", plain)
    ((name, row),) = eval(f"{{{code['models/families.py, in FAMILIES']}}}", dict(vars(families))).items()
    ((same, build),) = eval(f"{{{code['models/ladder.py, in BUILDERS']}}}", {**vars(ladder), "plain": plain}).items()
    assert same == name
    monkeypatch.setitem(cast(dict[str, Family], FAMILIES), name, row)
    monkeypatch.setitem(BUILDERS, name, build)
    return name


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_documented_family_has_its_stages_and_a_bitstream(family: str, kind: Kind) -> None:
    torch.manual_seed(0)
    codec = RateLadder(family=family, N=8, M=12, Z=10, lambdas=LAMBDAS, kind=kind).eval()
    taps = {stage: f"{FAMILIES[family].stages[stage]}:raw" for stage in get_args(Stage)}
    with torch.inference_mode():
        output = codec(torch.rand(1, 3, 64, 128), 1, taps=("z", *taps.values()))
    for stage, tap in taps.items():
        stride = int(stage.rpartition("-")[2])
        assert output[tap].shape == (1, 8, 64 // stride, 128 // stride), stage
    assert (output["y"].shape, output["z"].shape) == ((1, 12, 4, 8), (1, 10, 1, 2))
    rgb = torch.randint(0, 256, (70, 100, 3), dtype=torch.uint8).numpy()
    # `coded` compares the decoder's latent with the encoder's
    measured = list(coded(prepare_for_coding(codec), [("it", rgb)], range(len(LAMBDAS))))
    assert len(measured) == len(LAMBDAS) and all(point.bytes for point in measured)
