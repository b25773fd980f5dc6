"""Docker's ``-init`` layers, recognised by their names."""

from pathlib import Path

import pytest

from cvmfs_graphdriver.graphdriver.init_layers import is_init_layer, orphaned_init_layers
from cvmfs_graphdriver.layers.store import LayerStore


def test_names() -> None:
    assert is_init_layer("0123abcd-init")
    assert not is_init_layer("0123abcd")


@pytest.mark.root
def test_what_has_lost_its_container_is_found(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "home")
    store.prepare()
    store.create("base", None)
    for name in ("kept-init", "kept", "lost-init"):
        store.create(name, "base")
    (store.home / ".new-init").mkdir()
    assert orphaned_init_layers(store) == ["lost-init"]
