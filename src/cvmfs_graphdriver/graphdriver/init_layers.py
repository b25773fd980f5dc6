"""The layers with which Docker prepares containers: ``ID-init`` below the container's own layer ``ID``.

Owns: Docker's way of naming them, and which of them have no container. Docker notes neither layer before
both exist, so it forgets the first if anything fails in between. Must not know: how layers are removed.
"""

from cvmfs_graphdriver.layers.store import LayerStore

__all__ = ["is_init_layer", "orphaned_init_layers"]

_SUFFIX = "-init"


def is_init_layer(identity: str) -> bool:
    """Whether a layer prepares a container."""
    return identity.endswith(_SUFFIX)


def orphaned_init_layers(store: LayerStore) -> list[str]:
    """The ids of those without a container. They are garbage if Docker has just started."""
    return [
        identity
        for identity in store.identities()
        if is_init_layer(identity) and not store.exists(identity.removesuffix(_SUFFIX))
    ]
