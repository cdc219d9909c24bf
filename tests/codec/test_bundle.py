"""Bundles: without torch they code as the ladder does under torch; damaged ones are one line."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from lic_codec import entropy_file
from lic_codec.bundle import CARD, ENTROPY, Bundle, Card, load
from lic_codec.container import parse
from lic_codec.errors import CodecError
from lic_codec.opening import opened
from lic_codec.rates import rate_point
from models.bitstream import CodingLadder, Rgb, decode_image, encode_image, prepare_for_coding
from models.export import export
from models.families import FAMILIES, Kind
from models.ladder import RateLadder
from models.whole_numbers import entropy_model
from orchestrator.results.bundles import packed

LAMBDAS = (0.0018, 0.0067, 0.025)
SIZES = [(1, 1), (17, 33), (64, 64), (65, 127), (500, 1), (1, 500), (63, 65), (128, 64), (300, 200), (3, 200)]
SIZES += [(211, 99), (192, 129)]  # width, height


def ladder(family: str, kind: Kind) -> RateLadder:
    """Random weights with a latent beyond 0."""
    torch.manual_seed(0)
    made = RateLadder(family=family, N=8, M=12, Z=10, lambdas=LAMBDAS, kind=kind).eval()
    with torch.no_grad():
        for network in made.networks:
            y = network.g_a(torch.rand(1, 3, 128, 128))
            for parameter in network.g_a[-1].parameters():
                parameter.mul_(3 / y.std())
    return made


def photograph(width: int, height: int) -> Rgb:
    rng = np.random.default_rng(width + height)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    return np.clip(ramp + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", get_args(Kind))
def test_an_entropy_model_comes_back_from_its_file(family, kind, tmp_path):
    model = entropy_model(ladder(family, kind))
    entropy_file.save(model, tmp_path / "entropy.npz")
    back = entropy_file.load(tmp_path / "entropy.npz")
    assert back.id == model.id
    assert replace(back, gains=(0.1, *back.gains[1:])).id != model.id
    z = np.random.default_rng(0).integers(-9, 9, (2, 3, 10)).astype(np.int32)
    some = np.random.default_rng(1).integers(-3, 4, (8, 12, 12)).astype(np.int32)
    for network, other in zip(model.networks, back.networks, strict=True):
        assert np.array_equal(network.hyper(z), other.hyper(z))
        latents = [one.latent(one.hyper(z), 0.7, lambda channels, *_: some[..., channels]) for one in (network, other)]
        assert np.array_equal(latents[0], latents[1])


def test_a_file_that_is_no_entropy_model_is_one_line(tmp_path):
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY" + bytes(60)):
        (tmp_path / "it.npz").write_bytes(content)
        with pytest.raises(CodecError, match=r"it.npz: no entropy model: ") as raised:
            entropy_file.load(tmp_path / "it.npz")
        assert len(str(raised.value).splitlines()) == 1


QUICK = [("hyperprior", "variable-rate"), ("mean-scale", "fixed-lambda"), ("feds-student", "variable-rate")]
REST = [("mean-scale", "variable-rate"), ("feds-teacher", "variable-rate"), ("transformer", "variable-rate")]
PAIRS = [*QUICK, *(pytest.param(pair, marks=pytest.mark.long) for pair in REST)]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request, tmp_path_factory) -> tuple[CodingLadder, Bundle]:
    made = ladder(*request.param)
    folder = export(made, tmp_path_factory.mktemp("bundles") / "it", name="it", figures={"bd_rate_pct": -3.0})
    return prepare_for_coding(made), load(folder, threads=1)


@pytest.mark.slow
def test_symbols_are_torchs_at_every_size_and_pixels_within_one_level(pair):
    coding, bundle = pair
    for size in SIZES:
        rgb = photograph(*size)
        stream = encode_image(coding, rgb, 2)
        rate, y_hat = bundle.codec.decode_latent(parse(stream))
        assert np.array_equal(y_hat, coding.codec.decode_latent(parse(stream))[1]), size
        assert np.abs(bundle.codec.decode(stream).astype(int) - decode_image(coding, stream)).max() <= 1, size
        own = bundle.codec.encode(rgb, rate)
        assert abs(len(own) - len(stream)) <= 8 and decode_image(coding, own).shape == rgb.shape


@pytest.mark.slow
def test_a_bundle_says_what_it_is(pair):
    coding, bundle = pair
    card = bundle.card
    assert (card.family, card.N, card.M, card.Z, card.name) == (coding.ladder.family, 8, 12, 10, "it")
    assert card.figures == {"bd_rate_pct": -3.0}
    assert card.entropy_id == coding.entropy_id
    with pytest.raises(CodecError, match="rate point 3 is not one of 0 to 2"):
        rate_point(bundle.codec.entropy, 3)


@pytest.mark.slow
def test_a_bundle_names_nothing_of_the_machine_that_made_it(whole):
    folders = [str(folder).encode() for folder in (Path(torch.__file__).parents[1], Path(__file__).parents[2])]
    for file in whole.iterdir():
        assert not [folder for folder in folders if folder in file.read_bytes()], file.name


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return export(ladder("hyperprior", "variable-rate"), tmp_path_factory.mktemp("bundles") / "whole", name="whole")


@pytest.mark.slow
def test_a_damaged_bundle_is_one_line(whole, tmp_path):
    def damaged(name: str, content: bytes | None) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(whole, folder)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(CodecError) as raised:
            codec = load(folder).codec
            codec.decode(codec.encode(photograph(9, 9), rate_point(codec.entropy, 0)))
        assert len(str(raised.value).splitlines()) == 1
        return str(raised.value).removeprefix(f"{folder}/")

    for name in (ENTROPY, "g_a.0.onnx", "h_a.0.onnx", "g_s.0.onnx"):
        assert damaged(name, b"x") == f"{name}: damaged: its SHA-256 is not the one in codec.json"
        assert damaged(name, None) == f"{name}: No such file or directory"
    assert damaged(CARD, None).endswith("no bundle: codec.json: No such file or directory")
    assert "codec.json: of format None; this codec reads format 1" in damaged(CARD, b"[]")
    assert "codec.json: missing 1 required" in damaged(
        CARD, json.dumps({name: value for name, value in Card.read(whole).__dict__.items() if name != "kind"}).encode()
    )


@pytest.mark.slow
def test_a_zip_file_of_a_bundle_is_a_bundle(whole, tmp_path):
    file = tmp_path / "whole.zip"
    file.write_bytes(packed(whole))
    rgb, streams = photograph(65, 127), []
    for model in (whole, file):
        codec = opened(str(model), 1)
        streams.append(codec.encode(rgb, rate_point(codec.entropy, 1)))
        assert np.array_equal(codec.decode(streams[0]), codec.decode(streams[-1]))
    assert streams[0] == streams[1]


@pytest.mark.slow
def test_a_zip_file_that_is_none_of_a_bundle_is_one_line(whole, tmp_path):
    content = packed(whole)
    place = content.index(b"family")  # in codec.json, which is stored as it is
    no_transform = io.BytesIO()
    with zipfile.ZipFile(no_transform, "w") as archive:
        for name in (CARD, ENTROPY):
            archive.write(whole / name, name)
    for name, damaged, expected in (
        ("changed", content[:place] + b"F" + content[place + 1 :], "no bundle: codec.json: Bad CRC-32"),
        ("cut", content[: len(content) // 2], "no bundle"),
        ("without a transform", no_transform.getvalue(), "g_a.0.onnx: No such file or directory"),
        ("of other files", _zip_of("a.txt"), "no bundle"),
    ):
        file = tmp_path / f"{name}.zip"
        file.write_bytes(damaged)
        with pytest.raises(CodecError) as raised:
            codec = load(file).codec
            codec.encode(photograph(9, 9), rate_point(codec.entropy, 0))
        line = str(raised.value)
        assert expected in line and str(file) in line and len(line.splitlines()) == 1, line


def _zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    return buffer.getvalue()


@pytest.mark.slow
def test_nothing_is_written_over(whole):
    with pytest.raises(FileExistsError, match="is there already, and not empty"):
        export(ladder("hyperprior", "variable-rate"), whole, name="again")
