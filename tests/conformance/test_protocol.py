"""Deep chains, and many callers at once, by the protocol alone; what is expected is what overlay2 does."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from tests.support.plugin_process import Plugin, RefusedError, running_plugin
from tests.support.tars import tar_of

pytestmark = pytest.mark.root

DEPTH = 125


@pytest.fixture(scope="module")
def plugin() -> Iterator[Plugin]:
    with (
        tempfile.TemporaryDirectory(prefix="protocol-", dir="/var/tmp") as directory,
        running_plugin(Path(directory)) as running,
    ):
        running.init()
        yield running


@pytest.fixture(scope="module")
def tower(plugin: Plugin) -> Iterator[str]:
    """As many layers as Docker allows: each with a file of its own, and its version of one that all have."""
    parent = ""
    for number in range(DEPTH):
        identity = f"{number:064x}"
        plugin.call("GraphDriver.Create", ID=identity, Parent=parent)
        gone = [(f".wh.layer{number - 1}", b"")] if number % 10 == 9 else []
        plugin.apply(identity, tar_of((f"layer{number}", b""), ("top", b"%d" % number), *gone), parent)
        parent = identity
    yield parent
    for number in reversed(range(DEPTH)):
        plugin.call("GraphDriver.Remove", ID=f"{number:064x}")


def test_a_deep_chain_is_seen_whole(plugin: Plugin, tower: str) -> None:
    expected = {f"layer{number}" for number in range(DEPTH) if number % 10 != 8} | {"top"}
    for create, identity in (("Create", "view"), ("CreateReadWrite", "deep")):
        plugin.call(f"GraphDriver.{create}", ID=identity, Parent=tower)
        root = Path(plugin.call("GraphDriver.Get", ID=identity)["Dir"])
        assert {path.name for path in root.iterdir()} == expected
        assert (root / "top").read_text() == str(DEPTH - 1)
        if identity == "deep":
            (root / "layer0").unlink()
            (root / "top").write_text("changed")
            changes = plugin.call("GraphDriver.Changes", ID=identity, Parent=tower)["Changes"]
            assert sorted((change["Path"], change["Kind"]) for change in changes) == [
                ("/layer0", 2),
                ("/top", 0),
            ]
        plugin.call("GraphDriver.Put", ID=identity)
        plugin.call("GraphDriver.Remove", ID=identity)


def test_many_get_and_put_the_same_layer(plugin: Plugin, tower: str) -> None:
    """While anyone holds it, it is there; when the last has put it back, it is not mounted."""
    plugin.call("GraphDriver.CreateReadWrite", ID="shared", Parent=tower)

    def hold(number: int) -> str:
        for _ in range(10):
            root = Path(plugin.call("GraphDriver.Get", ID="shared")["Dir"])
            (root / f"made{number}").write_text("x")
            assert (root / "top").read_text() == str(DEPTH - 1)
            (root / f"made{number}").unlink()
            plugin.call("GraphDriver.Put", ID="shared")
        return str(root)

    with ThreadPoolExecutor(8) as pool:
        (root,) = set(pool.map(hold, range(8)))
    assert not [mount for mount in mounts_below(plugin.home) if str(mount.mount_point) == root]
    assert not plugin.call("GraphDriver.Changes", ID="shared", Parent=tower)["Changes"]
    plugin.call("GraphDriver.Remove", ID="shared")


def test_many_make_and_remove_layers(plugin: Plugin, tower: str) -> None:
    def live(number: int) -> bytes:
        identity = f"own{number}"
        for _ in range(4):
            plugin.call("GraphDriver.CreateReadWrite", ID=identity, Parent=tower)
            root = Path(plugin.call("GraphDriver.Get", ID=identity)["Dir"])
            (root / "mine").write_bytes(b"%d" % number)
            seen = (root / "mine").read_bytes()
            plugin.call("GraphDriver.Put", ID=identity)
            assert plugin.call("GraphDriver.DiffSize", ID=identity, Parent=tower)["Size"] == len(seen)
            plugin.call("GraphDriver.Remove", ID=identity)
            assert not plugin.call("GraphDriver.Exists", ID=identity)["Exists"]
        return seen

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(live, range(12))) == [b"%d" % number for number in range(12)]
    assert not list(plugin.home.rglob("own*"))


def test_what_overlay2_refuses(plugin: Plugin, tower: str) -> None:
    with pytest.raises(RefusedError):
        plugin.call("GraphDriver.Get", ID="nobody")
    with pytest.raises(RefusedError):
        plugin.call("GraphDriver.CreateReadWrite", ID="orphan", Parent="nobody")
    assert not plugin.call("GraphDriver.Exists", ID="orphan")["Exists"]
    with pytest.raises(RefusedError):
        plugin.call("GraphDriver.Create", ID=tower, Parent="")
    assert plugin.call("GraphDriver.Exists", ID=tower)["Exists"]
    plugin.call("GraphDriver.Remove", ID="nobody")
