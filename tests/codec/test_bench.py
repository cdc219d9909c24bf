"""`lic bench` and its engine: rows from bytes and pixels, curves, files, and what cannot be measured in one line."""

from __future__ import annotations

import csv
import io
import json
import mmap
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lic_codec import counters, outputs
from lic_codec.bd_rate import BDRate, bd_rate
from lic_codec.classical import CLASSICAL, ClassicalCoder, classical
from lic_codec.cli import main
from lic_codec.codec import Rgb
from lic_codec.curves import Curve
from lic_codec.errors import CodecError
from lic_codec.evaluation import Evaluation, evaluation, figures
from lic_codec.measuring import Candidate, Measurement, Row, Sample, _measured, distinct
from lic_codec.metrics import ms_ssim, psnr_db
from lic_codec.photographs import digests, survey
from lic_codec.sets import KODAK
from orchestrator.photographs.survey import survey as survey_of_sweeps


def photograph(seed: int, height: int = 170, width: int = 180) -> Rgb:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    return np.clip(ramp + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs of mine"
    folder.mkdir()
    for seed, name in enumerate(("b.png", "a.png")):
        Image.fromarray(photograph(seed)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_classical_codec_gives_files_that_grow_with_quality(name: str) -> None:
    if name == "jxl":
        pytest.importorskip("pillow_jxl")
    assert classical(name).description.startswith(CLASSICAL[name].title)
    with Image.open(Path(__file__).parents[2] / "data/quickstart/train/astronaut.webp") as image:
        rgb = np.array(image.convert("RGB"))[:64, 100:180]
    samples = list(ClassicalCoder(CLASSICAL[name], 1).samples(rgb))
    assert [sample.rate_point for sample in samples] == [*CLASSICAL[name].qualities]
    assert [sample.bits for sample in samples] == sorted(sample.bits for sample in samples)
    for sample in samples:
        assert sample.stream is not None and sample.bits == 8 * len(sample.stream)
        with Image.open(io.BytesIO(sample.stream)) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), sample.decoded)
    assert psnr_db(rgb, samples[-1].decoded) > psnr_db(rgb, samples[0].decoded) + 5


class Rounded:
    """A codec that keeps some bits of each value; of its rates 1 and 2."""

    def __init__(self, threads: int) -> None:
        assert threads == 1

    def samples(self, rgb: Rgb) -> Iterator[Sample]:
        for bits in (1, 2):
            kept = rgb & np.uint8(256 - (256 >> bits))
            yield Sample(rate_point=bits, bits=8, decoded=kept, stream=bytes([bits]), encode_s=0.5, decode_s=0.25)


ROUNDED = Candidate(name="rounded", description="a stand-in", open=Rounded)


def rows_of(folder: Path, candidate: Candidate = ROUNDED) -> list[Row]:
    return [row for found in survey(folder) for row in _measured(candidate, 1, found)[0]]


def measured(name: str, rows: list[Row]) -> Measurement:
    return Measurement(
        candidate=replace(ROUNDED, name=name),
        rows=tuple(rows),
        threads=1,
        processes=1,
        peak_memory_mb=50.0,
        peak_memory_of="coding",
        energy_joules=None,
    )


def test_a_row_has_the_figures_of_its_bytes_and_pixels(folder: Path) -> None:
    rows = rows_of(folder)
    assert [(row.photograph, row.rate_point) for row in rows] == [(n, b) for n in ("a.png", "b.png") for b in (1, 2)]
    original = photograph(1)  # a.png
    kept = original & np.uint8(0b11000000)
    row = rows[1]
    assert row.bytes == 1 and row.bpp == 8 / (170 * 180) and row.pixels == 170 * 180
    assert row.psnr_db == psnr_db(original, kept) and row.ms_ssim == ms_ssim(original, kept)
    assert row.mse == pytest.approx(float(np.mean((original / 255 - kept / 255) ** 2)))


def test_an_exact_copy_has_finite_figures(folder: Path) -> None:
    class Exact(Rounded):
        def samples(self, rgb: Rgb) -> Iterator[Sample]:
            yield Sample(rate_point=0, bits=8, decoded=rgb)

    (row, _) = rows_of(folder, replace(ROUNDED, name="exact", open=Exact))
    assert (row.psnr_db, row.mse, row.ms_ssim) == pytest.approx((100, 0, 1))
    assert row.bytes is None and row.sha256 is None and row.encode_s is None


def test_a_process_with_too_little_memory_is_one_line(folder: Path) -> None:
    class Greedy(Rounded):
        def samples(self, rgb: Rgb) -> Iterator[Sample]:
            yield from map(self._too_large, [rgb])

        def _too_large(self, rgb: Rgb) -> Sample:
            raise MemoryError

    with pytest.raises(CodecError, match=r"a\.png: too little memory: try fewer photographs at a time"):
        rows_of(folder, replace(ROUNDED, name="greedy", open=Greedy))


def test_codecs_of_one_name_are_called_by_what_the_user_called_them() -> None:
    twice = [replace(ROUNDED, source=source) for source in ("a/w.safetensors", "b/w.safetensors")]
    assert [candidate.name for candidate in distinct([*twice, replace(ROUNDED, name="jpeg")])] == [
        *("a/w.safetensors", "b/w.safetensors", "jpeg")
    ]


@pytest.fixture
def two() -> Evaluation:
    """Codecs whose second needs half the bits on one photograph and all of them on the other."""
    rows = [
        Row(
            photograph=f"{digest}.png",
            digest=digest,
            rate_point=place,
            bpp=share * rate,
            psnr_db=quality,
            mse=0.1,
            ms_ssim=0.9 + place / 100,
            bytes=100,
            sha256="00",
            encode_s=place + 1.0,
            decode_s=0.5,
            pixels=1_000_000,
        )
        for share in (1.0, 0.5)
        for digest in ("aa", "bb")
        for place, (rate, quality) in enumerate(((0.1, 27.0), (0.2, 29.0), (0.4, 31.5), (0.8, 34.0)))
    ]
    rows[12:] = [replace(row, bpp=2 * row.bpp) for row in rows[12:]]
    return evaluation([figures(measured("one", rows[:8]), {"weights": 1}), figures(measured("other", rows[8:]))])


def test_bd_rates_are_of_mean_curves_and_of_photographs(two: Evaluation) -> None:
    found = {(c.codec, c.against, c.distortion): c for c in two.comparisons}
    assert len(found) == 4
    forth, back = found["other", "one", "mse"], found["one", "other", "mse"]
    assert forth.pct == pytest.approx(-25) and back.pct == pytest.approx(100 / 3)
    assert forth.of_photographs and forth.of_photographs.mean_pct == pytest.approx(-25)
    assert back.of_photographs and back.of_photographs.mean_pct == pytest.approx(50)


def test_a_document_is_a_curve_of_compressais_form_that_can_be_compared_with(two: Evaluation, tmp_path: Path) -> None:
    written = outputs.Outputs(out=tmp_path / "r.json", table=tmp_path / "r.csv", plot=tmp_path / "r.svg")
    written.check()
    written.write(two)
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["name"] == "one" and document["weights"] == 1 and document["photograph_set"] is None
    assert document["results"]["psnr-rgb"] == [27.0, 29.0, 31.5, 34.0]
    assert document["encode_ms_per_megapixel"] == {"median": 2500, "lower_quartile": 1750, "upper_quartile": 3250}
    assert [other["name"] for other in document["others"]] == ["other"]
    curve = Curve.read(tmp_path / "r.json")
    curve.check_photographs({"aa", "bb"})
    assert curve.of_photograph.keys() == {"aa", "bb"}
    assert curve.points == two.codecs[0].curve("mse").points
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert [row["codec"] for row in rows] == ["one"] * 8 + ["other"] * 8 and rows[0]["bpp"] == "0.1"
    assert "<svg" in (tmp_path / "r.svg").read_text()


def test_the_terminal_has_a_table_of_bd_rates(two: Evaluation) -> None:
    *_, title, head, one, other = outputs.lines(two)
    assert title.startswith("BD-rate in % by PSNR, of the row's codec against the column's")
    assert head.split() == ["one", "other"] and one.split() == ["one", "+33.3"] and other.split() == ["other", "-25.0"]


def test_figures_that_are_not_finite_are_one_line(folder: Path) -> None:
    rows = [replace(row, bpp=float("nan")) for row in rows_of(folder)]
    with pytest.raises(CodecError, match="rounded: bpp is nan at rate point 1: the weights are damaged"):
        figures(measured("rounded", rows))


@pytest.mark.slow  # starts processes
def test_bench_measures_compares_and_writes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    arguments = (folder, "--classical", "webp", "--classical", "jpeg", "--processes", 2, "--out", out)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert [row["photograph"] for row in document["photographs"]] == ["a.png"] * 8 + ["b.png"] * 8
    webp, jpeg = (
        list(zip(d["results"]["bpp"], d["results"]["psnr-rgb"], strict=True)) for d in (document, document["others"][0])
    )
    (compared,) = (c for c in document["bd_rate"] if (c["codec"], c["distortion"]) == ("jpeg", "mse"))
    own = bd_rate(webp, jpeg, minimum_overlap=0.75)
    assert compared.get("pct") == (own.pct if isinstance(own, BDRate) else None)
    assert document["peak_memory_mb"] > 10 and document["threads"] == 1 and document["processes"] == 2
    assert document["processor"]
    again = run(*arguments)
    assert again.exit_code == 1 and again.output == f"Error: {out} is there already: --force writes over it\n"
    against = run(folder, "--classical", "jpeg", "--against", out, "--processes", 1)
    assert against.exit_code == 0 and "BD-rate of jpeg against webp: " in against.output


def test_what_cannot_be_measured_is_one_line(folder: Path, tmp_path: Path) -> None:
    empty, broken, clear = (tmp_path / name for name in ("empty", "broken", "clear"))
    for made in (empty, broken, clear):
        made.mkdir()
    (broken / "cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    Image.new("RGBA", (8, 8)).save(clear / "glass.png")
    curve = tmp_path / "vtm.json"
    points = {"bpp": [0.1, 0.2, 0.4, 0.8], "psnr-rgb": [30, 32, 34, 36]}
    curve.write_text(json.dumps({"name": "VTM", "results": points, "meta": {"dataset": "kodak"}}))
    jpeg = ("--classical", "jpeg")
    for arguments, told in (
        ((folder,), "no codec: --model or --classical is needed"),
        ((tmp_path / "nowhere", *jpeg), "nowhere: no such folder"),
        ((empty, *jpeg), "no photographs in it"),
        ((broken, *jpeg), "cut.png: "),
        ((clear, *jpeg), "glass.png: transparent pixels"),
        ((folder, "--model", empty), "no bundle: codec.json is not in it"),
        ((folder, *jpeg, "--against", curve), "it is of kodak, 24 photographs, 0 of which are among the folder's 2"),
        ((folder, *jpeg, "--out", tmp_path / "r.txt"), "its name has to end in .json"),
        ((folder, *jpeg, "--plot", tmp_path / "no/r.svg"), "no such folder"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and len(result.output.splitlines()) == 1 and told in result.output, result.output


@pytest.mark.parametrize(
    ("package", "arguments", "told"),
    [
        ("bjontegaard", ("--classical", "jpeg", "--classical", "webp"), "a BD-rate needs bjontegaard"),
        ("pillow_jxl", ("--classical", "jxl"), "JPEG XL needs pillow-jxl-plugin"),
        ("matplotlib", ("--classical", "jpeg", "--plot", "r.svg"), "a plot needs matplotlib"),
    ],
)
def test_a_missing_package_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    result = run(folder, *arguments)
    assert (result.exit_code, result.output) == (1, f"Error: {told}: pip install 'lic-codec[bench]'\n")


def test_photographs_are_known_by_upright_pixels(folder: Path) -> None:
    turned = Image.fromarray(photograph(2, 40, 30))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "c.png", exif=exif)
    found = survey(folder)
    assert [(p.name, p.digest, p.width, p.height) for p in found] == [
        (Path(p.path).name, p.digest, p.width, p.height) for p in survey_of_sweeps(folder, minimum_side=1).photographs
    ]
    assert (found[2].width, found[2].height) == (40, 30) and found[2].load().shape == (30, 40, 3)


def test_a_picture_that_occurs_twice_or_changes_is_one_line(folder: Path) -> None:
    (first, _) = survey(folder)
    Image.fromarray(photograph(5)).save(first.path)
    with pytest.raises(CodecError, match=r"a\.png: its pixels changed since"):
        first.load()
    Image.fromarray(photograph(5)).save(folder / "c.png")
    with pytest.raises(CodecError, match=r"c\.png: the same picture as a\.png"):
        survey(folder)


def test_the_kodak_set_is_recognised() -> None:
    kodak = Path(__file__).parents[3] / "shared/data/kodak"
    if not kodak.is_dir():
        pytest.skip(f"no {kodak}")
    assert digests(survey(kodak)) == KODAK


def test_energy_is_of_all_packages_and_begins_at_0_again(tmp_path: Path) -> None:
    def write(package: str, energy: int) -> None:
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "energy_uj").write_text(f"{energy}\n")
        (tmp_path / package / "max_energy_range_uj").write_text("10000000\n")

    write("intel-rapl:0", 5_000_000)
    write("intel-rapl:1", 9_000_000)
    write("intel-rapl:1:0", 1)  # a part of package 1
    energy = counters.Energy(tmp_path)
    write("intel-rapl:0", 6_500_000)
    write("intel-rapl:1", 1_000_000)
    assert energy.joules() == pytest.approx(1.5 + 2)
    assert counters.Energy(tmp_path / "none").joules() is None


def test_the_peak_of_memory_is_that_of_what_came_after_it_was_forgotten() -> None:
    if not counters.forget_peak():
        pytest.skip("this system's peak cannot begin anew")
    peaks = [counters.peak_memory_mb()]
    with mmap.mmap(-1, 160_000_000) as fresh:  # an array may lie in what was freed before
        np.frombuffer(fresh, np.uint8)[:] = 1
    peaks.append(counters.peak_memory_mb())
    assert counters.forget_peak()
    peaks.append(counters.peak_memory_mb())
    before, most, after = (peak or 0.0 for peak in peaks)
    assert most > before + 100 and after < before + 60


def test_the_peak_of_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    held = np.ones(40_000_000)  # 320 MB
    code = "from lic_codec import counters; print(counters.peak_memory_mb())"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert held.nbytes / 1e6 > 300 and float(printed) < 200
