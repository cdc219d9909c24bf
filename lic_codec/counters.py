"""What the operating system knows: the processor, a process's peak memory, and the energy of the processors."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def processor() -> str:
    """What this machine's processor is called."""
    with suppress(OSError):  # on Linux Python's own name is only the architecture's
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def peak_memory_mb() -> float | None:
    """The most memory that this process had at once since it began or since `forget_peak`, in 10^6 bytes.

    None: the system, as Windows, does not count it so.
    """
    with suppress(OSError):  # Linux: getrusage would count the peak of the process that started this one as well
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def forget_peak() -> bool:
    """Lets the peak begin anew with what the process has now. False where the system, as macOS, cannot."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    return False


class Energy:
    """Joules of all processor packages since it was made, by Intel's and AMD's RAPL counters."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._packages = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self._begun = self._read()

    def joules(self) -> float | None:
        """None: the machine has no counter that may be read."""
        now = self._read()
        if not now or len(now) != len(self._begun):
            return None
        spent = 0
        for before, after, package in zip(self._begun, now, self._packages, strict=True):
            spent += after - before
            if after < before:  # it has begun at 0 again
                spent += int((package / "max_energy_range_uj").read_text(encoding="ascii"))
        return spent / 1e6

    def _read(self) -> list[int]:
        try:
            return [int((package / "energy_uj").read_text(encoding="ascii")) for package in self._packages]
        except (OSError, ValueError):
            return []
