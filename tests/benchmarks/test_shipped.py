"""The shelf that is shipped: what is on it codes photographs, and how a student gets there."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.whole import shipped
from lic_codec import pictures, targets
from lic_codec.bundle import Card
from lic_codec.metrics import psnr_db
from lic_codec.opening import opened
from models.ladder import RateLadder
from tests.benchmarks.test_results import row

FROG = Path("data/quickstart/validation/red_eyed_tree_frog.webp")


def test_the_shelf_is_small_and_its_students_code_photographs_in_the_order_of_their_width():
    files = sorted(shipped.SHELF.glob("*.zip"))
    assert len(files) >= 3 and sum(file.stat().st_size for file in files) <= 8_000_000
    rgb = pictures.read(FROG).rgb
    psnr = []
    for file in files:
        codec = opened(str(file), 1)
        stream = targets.encode(codec, rgb, targets.Target(bpp=0.6))
        assert 0.55 < 8 * len(stream) / rgb[..., 0].size <= 0.6
        psnr.append(psnr_db(rgb, codec.decode(stream)))
    assert psnr == sorted(psnr) and psnr[0] > 29


def test_the_shelf_names_no_file_of_the_machine_that_made_it():
    for file in shipped.SHELF.glob("*.zip"):
        with zipfile.ZipFile(file) as bundle:
            assert not [name for name in bundle.namelist() if b"site-packages" in bundle.read(name)], file.name


def test_the_best_seed_of_the_best_method_is_chosen_on_validation():
    rows = [
        row("n32", arm, seed, None, place) for place, (arm, seed) in enumerate((("a", 1), ("a", 0), ("b", 0), ("b", 1)))
    ]
    assert (shipped.chosen(rows, "n32")["arm"], shipped.chosen(rows, "n32")["seed"]) == ("a", 1)


@pytest.mark.slow
def test_a_shipped_bundle_has_rounded_weights_and_says_where_it_is_from(tmp_path: Path):
    ladder = RateLadder(family="hyperprior", N=8, M=12, lambdas=(0.002, 0.01, 0.05)).eval()
    size = shipped.ship(ladder, row("n8", "inherit", 0, 3.0, 0.1), "prim-small", tmp_path / "n8.zip")
    assert size == (tmp_path / "n8.zip").stat().st_size
    assert all(torch.equal(parameter, parameter.half().float()) for parameter in ladder.parameters())
    opened(str(tmp_path / "n8.zip"), 1)
    figures = Card.read(zipfile.Path(tmp_path / "n8.zip")).figures
    assert figures == {"study": "prim-small", "method": "inherit", "images": 32000, "kodak_bd_rate_vs_teacher_pct": 3.0}
