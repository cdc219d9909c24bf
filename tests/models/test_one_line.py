"""Text that stays on one line: for all names that a file can have."""

from __future__ import annotations

import copy
import os
import sys

import pytest

from jobs.evaluate import InputError
from lic_codec.errors import CurveError
from models.bitstream import CodecError
from models.one_line import OneLineError, one_line
from models.weights import WeightsError
from orchestrator.features.format.key import FeatureError, TapError
from orchestrator.photographs.crops import CropError
from orchestrator.registry.reach import RegistryError
from orchestrator.results.format import FormatError
from orchestrator.spec.messages import SpecError
from orchestrator.store.errors import StoreError
from orchestrator.sweep.run_folder.checkpoints import CheckpointError

ERRORS = (
    *(CheckpointError, CodecError, CropError, CurveError, FeatureError, FormatError, InputError, RegistryError),
    *(StoreError, TapError, WeightsError),
)


def test_every_character_stays_on_the_line_and_can_be_written() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        written = one_line(f"a{character}b")
        assert written.isprintable() and len(written.splitlines()) == 1
        assert written == f"a{character}b" or character not in written
        written.encode()


def test_what_can_be_printed_stays_as_it_is() -> None:
    for text in ("", "photographs/caf\u00e9 1.png", "\u5199\u771f", "C:\\temp"):
        assert one_line(text) == text


def test_every_byte_of_a_name_is_told_apart() -> None:
    names = [os.fsdecode(bytes([byte])) for byte in range(1, 256) if byte != ord("\\")]
    assert len({one_line(name) for name in names}) == len(names)


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_one_line_are_one_line(kind: type[OneLineError]) -> None:
    error = kind("weights/a\nb caf\udce9: no such file")
    assert str(error) == r"weights/a\nb caf\udce9: no such file"
    assert str(copy.copy(error)) == str(error)


def test_a_specification_has_one_line_a_problem() -> None:
    assert str(SpecError(["a\nb", "caf\udce9"])) == "a\\nb\ncaf\\udce9"
