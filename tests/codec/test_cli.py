"""`lic`, as somebody at a terminal uses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from lic_codec.cli import main
from lic_codec.metrics import psnr_db
from lic_codec.pictures import read
from models.export import export
from models.ladder import RateLadder

pytestmark = pytest.mark.slow  # the exporter takes seconds


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = RateLadder(family="hyperprior", N=8, M=12, lambdas=(0.002, 0.01, 0.05)).eval()
    with torch.no_grad():
        made.networks[0].g_a[-1].weight.mul_(40)
    return export(made, tmp_path_factory.mktemp("bundles") / "small", name="small", figures={"bd_rate_pct": -3.5})


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three in two folders."""
    for place, size in (("a.png", (70, 90)), ("b.bmp", (64, 64)), ("deep/c.png", (200, 180))):
        path = tmp_path / "photographs" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        ramp = np.linspace(0, 255, size[0])[:, None, None] + np.zeros((*size, 3))
        Image.fromarray(ramp.astype(np.uint8)).save(path)
    return tmp_path / "photographs"


def lic(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env={"LIC_MODEL": None})


def refused(*arguments: object) -> str:
    result = lic(*arguments)
    assert result.exit_code != 0 and (result.exception is None or isinstance(result.exception, SystemExit))
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return line.removeprefix("Error: ")


def test_a_photograph_there_and_back(bundle: Path, photographs: Path) -> None:
    coded = lic("encode", photographs / "a.png", "--model", bundle)
    assert coded.exit_code == 0, coded.output
    stream = photographs / "a.lic"
    assert coded.output.startswith(f"{stream}: {stream.stat().st_size} bytes, ")
    decoded = lic("decode", stream, "--model", bundle, "-o", photographs / "back.png")
    assert decoded.output == f"{photographs / 'back.png'}: 90x70 pixels\n"
    compared = lic("compare", photographs / "a.png", stream, "--model", bundle, "--picture", photographs / "side.png")
    psnr = psnr_db(read(photographs / "a.png").rgb, read(photographs / "back.png").rgb)
    assert f"PSNR     {psnr:.3f} dB" in compared.output and "MS-SSIM  none" in compared.output
    assert read(photographs / "side.png").rgb.shape == (70, 270, 3)


def test_a_folder_there_and_back_with_progress(bundle: Path, photographs: Path, tmp_path: Path) -> None:
    coded = lic("encode", photographs, "--model", bundle, "-o", tmp_path / "streams", "--rate", 1.5)
    assert [line[:6] for line in coded.output.splitlines()] == ["[1/3] ", "[2/3] ", "[3/3] "]
    assert (
        lic("decode", tmp_path / "streams", "--model", bundle, "-o", tmp_path / "back", "--format", "webp").exit_code
        == 0
    )
    assert {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*.webp")} == {
        "a.webp",
        "b.webp",
        "deep/c.webp",
    }


def test_one_file_that_fails_does_not_stop_the_others(bundle: Path, photographs: Path, tmp_path: Path) -> None:
    (photographs / "broken.png").write_bytes(b"no picture")
    result = lic("encode", photographs, "--model", bundle, "-o", tmp_path / "streams")
    assert result.exit_code == 1 and len(list((tmp_path / "streams").rglob("*.lic"))) == 3
    assert f"Error: {photographs / 'broken.png'}: not a picture" in result.output
    assert result.output.splitlines()[-1] == "Error: 1 of 4 files failed"


def test_rates_and_targets(bundle: Path, photographs: Path) -> None:
    sizes = []
    for option in (("--rate", 0), ("--rate", 1.5), ("--rate", 2), ("--gain", 1.5)):
        assert lic("encode", photographs / "a.png", "--model", bundle, "--force", *option).exit_code == 0
        sizes.append((photographs / "a.lic").stat().st_size)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    bpp = 8 * sizes[1] / (70 * 90)
    assert lic("encode", photographs / "a.png", "--model", bundle, "--force", "--bpp", bpp).exit_code == 0
    assert (photographs / "a.lic").stat().st_size <= sizes[1]


def test_nothing_is_written_over_unless_asked_for(bundle: Path, photographs: Path) -> None:
    stream = photographs / "a.lic"
    stream.write_bytes(b"mine")
    line = refused("encode", photographs, "--model", bundle)
    assert line == f"{stream} is there already: --force writes over it"
    assert stream.read_bytes() == b"mine" and not (photographs / "b.lic").exists()


def test_info_of_streams_and_bundles(bundle: Path, photographs: Path) -> None:
    rgba = np.dstack((read(photographs / "a.png").rgb, np.full((70, 90), 9, np.uint8)))
    Image.fromarray(rgba).save(photographs / "clear.png")
    lic("encode", photographs / "clear.png", "--model", bundle)
    told = lic("info", photographs / "clear.lic").output
    assert "photograph     90x70 pixels" in told and ", alpha " in told
    zipped = shutil.make_archive(str(photographs / "zipped"), "zip", bundle)
    told = lic("info", bundle).output
    assert "network        hyperprior, N=8, M=12, Z=8, encoder N=8" in told and "bd_rate_pct    -3.5" in told
    assert lic("info", zipped).output == told


def test_what_cannot_be_done_is_one_line(bundle: Path, photographs: Path, tmp_path: Path) -> None:
    picture, nowhere = photographs / "a.png", tmp_path / "nowhere"
    assert refused("encode", nowhere, "--model", bundle) == f"{nowhere}: no such file or folder"
    assert refused("encode", picture, "--model", photographs).startswith(f"{photographs}: ")
    assert (
        refused("encode", picture, "--model", bundle, "--rate", 1, "--bpp", 1) == "rate and bpp: one of them is allowed"
    )
    assert refused("encode", picture, "--model", bundle, "--rate", 7) == f"{picture}: rate 7.0 is not one of 0 to 2"
    assert (
        refused("decode", picture, "--model", bundle, "-o", tmp_path / "x.png")
        == f"{picture}: not a stream of this codec"
    )
    assert refused("info", picture) == "not a stream of this codec"
    lic("encode", picture, "--model", bundle)
    assert "is not one of .png" in refused("decode", photographs / "a.lic", "--model", bundle, "-o", tmp_path / "x.gif")
    line = refused("decode", photographs / "a.lic", "--model", bundle, "--largest", 100, "-o", tmp_path / "x.png")
    assert line.endswith("90x70 pixels are more than the limit of 100")
    assert refused("compare", picture, photographs / "a.lic").endswith("a.lic is a stream: --model is needed")
    (tmp_path / "empty").mkdir()
    assert refused("encode", tmp_path / "empty", "--model", bundle).startswith(
        f"{tmp_path / 'empty'}: none of its files ends"
    )


def test_two_pictures_that_would_become_one_stream_are_refused(bundle: Path, photographs: Path) -> None:
    Image.open(photographs / "a.png").save(photographs / "a.webp")
    line = refused("encode", photographs, "--model", bundle)
    assert line.startswith(f"{photographs / 'a.lic'}: both ") and not (photographs / "a.lic").exists()
