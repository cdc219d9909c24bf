"""The evaluation job: a curve file that can be compared with itself, and bad input in one line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from jobs.evaluate import main
from lic_codec.errors import MismatchError
from orchestrator.photographs.survey import survey

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # codes photographs in processes of its own


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    import torch

    from models.ladder import RateLadder
    from models.weights import save_ladder

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "student n8.safetensors"
    save_ladder(path, RateLadder(family="hyperprior", N=8, M=12, lambdas=(0.0018, 0.0035, 0.0067, 0.013)))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs of mine"
    folder.mkdir()
    for name, size in (("b.png", (40, 30)), ("a.png", (64, 70))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def write_curve(path: Path, points: Sequence[tuple[float, object]], digests: Iterable[str] = ()) -> Path:
    rates, psnrs = zip(*points, strict=True)
    rows = [{"digest": digest, "bpp": rate, "psnr_db": psnr} for digest in digests for rate, psnr in points]
    path.write_text(json.dumps({"name": path.stem, "results": {"bpp": rates, "psnr-rgb": psnrs}, "photographs": rows}))
    return path


def digests_of(folder: Path) -> list[str]:
    return [photograph.digest for photograph in survey(folder, minimum_side=1).photographs]


def test_writes_rows_curve_and_bd_rate(weights, folder, tmp_path, capsys):
    out = tmp_path / "curve.json"
    far = [(0.1, 40.0), (0.2, 42.0), (0.3, 43.0), (0.4, 44.0)]
    against = write_curve(tmp_path / "far.json", far, digests_of(folder))
    arguments = [str(weights), str(folder), "--out", str(out), "--against", str(against), "--processes", "1"]
    assert main([*arguments, "--classical", "jpeg"]) == 0
    result = json.loads(out.read_text())
    assert [row["digest"] for row in result["photographs"][::4]] == digests_of(folder)
    assert result["weights"]["N"] == 8 and result["encode_ms_per_megapixel"]["median"] > 0
    named = [(row["photograph"], row["rate_point"]) for row in result["photographs"]]
    assert named == [(name, point) for name in ("a.png", "b.png") for point in range(4)]
    for point, bpp, psnr in zip(result["points"], result["results"]["bpp"], result["results"]["psnr-rgb"], strict=True):
        own = [row for row in result["photographs"] if row["rate_point"] == point["rate_point"]]
        bpps = [8 * row["bytes"] / pixels for row, pixels in zip(own, (64 * 70, 40 * 30), strict=True)]
        assert bpp == point["bpp"] == pytest.approx(sum(bpps) / 2)
        assert psnr == point["psnr_db"] == pytest.approx(sum(row["psnr_db"] for row in own) / 2)
    assert result["averaging"] == "per photograph, then the mean over photographs"
    assert result["versions"]["torch"]
    assert [(compared["codec"], compared["against"]) for compared in result["bd_rate"]] == [
        *(("student n8", "far"), ("jpeg", "far")),
        *(("student n8", "jpeg"), ("jpeg", "student n8")),
    ]
    (jpeg,) = result["others"]
    assert jpeg["name"] == "jpeg" and [point["rate_point"] for point in jpeg["points"]][:2] == [5, 10]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if "against far" in line] == [
        "BD-rate of student n8 against far",
        "BD-rate of jpeg against far",
    ]
    for point in range(4):
        assert sum(line.startswith(f"student n8: rate point {point}: ") for line in lines) == 1


def test_estimate_has_no_bytes(weights, folder, tmp_path):
    out = tmp_path / "estimate.json"
    assert main([str(weights), str(folder), "--out", str(out), "--estimate", "--processes", "1"]) == 0
    result = json.loads(out.read_text())
    assert result["description"] == "estimated from likelihoods"
    assert {row["bytes"] for row in result["photographs"]} == {None}


@pytest.mark.parametrize(
    ("value", "told"), [(float("nan"), "is not finite: the file"), (1e38, "is nan at rate point 0")]
)
def test_damaged_weights_are_one_line_and_write_nothing(weights, folder, tmp_path, capsys, value, told):
    with safe_open(weights, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in tensors:
        if "g_a" in name:
            tensors[name][...] = value
    damaged, out = tmp_path / "damaged.safetensors", tmp_path / "out.json"
    save_file(tensors, damaged, metadata)
    assert main([str(damaged), str(folder), "--estimate", "--processes", "1", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"evaluate: {damaged}: ") and told in line
    assert not out.exists()


def test_bad_input_is_one_line_and_exit_2(weights, folder, tmp_path, capfd):
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    print_colours = tmp_path / "cmyk"
    print_colours.mkdir()
    Image.new("CMYK", (8, 8)).save(print_colours / "print.jpg")
    no_curve = tmp_path / "no-curve.json"
    no_curve.write_text("[1, 2]")
    few = write_curve(tmp_path / "few.json", [(0.1, 30.0), (0.2, 32.0), (0.3, 33.0)])
    gap = write_curve(tmp_path / "gap.json", [(0.1, 30.0), (0.2, float("nan")), (0.3, 33.0), (0.4, 34.0)])
    falls = write_curve(tmp_path / "falls.json", [(0.1, 30.0), (0.2, 32.0), (0.3, 31.0), (0.4, 34.0)])
    words = write_curve(tmp_path / "words.json", [(0.1, "30"), (0.2, 32.0), (0.3, 33.0), (0.4, 34.0)])
    wide = tmp_path / "wide.json"
    wide.write_text(few.read_text(), encoding="utf-16")
    cut = tmp_path / "cut.json"
    cut.write_text(few.read_text()[:-5])
    os.mkfifo(tmp_path / "pipe.json")
    unnamed = tmp_path / "unnamed.json"
    unnamed.write_text(json.dumps({**json.loads(few.read_text()), "name": ["a"]}))
    fit = [(0.1, 30.0), (0.2, 32.0), (0.3, 33.0), (0.4, 34.0)]
    unknown = write_curve(tmp_path / "unknown.json", fit)
    others = write_curve(tmp_path / "others.json", fit, ["aa", *digests_of(folder)])
    not_weights = tmp_path / "x.safetensors"
    not_weights.write_bytes(b"no")
    cases = [
        ([str(tmp_path / "none.safetensors"), str(folder)], "none.safetensors"),
        ([str(not_weights), str(folder)], "x.safetensors"),
        ([str(weights), str(tmp_path / "nowhere")], "nowhere: no such folder"),
        ([str(weights), str(empty)], "no photographs"),
        ([str(weights), str(broken)], "cut.png"),
        ([str(weights), str(print_colours)], "print.jpg: "),
        ([str(weights), str(folder), "--against", str(tmp_path / "none.json")], "none.json: No such file"),
        ([str(weights), str(folder), "--against", str(no_curve)], "no-curve.json: not an object with results"),
        ([str(weights), str(folder), "--against", str(few)], "few.json: no curve to compare with: "),
        ([str(weights), str(folder), "--against", str(few)], "3 points, 4 needed"),
        ([str(weights), str(folder), "--against", str(gap)], "0.2 bpp, nan dB"),
        ([str(weights), str(folder), "--against", str(falls)], "32.000 dB at 0.2000 bpp, then 31.000 dB at 0.3000"),
        ([str(weights), str(folder), "--against", str(words)], "(0.1, '30') is not a pair of numbers"),
        ([str(weights), str(folder), "--against", str(wide)], "wide.json: it is not UTF-8 text"),
        ([str(weights), str(folder), "--against", str(unnamed)], "unnamed.json: name: ['a'] is not allowed: text"),
        ([str(weights), str(folder), "--against", str(cut)], "cut.json: no JSON: "),
        ([str(weights), str(folder), "--against", str(unknown)], "it does not say which photographs it is of"),
        ([str(weights), str(folder), "--against", str(others)], "3 photographs, 2 of which are among the folder's 2"),
        (
            [str(weights), str(folder), "--against", str(unknown), "--published-on", "kodak"],
            "it is of kodak, 24 photographs, 0 of which are among the folder's 2",
        ),
        (["models:/student@best", str(folder), "--estimate"], "rates are estimated of weights files"),
        ([str(weights), str(folder), "--plot", str(tmp_path / "curves.gif")], "has to end in .svg, .png, .pdf"),
        ([str(weights), str(folder), "--out", str(tmp_path)], "--out "),
        ([str(weights), str(folder), "--processes", "0"], "--processes 0"),
        ([str(weights), str(folder), "--out", str(tmp_path / "no/where.json")], "--out"),
        ([str(weights), str(folder), "--out", str(weights)], "its name has to end in .json"),
        ([str(weights), str(folder), "--out", str(tmp_path / "pipe.json")], "a pipe or a device"),
    ]
    for arguments, named in cases:
        assert main(arguments) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        assert named in captured.err


def test_a_machine_that_decodes_something_else_is_one_line_and_exit_1(weights, folder, monkeypatch, capsys):
    def differs(*_: object, **__: object) -> None:
        raise MismatchError("a.png at rate point 0: decoded and forward images differ by 2.0e-05")

    monkeypatch.setattr("jobs.evaluate.evaluate", differs)
    assert main([str(weights), str(folder)]) == 1
    assert capsys.readouterr().err == (
        "evaluate: a.png at rate point 0: decoded and forward images differ by 2.0e-05\n"
    )


@pytest.mark.parametrize(("kind", "code"), [("interrupted", 130), ("killed", 1)])
def test_an_evaluation_that_is_cut_off_is_one_line(weights, folder, tmp_path, kind, code):
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    out = tmp_path / "curve.json"
    command = (sys.executable, str(ROOT / "jobs" / "evaluate.py"), str(weights), str(folder), "--out", str(out))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0) as job:
        assert job.stdout is not None
        while "[1/22]" not in job.stdout.readline():
            assert job.poll() is None, job.communicate()
        if kind == "interrupted":
            os.killpg(job.pid, signal.SIGINT)  # as a terminal does
        else:
            workers = [
                child for child in psutil.Process(job.pid).children() if "spawn_main" in " ".join(child.cmdline())
            ]
            workers[0].kill()
        _, errors = job.communicate(timeout=60)
    assert job.returncode == code and len(errors.splitlines()) == 1, errors
    assert errors == "interrupted\n" if kind == "interrupted" else "evaluate: a process that measures" in errors
    assert not out.exists()
