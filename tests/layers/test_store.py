"""Layers on disk: they appear and disappear at once, and a killed process leaves only what can be cleaned."""

import os
import stat
from pathlib import Path

import pytest

from cvmfs_graphdriver.layers.errors import LayerStateError, NoSuchLayerError
from cvmfs_graphdriver.layers.store import LayerStore

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    made = LayerStore(tmp_path / "home")
    made.prepare()
    return made


def test_a_layer_knows_its_ancestors(store: LayerStore) -> None:
    store.create("base", None)
    store.create("middle", "base")
    store.create("top", "middle")
    assert [layer.id for layer in store.ancestry("top")] == ["top", "middle", "base"]
    assert store.get("base").parent is None


def test_a_parent_is_complete(store: LayerStore) -> None:
    base = store.create("base", None)
    assert not base.is_complete
    store.create("top", "base")
    assert base.is_complete


def test_an_id_is_taken_once(store: LayerStore) -> None:
    store.create("one", None)
    with pytest.raises(LayerStateError, match="already exists"):
        store.create("one", None)
    assert os.listdir(store.home) == ["one"]


@pytest.mark.parametrize("identity", ["", "..", ".new-x", "a/b", "a\n", "x" * 300])
def test_some_names_are_no_ids(store: LayerStore, identity: str) -> None:
    with pytest.raises(LayerStateError):
        store.create(identity, None)
    with pytest.raises(LayerStateError):
        store.remove(identity)
    with pytest.raises(NoSuchLayerError):
        store.get(identity)
    assert os.listdir(store.home) == []


def test_a_missing_parent_is_told(store: LayerStore) -> None:
    with pytest.raises(NoSuchLayerError, match="'absent'"):
        store.create("top", "absent")
    assert os.listdir(store.home) == []
    store.create("base", None)
    store.create("top", "base")
    store.remove("base")
    with pytest.raises(NoSuchLayerError, match="'base'"):
        store.ancestry("top")


def test_a_circle_of_parents_is_damage(store: LayerStore) -> None:
    base = store.create("base", None)
    store.create("top", "base")
    (base.directory / "parent").symlink_to("../top")
    with pytest.raises(LayerStateError, match="form a circle"):
        store.ancestry("top")


def test_what_was_half_done_is_cleaned(store: LayerStore) -> None:
    kept = store.create("kept", None)
    kept.begin_filling()
    kept.end_filling(None)
    store.create("writable", "kept")
    store.create("half", "kept").begin_filling()
    (store.home / ".new-rubbish/deep").mkdir(parents=True)
    store.clean()
    assert sorted(os.listdir(store.home)) == ["kept", "writable"]


def test_a_complete_layer_is_not_filled_again(store: LayerStore) -> None:
    layer = store.create("base", None)
    layer.begin_filling()
    layer.end_filling(None)
    with pytest.raises(LayerStateError, match="already complete"):
        layer.begin_filling()


def test_removing_twice_is_removing_once(store: LayerStore) -> None:
    layer = store.create("base", None)
    (layer.diff / "deep/er").mkdir(parents=True)
    (layer.diff / "out").symlink_to("/etc")
    store.remove("base")
    store.remove("base")
    assert os.listdir(store.home) == []
    assert Path("/etc/passwd").exists()


def test_directories_belong_to_who_is_root_inside(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "home", (100_000, 200_000))
    store.prepare()
    layer = store.create("base", None)
    for path, owner, mode in (
        (store.home, (0, 200_000), 0o710),
        (layer.directory, (0, 200_000), 0o710),
        (layer.diff, (100_000, 200_000), 0o755),
        (layer.work, (100_000, 200_000), 0o700),
    ):
        status = path.stat()
        assert ((status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode)) == (owner, mode)


def test_the_ids_of_all_layers(store: LayerStore) -> None:
    store.create("base", None)
    store.create("top", "base")
    (store.home / ".new-one" / "diff").mkdir(parents=True)
    (store.home / "cvmfs").mkdir()
    assert sorted(store.identities()) == ["base", "top"]
