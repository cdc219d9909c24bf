"""Everything that is run by `python -m`, or by its path: a wrong argument ends it before any work, in one line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # imports every benchmark

ROOT = Path(__file__).parents[1]
# A batch script, a pod's hook, the report's own module, which orchestrator/report/__main__.py runs; and the processes
# in which benchmarks measure.
OTHERS_RUN_THEM = {"clusters.slurm.joined", "clusters.kubernetes.leave", "orchestrator.report.page"}
OTHERS_RUN_THEM |= {"benchmarks.cache.reader_side", "benchmarks.engine.worker", "benchmarks.whole.codec_times"}
ENTRIES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("models", "orchestrator", "jobs", "clusters", "benchmarks", "testing")
    for path in (ROOT / package).rglob("*.py")
    if "\nif __name__ ==" in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module", autouse=True)
def deepspeed_has_spoken() -> None:
    """At its first import it says on what it computes."""
    import deepspeed  # noqa: F401


@pytest.mark.parametrize("module", sorted({*ENTRIES} - OTHERS_RUN_THEM))
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_an_argument_that_there_is_not_ends_it_in_one_line(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--nope"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__")
    output, errors = capsys.readouterr()
    assert (end.value.code, output, len(errors.splitlines())) == (2, "", 1), errors
