"""The order in which crops are used: shuffles that are the same in every version of Python and NumPy. Pure."""

from __future__ import annotations

import math
import random
from functools import lru_cache

import numpy as np
import numpy.typing as npt

SHARD_CROPS = 64  # crops that are stored together
WINDOW_SHARDS = 8  # shards whose crops are shuffled together

Indices = npt.NDArray[np.int64]


def place_in_pass(count: int, seed: str, offset: int) -> int:
    """Which of `count` crops comes at `offset` in a pass over all of them.

    A pass takes shards in random order, `WINDOW_SHARDS` at a time, and the crops of these in random order. Only the
    windows that are asked for are made.
    """
    _, ends = _windows(count, seed)
    window = int(np.searchsorted(ends, offset, side="right"))
    begin = int(ends[window - 1]) if window else 0
    return int(_window(count, seed, window)[offset - begin])


def shuffled(count: int, seed: str) -> Indices:
    """The numbers below `count` in random order."""
    # random() of a generator that is seeded by a string gives the same values in every Python 3 and on every machine.
    # NumPy's RandomState draws the very same from the same state, and is frozen (NEP 19), as its Generator is not.
    *words, place = random.Random(seed).getstate()[1]
    generator = np.random.RandomState()
    generator.set_state(("MT19937", np.array(words, np.uint32), place, 0, 0.0))
    return np.argsort(generator.random_sample(count), kind="stable")


@lru_cache(maxsize=32)
def _windows(count: int, seed: str) -> tuple[Indices, Indices]:
    """The shards of a pass in their order, and how many crops lie before the end of each window."""
    shards = shuffled(math.ceil(count / SHARD_CROPS), f"shards {seed}")
    lengths = np.where(shards == len(shards) - 1, count - SHARD_CROPS * (len(shards) - 1), SHARD_CROPS)
    return shards, np.cumsum(np.add.reduceat(lengths, np.arange(0, len(shards), WINDOW_SHARDS)))


@lru_cache(maxsize=256)
def _window(count: int, seed: str, window: int) -> Indices:
    first = window * WINDOW_SHARDS
    shards = np.sort(_windows(count, seed)[0][first : first + WINDOW_SHARDS])
    crops = (shards[:, None] * SHARD_CROPS + np.arange(SHARD_CROPS)).ravel()
    crops = crops[crops < count]
    return crops[shuffled(len(crops), f"crops {seed} {first}")]
