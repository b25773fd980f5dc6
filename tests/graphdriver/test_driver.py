"""The graph driver protocol, call by call, against a plugin process and real overlay mounts."""

import io
import json
import os
import signal
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mountinfo import mount_at, mounts_below
from cvmfs_graphdriver.planes.choice import obstacle
from tests.graphdriver.conftest import FQRN
from tests.support.plugin_process import Plugin, RefusedError, running_plugin
from tests.support.tars import tar_of

pytestmark = pytest.mark.root


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with (
        tempfile.TemporaryDirectory(prefix="driver-", dir="/var/tmp") as directory,
        running_plugin(Path(directory)) as running,
    ):
        running.init()
        yield running


def thin(*layers: str) -> bytes:
    document = {
        "version": "1.0",
        "origin": "example@sha256:" + "0" * 64,
        "layers": [{"digest": "sha256:" + f"{number:064x}", "url": url} for number, url in enumerate(layers)],
    }
    return tar_of(("thin.json", json.dumps(document).encode()))


def configure(plugin: Plugin, repository: tuple[str, Path]) -> None:
    url, key = repository
    (plugin.etc / "config.d").mkdir()
    (plugin.etc / "config.d" / f"{FQRN}.conf").write_text(
        f"CVMFS_SERVER_URL={url}/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_PUBLIC_KEY={key}\n"
    )


def test_a_container_is_a_layer_above_others(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", ID="base")
    assert plugin.apply("base", tar_of(("etc/", None), ("etc/motd", b"hello\n"), ("bin", b"x"))) == 7
    plugin.call("GraphDriver.Create", ID="next", Parent="base")
    plugin.apply("next", tar_of(("etc/", None), ("etc/.wh.motd", b""), ("new", b"")))
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="next")
    merged = Path(plugin.call("GraphDriver.Get", ID="rw", MountLabel="")["Dir"])
    assert merged.is_relative_to(plugin.home)
    assert sorted(os.listdir(merged)) == ["bin", "etc", "new"]
    assert os.listdir(merged / "etc") == []
    (merged / "etc/motd").write_text("again\n")
    (merged / "bin").unlink()
    changes = plugin.call("GraphDriver.Changes", ID="rw", Parent="next")["Changes"]
    assert changes == [
        {"Path": "/bin", "Kind": 2},
        {"Path": "/etc", "Kind": 0},
        {"Path": "/etc/motd", "Kind": 1},
    ]
    with tarfile.open(fileobj=io.BytesIO(plugin.diff("rw", "next"))) as tar:
        assert [member.name for member in tar] == [".wh.bin", "etc", "etc/motd"]
        content = tar.extractfile("etc/motd")
        assert content is not None
        assert content.read() == b"again\n"
    assert plugin.call("GraphDriver.DiffSize", ID="rw", Parent="next")["Size"] >= 6
    plugin.call("GraphDriver.Put", ID="rw")
    assert mount_at(merged) is None
    for identity in ("rw", "next", "base"):
        plugin.call("GraphDriver.Remove", ID=identity)
        assert plugin.call("GraphDriver.Exists", ID=identity) == {"Exists": False}
    assert [name for name in os.listdir(plugin.home) if name != "cvmfs"] == []


def test_get_and_put_count(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", ID="base")
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="base")
    first = plugin.call("GraphDriver.Get", ID="rw")["Dir"]
    assert plugin.call("GraphDriver.Get", ID="rw")["Dir"] == first
    plugin.call("GraphDriver.Put", ID="rw")
    assert mount_at(first) is not None
    plugin.call("GraphDriver.Put", ID="rw")
    assert mount_at(first) is None
    plugin.call("GraphDriver.Put", ID="rw")  # Docker sometimes gives back more than it took


def test_a_complete_layer_is_read_only(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", ID="base")
    plugin.apply("base", tar_of(("file", b"x")))
    plugin.call("GraphDriver.Create", ID="next", Parent="base")
    plugin.apply("next", tar_of(("other", b"y")))
    merged = Path(plugin.call("GraphDriver.Get", ID="next")["Dir"])
    assert sorted(os.listdir(merged)) == ["file", "other"]
    with pytest.raises(OSError, match="Read-only"):
        (merged / "third").touch()
    plugin.call("GraphDriver.Put", ID="next")


def test_a_thin_layer_is_its_layers_in_the_repository(plugin: Plugin, repository: tuple[str, Path]) -> None:
    configure(plugin, repository)
    plugin.call("GraphDriver.Create", ID="thin")
    plugin.apply("thin", thin(f"cvmfs://{FQRN}/layers/aa", f"cvmfs://{FQRN}/layers/bb"))
    plugin.call("GraphDriver.Create", ID="above", Parent="thin")
    plugin.apply("above", tar_of(("normal", b"n")))
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="above")
    merged = Path(plugin.call("GraphDriver.Get", ID="rw")["Dir"])
    assert sorted(os.listdir(merged)) == ["base", "full", "normal"]
    assert os.listdir(merged / "full") == ["new"]
    assert (merged / "base").read_text() == "from the base\n"
    (merged / "base").write_text("changed\n")
    (merged / "full/new").unlink()
    assert plugin.call("GraphDriver.Changes", ID="rw", Parent="above")["Changes"] == [
        {"Path": "/base", "Kind": 0},
        {"Path": "/full", "Kind": 0},
        {"Path": "/full/new", "Kind": 2},
    ]
    # The thin layer itself shows its own file on top, from which Docker makes its tar stream again.
    itself = Path(plugin.call("GraphDriver.Get", ID="thin")["Dir"])
    assert json.loads((itself / "thin.json").read_text())["version"] == "1.0"
    for identity in ("thin", "rw"):
        plugin.call("GraphDriver.Put", ID=identity)
    rows = dict(plugin.call("GraphDriver.Status")["Status"])
    assert rows["Data Plane"].startswith("fuse (" if obstacle(plugin.home) else "erofs (supported by Linux ")
    assert rows[f"Repository {FQRN}"].startswith("revision 2, ")
    assert " old, next check in " in rows[f"Repository {FQRN}"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://thin.example.org/layers/aa", "scheme 'https' is unknown"),
        ("cvmfs://thin.example.org/../aa", "leads upwards|\\.\\."),
        ("cvmfs://noname/aa", "noname"),
    ],
)
def test_a_thin_layer_of_nonsense_is_refused_when_it_is_pulled(
    plugin: Plugin, url: str, message: str
) -> None:
    plugin.call("GraphDriver.Create", ID="thin")
    with pytest.raises(RefusedError, match=message):
        plugin.apply("thin", thin(url))
    plugin.call("GraphDriver.Remove", ID="thin")
    assert plugin.call("GraphDriver.Exists", ID="thin") == {"Exists": False}


def test_a_repository_without_server_is_told_in_one_line(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", ID="thin")
    plugin.apply("thin", thin("cvmfs://absent.example.org/layers/aa"))
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="thin")
    with pytest.raises(RefusedError, match="absent.example.org") as refused:
        plugin.call("GraphDriver.Get", ID="rw")
    assert "\n" not in str(refused.value)
    assert "CVMFS_" in str(refused.value)
    assert not [m for m in mounts_below(plugin.home) if b"merged" in m.mount_point]


def test_a_layer_that_the_repository_has_not(plugin: Plugin, repository: tuple[str, Path]) -> None:
    configure(plugin, repository)
    plugin.call("GraphDriver.Create", ID="thin")
    plugin.apply("thin", thin(f"cvmfs://{FQRN}/layers/absent"))
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="thin")
    with pytest.raises(RefusedError, match=f"there is no layer cvmfs://{FQRN}/layers/absent"):
        plugin.call("GraphDriver.Get", ID="rw")


def test_killed_and_started_again_it_goes_on(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", ID="base")
    plugin.apply("base", tar_of(("file", b"x")))
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="base")
    merged = Path(plugin.call("GraphDriver.Get", ID="rw")["Dir"])
    (plugin.home / ".new-half").mkdir()
    plugin.kill()
    plugin.start()  # without a new Init: Docker makes only one
    assert plugin.call("GraphDriver.Exists", ID="base") == {"Exists": True}
    assert not (plugin.home / ".new-half").exists()
    assert plugin.call("GraphDriver.Get", ID="rw")["Dir"] == str(merged)
    assert (merged / "file").read_bytes() == b"x"
    for _ in range(2):  # once for the container that was running before
        assert mount_at(merged) is not None
        plugin.call("GraphDriver.Put", ID="rw")
    assert mount_at(merged) is None


def test_a_layer_is_filled_by_the_process_that_made_it(plugin: Plugin) -> None:
    """Docker tries again with the rest of the stream when the connection breaks; that must not count."""
    plugin.call("GraphDriver.Create", ID="cut")
    plugin.kill()
    plugin.start()
    rest = tar_of(("the", b"rest"), ("of", b"it"))
    with pytest.raises(RefusedError, match="restarted while receiving the layer cut"):
        plugin.apply("cut", rest)
    plugin.call("GraphDriver.Remove", ID="cut")
    plugin.call("GraphDriver.Create", ID="cut")
    assert plugin.apply("cut", rest) == 6
    with pytest.raises(RefusedError, match="pull or load the image again"):
        plugin.apply("cut", rest)


def test_killed_in_the_middle_of_a_layer_nothing_of_it_is_left(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", ID="half")
    stream = tar_of(*((f"file{number}", bytes(10_000)) for number in range(1000)))

    def pieces() -> Iterator[bytes]:
        yield stream[: len(stream) // 2]
        while not list((plugin.home / "half/diff").iterdir()):
            time.sleep(0.01)
        os.kill(plugin.pid, signal.SIGKILL)
        plugin.process.wait()
        yield stream[len(stream) // 2 :]

    with pytest.raises(OSError, match="Broken pipe|reset|closed"):
        plugin.stream("GraphDriver.ApplyDiff?id=half", pieces(), chunked=True)
    assert (plugin.home / "half").exists()
    plugin.start()
    assert plugin.call("GraphDriver.Exists", ID="half") == {"Exists": False}
    assert not (plugin.home / "half").exists()


def test_a_failed_stream_is_no_stream(plugin: Plugin) -> None:
    """Docker would take any reply with status 200 for a layer."""
    plugin.call("GraphDriver.Create", ID="base")
    for arguments, message in (
        ({"ID": "absent"}, "the layer 'absent' is not on this disk"),
        ({"ID": "base", "Parent": "absent"}, "can only be compared with its parent"),
    ):
        status, body = plugin.exchange("GraphDriver.Diff", json.dumps(arguments).encode())
        assert status == 500
        assert message in json.loads(body)["Err"]


def test_owners_of_user_namespaces(plugin: Plugin, repository: tuple[str, Path]) -> None:
    configure(plugin, repository)
    maps = [{"container_id": 0, "host_id": 100_000, "size": 65_536}]
    plugin.call("GraphDriver.Init", Home=str(plugin.home), Opts=None, UIDMaps=maps, GIDMaps=maps)
    plugin.call("GraphDriver.Create", ID="thin")
    plugin.apply("thin", thin(f"cvmfs://{FQRN}/layers/aa"))
    plugin.call("GraphDriver.Create", ID="above", Parent="thin")
    plugin.apply("above", tar_of(("normal", b"n")))
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="above")
    merged = Path(plugin.call("GraphDriver.Get", ID="rw")["Dir"])
    for name in ("", "base", "normal"):
        assert (merged / name).stat().st_uid == 100_000
        assert (merged / name).stat().st_gid == 100_000
    (merged / "made").touch()
    os.chown(merged / "made", 100_005, 100_006)
    with tarfile.open(fileobj=io.BytesIO(plugin.diff("rw", "above"))) as tar:
        assert [(member.name, member.uid, member.gid) for member in tar] == [("made", 5, 6)]
    plugin.call("GraphDriver.Put", ID="rw")


def test_labels_go_to_the_kernel(plugin: Plugin) -> None:
    """A kernel without SELinux refuses them, which shows what it was given."""
    if Path("/sys/fs/selinux").exists():
        pytest.skip("this kernel knows labels")
    plugin.call("GraphDriver.Create", ID="base")
    plugin.apply("base", tar_of(("a", b"x")))
    plugin.call("GraphDriver.CreateReadWrite", ID="rw", Parent="base")
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    with pytest.raises(RefusedError, match=f"option context={label} rejected by overlay"):
        plugin.call("GraphDriver.Get", ID="rw", MountLabel=label)
    assert plugin.call("GraphDriver.Get", ID="rw")["Dir"].endswith("/merged")
    plugin.call("GraphDriver.Put", ID="rw")


def test_sigterm_ends_it_at_once(plugin: Plugin) -> None:
    assert plugin.kill(signal.SIGTERM) == 0


def test_what_is_wrong_is_said_and_nothing_is_left(plugin: Plugin) -> None:
    for method, arguments, message in (
        ("GraphDriver.Create", {"ID": "../x"}, "is not a valid layer id"),
        ("GraphDriver.Create", {"ID": "x", "Parent": "absent"}, "the layer 'absent' is not on this disk"),
        ("GraphDriver.Create", {}, "has no ID"),
        (
            "GraphDriver.CreateReadWrite",
            {"ID": "x", "StorageOpt": {"size": "1G"}},
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ),
        (
            "GraphDriver.CreateReadWrite",
            {"ID": "x", "StorageOpt": {"colour": "red"}},
            "unknown option colour",
        ),
        (
            "GraphDriver.Create",
            {"ID": "x", "StorageOpt": {"size": "1G"}},
            "only supported for ReadWrite Layers",
        ),
        ("GraphDriver.Init", {"Home": str(plugin.home), "Opts": ["overlay2.size=big"]}, "a size such as 10G"),
        (
            "GraphDriver.Init",
            {"Home": str(plugin.home), "Opts": ["overlay2.size=1G"]},
            "overlay2.size is not supported: .* is on ",
        ),
        ("GraphDriver.Get", {"ID": "absent"}, "the layer 'absent' is not on this disk"),
        ("GraphDriver.Nonsense", {}, "is not a call"),
        ("GraphDriver.Init", {"Home": "/etc"}, "not below"),
        (
            "GraphDriver.Init",
            {"Home": str(plugin.home), "Opts": ["what.is=this"]},
            "unknown storage-opt 'what.is'",
        ),
        (
            "GraphDriver.Init",
            {"Home": str(plugin.home), "Opts": ["cvmfsMountMethod=external"]},
            "cvmfsMountMethod=external is not supported",
        ),
    ):
        with pytest.raises(RefusedError, match=message):
            plugin.call(method, **arguments)
    assert plugin.call("GraphDriver.Exists", ID="x") == {"Exists": False}
    plugin.call("GraphDriver.Create", ID="x")
    with pytest.raises(RefusedError, match="already exists"):
        plugin.call("GraphDriver.Create", ID="x")


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (tar_of(("../out", b"x")), "leads out of the layer"),
        (tar_of(("a", b"x"))[:700], "truncated"),
        (b"this is no tar stream" * 100, "refused"),
    ],
)
def test_a_hostile_layer_is_refused(plugin: Plugin, tar: bytes, message: str) -> None:
    plugin.call("GraphDriver.Create", ID="x")
    with pytest.raises(RefusedError, match=message):
        plugin.apply("x", tar)


def test_no_link_is_followed_out_of_a_layer(plugin: Plugin) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/var/tmp"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(link)
        inside = tarfile.TarInfo("link/escaped")
        tar.addfile(inside)
    plugin.call("GraphDriver.Create", ID="x")
    with pytest.raises(RefusedError, match="symbolic link"):
        plugin.apply("x", out.getvalue())
    assert not Path("/var/tmp/escaped").exists()


def test_many_at_once(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", ID="base")
    plugin.apply("base", tar_of(("file", b"x")))
    failures: list[BaseException] = []

    def life(number: int) -> None:
        try:
            identity = f"c{number}"
            plugin.call("GraphDriver.CreateReadWrite", ID=identity, Parent="base")
            merged = Path(plugin.call("GraphDriver.Get", ID=identity)["Dir"])
            assert (merged / "file").read_bytes() == b"x"
            plugin.call("GraphDriver.Put", ID=identity)
            plugin.call("GraphDriver.Remove", ID=identity)
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=life, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not mounts_below(plugin.home)
