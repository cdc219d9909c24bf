"""Names of sweeps: one that is taken is a folder's, Kubernetes' and a shell's word; the others are one line."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clusters.kubernetes.manifests import LONGEST_NAME, label
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.store.store import Store
from tests.properties.values import JSON_NUMBERS, ODD_TEXT, is_one_line

QUICKSTART = "jobs/specs/quickstart.yaml"
TAKEN = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
TEXT = ODD_TEXT | TAKEN | st.from_regex(r"[A-Za-z0-9._-]*\n?")


def _named(name: str) -> str | None:
    """The sweep's name; None if it was refused in one line that shows it."""
    try:
        return load_spec(QUICKSTART, [f"name={json.dumps(name)}"]).name
    except SpecError as error:
        assert all(is_one_line(problem) for problem in error.problems)
        return None


@given(TEXT)
def test_a_name_is_taken_as_it_is_or_refused(name: str) -> None:
    taken = _named(name)
    assert taken in (name, None)
    if taken is not None:
        run = Store("/runs") / taken
        assert run.folder == Path("/runs") / name and run.url.rpartition("/")[2] == name
        assert shlex.split(name) == [name] and taken == taken.strip()


# In YAML, Infinity and NaN are text: the number is .inf.
@given(JSON_NUMBERS.filter(lambda value: abs(value) < math.inf) | st.booleans())
def test_a_number_is_told_apart_from_a_name(value: float) -> None:
    try:
        load_spec(QUICKSTART, [f"name={json.dumps(value)}"])
    except SpecError as error:
        assert all(is_one_line(problem) for problem in error.problems)
        assert "letters" not in str(error)
    else:
        assert json.dumps(value) in ("NaN", "Infinity")  # text to YAML


@given(TAKEN, TAKEN)
def test_a_kubernetes_name_is_one_and_belongs_to_one_sweep(name: str, other: str) -> None:
    made = label(name)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made) and len(made) <= LONGEST_NAME
    assert (label(other) == made) == (other == name)
