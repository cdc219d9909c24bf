"""Recognises failures for lack of memory, and says which field of the specification to change."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.spec.sections import Training

# torch's CPU allocator raises a plain RuntimeError
_RAISED = re.compile(r"out of memory|can't allocate memory|cannot allocate memory", re.IGNORECASE)


def raised(error: BaseException) -> bool:
    """Whether an exception says that the memory of the CPU or of a GPU was too small."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_RAISED.search(str(error))))


def killed(text: str, kills_before: int) -> bool:
    """Whether the kernel killed a process for memory. Ray only says that it may have, so the kernel's counter decides.

    Args:
        text: Ray's text on how the process ended.
        kills_before: `kernel_kills` when the process started.
    """
    return "OOM killer" in text and kernel_kills() > kills_before


def kernel_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """How many processes of this machine the kernel has killed for memory since boot; 0 if it does not say.

    Args:
        vmstat: the kernel's counters.
    """
    try:
        line = re.search(r"^oom_kill (\d+)$", vmstat.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return 0
    return int(line[1]) if line else 0


def advice(training: Training) -> str:
    """One line: which settings need less memory."""
    crops = training.crops_at_once
    if crops > 1:
        return f"training.micro_batch_size: {crops} crops a rank at once do not fit into memory; at most {crops // 2}"
    less = "training.precision bf16, smaller crops.size or validation.size"
    sharded = "" if training.zero_stage == 3 else ", or more training.ranks_per_trial with training.zero_stage 3"
    return f"training.micro_batch_size: 1 crop a rank at once does not fit into memory; set {less}{sharded}"
