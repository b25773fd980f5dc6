"""Containers' layers on their way into a repository: plugin, S3 store and publisher service are real."""

import io
import json
import secrets
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.publisher_service import PublisherService, running_service
from cvmfs_graphdriver.conversion.uploads import LayerUploads, UploadLimits
from cvmfs_graphdriver.graphdriver import layer_upload
from cvmfs_graphdriver.graphdriver.layer_upload import LayerUploader, UploadSettings
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.errors import UploadError
from cvmfs_graphdriver.publisher.server import serve
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from demo.seaweed import KEY, SECRET, Seaweed
from tests.support.entries import directory, file
from tests.support.plugin_process import Plugin, running_plugin
from tests.support.tars import tar_of

FQRN = "thin.example.org"


def write_config(where: Path, **values: object) -> None:
    config = {
        "AccessKey": KEY,
        "AccessSecret": SECRET,
        "Host": "127.0.0.1:1",
        "SSL": False,
        "CvmfsRepo": FQRN,
        "PublishStatusURL": "http://127.0.0.1:1/status",
        **values,
    }
    where.mkdir(exist_ok=True)
    (where / "config.json").write_text(json.dumps(config))


@dataclass(frozen=True, slots=True)
class Node:
    plugin: Plugin
    config: dict[str, object]

    def container(self, parent: str, changes: dict[str, str]) -> str:
        """A container with its init layer, as Docker makes them; gives what Diff says of it."""
        name = secrets.token_hex(8)
        call = self.plugin.call
        call("GraphDriver.CreateReadWrite", ID=f"{name}-init", Parent=parent)
        init = Path(call("GraphDriver.Get", ID=f"{name}-init")["Dir"])
        (init / ".dockerenv").touch()
        call("GraphDriver.Put", ID=f"{name}-init")
        call("GraphDriver.CreateReadWrite", ID=name, Parent=f"{name}-init")
        merged = Path(call("GraphDriver.Get", ID=name)["Dir"])
        for path, text in changes.items():
            (merged / path).write_text(text) if text else (merged / path).unlink()
        call("GraphDriver.Put", ID=name)
        return name

    def commit(self, name: str, parent: str) -> tuple[str, dict[str, bytes]]:
        """What ``docker commit`` does: the layer's id, and the files in its tar stream."""
        tar = self.plugin.diff(name, f"{name}-init")
        new = secrets.token_hex(8)
        self.plugin.call("GraphDriver.Create", ID=new, Parent=parent)
        self.plugin.apply(new, tar, parent)
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            return new, {
                each.name: members.extractfile(each).read() if each.isreg() else b""  # type: ignore[union-attr]
                for each in members
            }

    def seen(self, layer: str) -> dict[str, str]:
        """The files that a new container upon the layer sees."""
        name = secrets.token_hex(8)
        self.plugin.call("GraphDriver.CreateReadWrite", ID=name, Parent=layer)
        merged = Path(self.plugin.call("GraphDriver.Get", ID=name)["Dir"])
        found = {each.name: each.read_text() for each in merged.iterdir() if each.is_file()}
        self.plugin.call("GraphDriver.Put", ID=name)
        return found

    def info(self) -> str:
        rows = dict(self.plugin.call("GraphDriver.Status")["Status"])
        return str(rows["Commit Through S3"])


@pytest.fixture
def node(s3: Seaweed) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="commit-", dir="/var/tmp") as name:
        place = Path(name)
        storage = LocalStorage.create(place / "srv" / FQRN)
        repository = create_repository(FQRN, storage, place / "keys")
        with Transaction(repository) as transaction:
            transaction.ingest(b"/layers/aa", [directory(b""), file("/base", b"base"), file("/gone", b"x")])
            transaction.publish()
        uploads = LayerUploads(s3.bucket("layers"), repository, UploadLimits(size=1 << 20))
        with (
            serve(place / "srv") as served,
            running_service(PublisherService(uploads, interval=0.3), "127.0.0.1", 0) as url,
            running_plugin(place) as plugin,
        ):
            (plugin.etc / "config.d").mkdir()
            (plugin.etc / "config.d" / f"{FQRN}.conf").write_text(
                f"CVMFS_SERVER_URL={served.url}/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"
                f"CVMFS_PUBLIC_KEY={place / 'keys' / FQRN}.pub\n"
            )
            plugin.init()
            plugin.call("GraphDriver.Create", ID="thin")
            document = {
                "version": "1.0",
                "origin": "example@sha256:" + "0" * 64,
                "layers": [{"digest": "a" * 64, "url": f"cvmfs://{FQRN}/layers/aa"}],
            }
            plugin.apply("thin", tar_of(("thin.json", json.dumps(document).encode())))
            yield Node(plugin, {"Host": s3.host, "PublishStatusURL": f"{url}/status/"})


@pytest.mark.root
def test_a_new_layer_upon_thin_ones_is_published(node: Node) -> None:
    write_config(node.plugin.commit, **node.config)
    first = node.container("thin", {"new": "1", "gone": ""})
    layer, members = node.commit(first, "thin")
    assert list(members) == ["thin.json"]
    layers = json.loads(members["thin.json"])["layers"]
    assert [each["url"] for each in layers] == [
        f"cvmfs://{FQRN}/layers/aa",
        f"cvmfs://{FQRN}/layers/{layers[1]['digest']}",
    ]
    assert node.seen(layer) == {"base": "base", "new": "1"}
    assert "to thin.example.org by 127.0.0.1" in node.info()
    # And another one upon that: each layer of the chain is there once.
    second, members = node.commit(node.container(layer, {"new": "2"}), layer)
    assert len(json.loads(members["thin.json"])["layers"]) == 3
    assert node.seen(second) == {"base": "base", "new": "2"}
    # The same again is there already.
    assert node.commit(first, "thin")[1]["thin.json"] == node.commit(first, "thin")[1]["thin.json"]


@pytest.mark.root
def test_what_stays_a_normal_layer(node: Node) -> None:
    assert node.info() == "off: new layers remain normal layers"
    layer, members = node.commit(node.container("thin", {"new": "1"}), "thin")
    assert sorted(members) == ["new"]
    write_config(node.plugin.commit, **node.config)
    nothing = node.container("thin", {})
    assert node.commit(nothing, "thin")[1] == {}
    node.plugin.call("GraphDriver.Create", ID="normal")
    node.plugin.apply("normal", tar_of(("base", b"")))
    _, members = node.commit(node.container("normal", {"new": "1"}), "normal")
    assert sorted(members) == ["new"]
    # Upon a normal layer upon thin ones, a thin one stands for itself alone.
    top, members = node.commit(node.container(layer, {"more": "3"}), layer)
    assert len(json.loads(members["thin.json"])["layers"]) == 1
    assert node.seen(top) == {"base": "base", "gone": "x", "new": "1", "more": "3"}


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Host": "127.0.0.1:1"}, "cannot write s3://127.0.0.1:1/layers/"),
        ({"PublishStatusURL": "http://127.0.0.1:1/status"}, "cannot reach the publisher"),
        ({"AccessSecret": "wrong"}, "SECRET_KEY"),
        ({"CvmfsRepo": "no name"}, "is not a valid repository name"),
    ],
)
def test_a_publisher_that_fails_stops_no_commit(node: Node, change: dict[str, str], words: str) -> None:
    write_config(node.plugin.commit, **{**node.config, **change})
    started = time.monotonic()
    layer, members = node.commit(node.container("thin", {"new": secrets.token_hex(8)}), "thin")
    assert sorted(members) == ["new"]
    assert time.monotonic() - started < 30
    assert set(node.seen(layer)) == {"base", "gone", "new"}
    assert node.info().startswith("degraded: ")
    assert words in node.info()


def test_a_publisher_that_never_answers_is_not_waited_for(
    tmp_path: Path, s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody publishes, though somebody says that he does."""
    repository = create_repository(FQRN, LocalStorage.create(tmp_path / "srv"), tmp_path / "keys")
    uploads = LayerUploads(s3.bucket("layers"), repository, UploadLimits(size=10))
    monkeypatch.setattr(uploads, "publish", lambda: 0)
    monkeypatch.setattr(layer_upload, "_PATIENCE", 1.0)
    with running_service(PublisherService(uploads, interval=60), "127.0.0.1", 0) as url:
        write_config(tmp_path / "config", Host=s3.host, PublishStatusURL=f"{url}/status")
        uploader = LayerUploader(tmp_path / "config")
        content = secrets.token_bytes(100)
        assert uploader.publish(io.BytesIO(content), lambda _: True) is None
        assert "still reports 'publishing'" in uploader.status()[1]
        # And one that refuses the layer says why.
        monkeypatch.undo()
        LayerUploads.publish(uploads)
        assert uploader.publish(io.BytesIO(content), lambda _: True) is None
        assert "the limit of 10 bytes" in uploader.status()[1] or "still reports" in uploader.status()[1]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"AccessKey": 1}',
        '{"AccessKey":"a","AccessSecret":"b","Host":"h","CvmfsRepo":"a.b","PublishStatusURL":"file:///etc"}',
        '{"AccessKey":"a","AccessSecret":"b","Host":"h","CvmfsRepo":"a.b","PublishStatusURL":"http://[::1"}',
        '{"AccessKey":"a","AccessSecret":"b","Host":"h","CvmfsRepo":"a.b","PublishStatusURL":"http://h","SSL":1}',
    ],
)
def test_configurations_of_nonsense(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UploadError, match="config.json"):
        UploadSettings.load(tmp_path)
    assert LayerUploader(tmp_path).status()[1].startswith("degraded: ")


def test_no_configuration(tmp_path: Path) -> None:
    assert UploadSettings.load(tmp_path / "none") is None
