"""A bounded mapping that drops what was used least recently.

Owns: the order of use, and the limit. Must not know: what is kept, nor how to dispose of what is dropped:
``put`` returns it. It has no lock; threads that share one need a lock of their own.

Three other bounded memories of the package look similar and are not: ``tree.generations`` works without any
lock, ``tree.catalogs`` gives entries a second chance because marking one as used must not take its lock, and
``planes/filesystem/kernel_pages.py`` is about the age of its entries, not about room for them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["LeastRecentlyUsed"]

Key = TypeVar("Key")
Value = TypeVar("Value")


class LeastRecentlyUsed(Generic[Key, Value]):
    """Entries that weigh at most ``limit`` together, 1 each by default; the newest always stays."""

    def __init__(self, limit: int, weigh: Callable[[Value], int] = lambda _: 1) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weight = 0
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[Key, Value]]:
        """Keys and values, the least recently used first; this does not count as a use."""
        return iter(self._entries.items())

    def get(self, key: Key) -> Value | None:
        """The value kept under ``key``, which counts as a use; None if there is none."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def peek(self, key: Key) -> Value | None:
        """The same, but it does not count as a use."""
        return self._entries.get(key)

    def put(self, key: Key, value: Value) -> list[Value]:
        """Keep a value, in place of any other under ``key``; returns the values that were dropped for it."""
        self.pop(key)
        self._entries[key] = value
        self._weight += self._weigh(value)
        dropped = []
        while self._weight > self._limit and len(self._entries) > 1:
            _, oldest = self._entries.popitem(last=False)
            self._weight -= self._weigh(oldest)
            dropped.append(oldest)
        return dropped

    def pop(self, key: Key) -> Value | None:
        """Remove the value kept under ``key`` and return it; None if there is none."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._weight -= self._weigh(value)
        return value

    def clear(self) -> list[Value]:
        """Remove all values and return them."""
        values = list(self._entries.values())
        self._entries.clear()
        self._weight = 0
        return values
