"""Recently used arrays, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy.typing as npt


class Recent:
    """Arrays by key; the least recently used are dropped when they exceed the limit in bytes. For one thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._held = limit_bytes, 0
        self._arrays: OrderedDict[Hashable, npt.NDArray[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The array of a key, made if it is not held. The newest stays even if it exceeds the limit alone."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = make()
        self._arrays[key] = array
        self._held += array.nbytes
        while self._held > self._limit and len(self._arrays) > 1:
            _, dropped = self._arrays.popitem(last=False)
            self._held -= dropped.nbytes
        return array

    @property
    def held_bytes(self) -> int:
        """Bytes of all arrays that are held."""
        return self._held
