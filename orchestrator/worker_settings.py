"""Environment variables that Ray's workers have to start with; they inherit them from the daemons of their node."""

from __future__ import annotations

WORKER_SETTINGS = {
    "RAY_worker_niceness": "0",  # Ray's default is 15: next to any other load a sweep would hardly progress
    # glibc returns the memory of every large tensor to the kernel, which zeroes it again for the next one. That took
    # an eighth of a training step of N=32. With these settings glibc keeps the memory.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**27),
}
