"""A bounded cache for many threads that needs no lock.

Owns: forgetting. Must not know: what is remembered. Nodes are looked up so often that the lock and the
bookkeeping of an LRU cache (``client.lru``) would cost more than they gain. If two threads change it at the
same time, an entry may be forgotten, which does no harm.
"""

from typing import Generic, TypeVar

__all__ = ["Generations"]

Key = TypeVar("Key")
Value = TypeVar("Value")


class Generations(Generic[Key, Value]):
    """Two dictionaries: when the younger one is full, it replaces the older one, which is forgotten.

    ``capacity`` is the sum of weights that each of them may hold.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._weight = 0
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """The value put under ``key``, unless it has been forgotten."""
        return self._young.get(key) or self._old.get(key)

    def put(self, key: Key, value: Value, weight: int = 1) -> None:
        """Remember a value, which must be true; may forget others. Too heavy a value is not remembered."""
        if 2 * weight > self._capacity:
            return
        if self._weight + weight > self._capacity:
            self._old = self._young
            self._young = {}
            self._weight = 0
        self._young[key] = value
        self._weight += weight

    def clear(self) -> None:
        """Forget everything."""
        self._young = {}
        self._old = {}
        self._weight = 0
