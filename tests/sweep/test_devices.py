"""What the nodes of a real Ray train on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator.sweep.devices import bf16_flag, devices

pytestmark = pytest.mark.slow  # a Ray


def test_this_machine_is_looked_at(local_ray: None) -> None:
    (device,) = devices()
    assert (device.node.cpus, device.node.gpus, device.node.gpu_bytes, device.capability) == (2, 0, 0, None)
    assert 0 < device.node.memory_bytes < math.inf and device.host
    assert device.cpu_bf16 == bf16_flag(Path("/proc/cpuinfo").read_text())
