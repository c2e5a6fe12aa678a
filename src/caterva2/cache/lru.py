"""A mapping in memory that is bounded by bytes; the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["BytesLru"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BytesLru(Generic[K, V]):
    """Values by key, of a bounded size in all. Not thread-safe.

    Parameters
    ----------
    limit_bytes : int
        Most that all values may take. A value that is larger than this alone is not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K) -> V | None:
        """Return the value of a key, and note its use; None if there is none."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: K, value: V, nbytes: int) -> None:
        """Keep a value that takes `nbytes`."""
        self.pop(key)
        if nbytes > self._limit_bytes:
            return
        self._items[key] = (value, nbytes)
        self.nbytes += nbytes
        while self.nbytes > self._limit_bytes:
            _, (_, size) = self._items.popitem(last=False)
            self.nbytes -= size

    def pop(self, key: K) -> None:
        """Forget a key, if it is there."""
        item = self._items.pop(key, None)
        if item is not None:
            self.nbytes -= item[1]
