"""Recently used arrays, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


class Recent:
    """Arrays by key; the least recently used are dropped when they exceed the limit in bytes. For one thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._held = limit_bytes, 0
        self._arrays: OrderedDict[Hashable, Array] = OrderedDict()

    def find(self, key: Hashable) -> Array | None:
        """The array of a key; None if it is not held."""
        if key not in self._arrays:
            return None
        self._arrays.move_to_end(key)
        return self._arrays[key]

    def add(self, key: Hashable, array: Array) -> None:
        """Holds an array under a key that has none. The newest stays even if it exceeds the limit alone."""
        self._arrays[key] = array
        self._held += array.nbytes
        while self._held > self._limit and len(self._arrays) > 1:
            _, dropped = self._arrays.popitem(last=False)
            self._held -= dropped.nbytes

    def get(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """The array of a key, made if it is not held."""
        array = self.find(key)
        if array is None:
            array = make()
            self.add(key, array)
        return array

    @property
    def held_bytes(self) -> int:
        """Bytes of all arrays that are held."""
        return self._held
