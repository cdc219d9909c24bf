"""What networks cost, in words, and how much a front dominates."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.evaluation.costs import Complexity
from orchestrator.report.costs import COSTS, costs_in_words, front_of, hypervolume_in_words
from orchestrator.report.run_files import RunFiles, read_run
from orchestrator.store.store import Store

TEACHER = Complexity(
    params=100_000,
    macs_per_pixel=20_000.0,
    encoder_macs_per_pixel=10_000.0,
    decoder_macs_per_pixel=12_000.0,
    encode_ms_per_megapixel=90.0,
    decode_ms_per_megapixel=100.0,
)


@pytest.fixture
def run(run_folder: Path) -> RunFiles:
    return read_run(Store(run_folder))


@pytest.mark.parametrize(
    ("written", "axes"),
    [
        ("name: a", ("macs_per_pixel",)),
        ("axes: [params, decode_ms_per_megapixel]", ("params", "decode_ms_per_megapixel")),
        ("axes: [watts, {a: 1}]", ("macs_per_pixel",)),
        ("axes: params", ("macs_per_pixel",)),
        ("axes: [", ("macs_per_pixel",)),
    ],
)
def test_the_axes_are_those_of_the_specification(run_folder: Path, written: str, axes: tuple[str, ...]) -> None:
    (run_folder / "spec.yaml").write_text(written)
    assert read_run(Store(run_folder)).axes == axes


def test_a_front_is_of_axes_in_words() -> None:
    assert front_of(["macs_per_pixel"]) == "BD-rate and MACs per pixel of coding and decoding"
    both = front_of(["encoder_macs_per_pixel", "decode_ms_per_megapixel"])
    assert both == "BD-rate, the encoder's MACs per pixel and milliseconds of decoding"
    assert len({cost.label for cost in COSTS.values()}) == len({cost.words for cost in COSTS.values()}) == len(COSTS)


def test_all_costs_that_are_known_are_told() -> None:
    plain = replace(TEACHER, encode_ms_per_megapixel=None, decode_ms_per_megapixel=None)
    told = "20.00 kMACs per pixel (encoder 10.00, decoder 12.00), 100,000 parameters"
    assert costs_in_words(plain) == told
    assert costs_in_words(TEACHER) == f"{told}\nby one thread 90.0 ms to encode a megapixel, 100.0 to decode it"


def with_front(run: RunFiles, *places: tuple[float, float]) -> RunFiles:
    """Students of these BD-rates and shares of the teacher's MACs, half of them the encoder's, and parameters."""
    students = tuple(
        run.front[0].model_copy(
            update={
                "bd_rate_pct": rate,
                "macs_per_pixel": 20_000.0 * share,
                "encoder_macs_per_pixel": 10_000.0 * share,
                "params": round(100_000 * share),
            }
        )
        for rate, share in places
    )
    return replace(run, front=students, coded={str(number): one for number, one in enumerate(students)})


def test_a_hypervolume_is_a_share_of_what_the_teacher_leaves_to_be_gained(run: RunFiles) -> None:
    front = with_front(replace(run, anchor_complexity=TEACHER), (0.0, 0.1), (50.0, 0.01), (250.0, 0.001))
    share = (50 * math.log(10) + 50 * math.log(100)) / (100 * math.log(100))  # what is beyond +100 % does not count
    assert hypervolume_in_words(front) == (
        "Hypervolume of the front of BD-rate and MACs per pixel of coding and decoding: "
        f"{100 * share:.1f} % of the box from 0 to +100 % of BD-rate and, in logarithms, from a hundredth of the "
        "teacher's cost (20.00 kMACs per pixel) to all of it: the same box for every sweep with this anchor."
    )
    both = replace(front, axes=("encoder_macs_per_pixel", "params"))
    share = (50 * math.log(10) ** 2 + 50 * math.log(100) ** 2) / (100 * math.log(100) ** 2)
    assert f": {100 * share:.1f} % of the box" in hypervolume_in_words(both)
    assert "(10.00 kMACs per pixel and 100.00 thousand parameters)" in hypervolume_in_words(both)
    students = tuple(student.model_copy(update={"decode_ms_per_megapixel": 10.0}) for student in front.front)
    timed = hypervolume_in_words(replace(front, front=students, axes=("decode_ms_per_megapixel",)))
    assert ": 50.0 % of the box" in timed and timed.endswith("with this anchor, timed on such a machine.")


def test_without_the_teachers_cost_the_costliest_coded_trial_stands_for_it(run: RunFiles) -> None:
    front = with_front(run, (0.0, 0.5), (20.0, 0.1))
    share = (20 * math.log(1.1) + 80 * math.log(5.5)) / (100 * math.log(100))
    text = hypervolume_in_words(front)
    assert f": {100 * share:.1f} % of the box" in text and "from a hundredth of 11.00 kMACs per pixel to all" in text
    assert text.endswith("1.1 times the costliest coded trial's: compare it with sweeps of the same students alone.")
    timed = replace(front, axes=("encode_ms_per_megapixel",), anchor_complexity=TEACHER)
    assert hypervolume_in_words(timed) == ""  # no student has it
    assert hypervolume_in_words(replace(run, front=())) == ""
