"""Whether a place in a repository is free, or taken by what should be there.

Owns: the checks before anything is changed, with messages that name what is in the way. Must not know: what
is put there.
"""

from cvmfs_graphdriver.conversion.errors import LayerPlaceError
from cvmfs_graphdriver.publisher.transaction import Transaction

__all__ = ["is_there", "require_way"]


def is_there(transaction: Transaction, path: bytes) -> bool:
    """Whether a layer is in its place. Raises LayerPlaceError: the place is occupied."""
    require_way(transaction, path)
    entry = transaction.lookup(path)
    if entry is not None and not entry.is_directory:
        raise LayerPlaceError(
            f"{path.decode()} in the repository should be a layer's directory but is something else; "
            "remove it or choose another place for the layers"
        )
    return entry is not None


def require_way(transaction: Transaction, path: bytes) -> None:
    """Make sure, before any change, that the directories above ``path`` exist or can be created."""
    parts = path.split(b"/")
    for above in (b"/".join(parts[:end]) for end in range(2, len(parts))):
        entry = transaction.lookup(above)
        if entry is None:
            return
        if not entry.is_directory:
            raise LayerPlaceError(
                f"{above.decode('utf-8', 'replace')} in the repository is in the way of "
                f"{path.decode('utf-8', 'replace')}, because it is not a directory; "
                "remove it or choose another place for the layers"
            )
