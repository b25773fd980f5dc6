"""When Python looks for garbage that reference counts do not find.

Owns: the thresholds for processes of ours, which make many objects that live long, and few cycles: looking
through them all the time costs a tenth of their time. Must not know: what those objects are.
"""

import gc

__all__ = ["look_for_garbage_seldom"]

_SELDOM = 100_000, 50, 100


def look_for_garbage_seldom() -> None:
    """What there is now is taken to stay; what comes is looked through seldom."""
    gc.freeze()
    gc.set_threshold(*_SELDOM)
