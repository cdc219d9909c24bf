"""Environment variables that Ray's workers have to start with; they inherit them from the daemons of their node."""

from __future__ import annotations

WORKER_SETTINGS = {
    "RAY_worker_niceness": "0",  # Ray would run them at 15: beside any other load a sweep would nearly stand still
    # glibc gives the memory of every large tensor back to the kernel, which zeroes it again for the next one: measured,
    # an eighth of a training step of N=32. Kept instead.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**27),
}
