"""How `benchmarks.whole.faults` compares two sweeps' checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.whole import states
from orchestrator.store.store import Store
from orchestrator.trials.record import Checkpoint
from testing.records import record, write


def saved(folder: Path, value: Any) -> dict[str, str]:
    folder.mkdir()
    torch.save(value, folder / "state.pt")
    return states.contents(folder)


def test_checkpoints_are_equal_by_what_they_hold(tmp_path: Path) -> None:
    name = "".join(["la", "tent"])  # another object than the literal: pickled twice, not once by reference
    one = saved(tmp_path / "one", {"sums": {"latent": 0.5}, "again": "latent", "weight": torch.arange(4.0)})
    other = saved(tmp_path / "other", {"weight": torch.arange(4.0), "sums": {name: 0.5}, "again": "latent"})
    assert (tmp_path / "one" / "state.pt").read_bytes() != (tmp_path / "other" / "state.pt").read_bytes()
    assert one == other
    changed = torch.arange(4.0)
    changed[3] = torch.nextafter(changed[3], torch.tensor(9.0))
    assert saved(tmp_path / "bit", {"sums": {"latent": 0.5}, "again": "latent", "weight": changed}) != one
    assert saved(tmp_path / "sum", {"sums": {"latent": 0.25}, "again": "latent", "weight": torch.arange(4.0)}) != one


def test_a_checkpoint_is_kept_when_its_trial_goes_on(tmp_path: Path) -> None:
    run = Store(tmp_path / "run")
    with states.checkpoints(run, tmp_path / "kept"):
        for images in (8, 16):
            run.replace(f"checkpoints/1/{images}/state/part", b"bytes %d" % images)
            files = {"state/part": "digest"}
            checkpoint = Checkpoint(images_seen=images, path=f"checkpoints/1/{images}", files=files)
            write(run, record("1", images_seen=images, checkpoint=checkpoint))
            kept = tmp_path / "kept" / f"{images}-1" / "state" / "part"
            while not kept.exists():
                time.sleep(0.01)
            run.delete(f"checkpoints/1/{images}/state/part")
            assert kept.read_bytes() == b"bytes %d" % images
