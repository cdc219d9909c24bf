"""A change of the mathematics shows in the training curves: 200 steps of every preset, each term."""

import json
import math

import pytest

from tests.distill.golden import FILE, PRESETS, curves

pytestmark = pytest.mark.slow  # trains every preset

# A processor without AVX-512 sums in another order. Measured with ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA set to
# AVX2: at most 9e-7, most of it the seven digits of the file.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def found():
    return curves()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_curve_is_the_one_that_was_committed(found, preset):
    golden = json.loads(FILE.read_text())[preset]
    assert len(golden) == len(found[preset]) == 10
    for index, (row, expected) in enumerate(zip(found[preset], golden, strict=True)):
        assert row.keys() == expected.keys()
        for name, value in row.items():
            assert math.isclose(value, expected[name], rel_tol=TOLERANCE), (index, name, value, expected[name])


def test_every_preset_has_a_curve_of_its_own(found):
    last = {preset: rows[-1]["loss"] for preset, rows in found.items()}
    assert len({f"{loss:.6g}" for loss in last.values()}) == len(PRESETS)
