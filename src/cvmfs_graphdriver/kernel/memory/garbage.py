"""When Python collects garbage that reference counting does not find.

Owns: the thresholds for our processes, which make many long-lived objects and few cycles: frequent collection
would take a tenth of their time. Must not know: what those objects are.
"""

import gc

__all__ = ["look_for_garbage_seldom"]

_SELDOM = 100_000, 50, 100


def look_for_garbage_seldom() -> None:
    """Exempt all present objects from collection, and examine new ones seldom."""
    gc.freeze()
    gc.set_threshold(*_SELDOM)
