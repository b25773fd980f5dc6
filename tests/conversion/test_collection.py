"""Images that came and went: afterwards the storage is as if they had never been, on disk and in S3.

The layers are files of this system, so that there are owners, links, modes and content of all kinds.
"""

import hashlib
import shutil
import sqlite3
import subprocess
import sysconfig
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.conversion.chains import prune_records
from cvmfs_graphdriver.conversion.convert import Intake, distinct_layers
from cvmfs_graphdriver.conversion.layout import DirectoryLayout
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.publisher.care.gc import collect_garbage
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.tags import set_tag
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.chunking import ChunkSizes
from cvmfs_graphdriver.repository.compression import decompress
from demo.seaweed import Seaweed
from tests.client.tree.test_revision import read, walk
from tests.publisher.storage.test_s3 import S3Site
from tests.support.fixtures import serve
from tests.support.images import TestLayer, write_layout
from tests.support.storage_site import FQRN, Site
from tests.support.watcher import Watcher

LAYOUT = DirectoryLayout(b"/layers")
OPTIONS = RepositoryOptions(chunking=ChunkSizes(262_144, 524_288, 1_048_576))


def real_layer(*places: str | Path) -> TestLayer:
    """A layer of directories and files of this machine."""
    command = [
        "tar",
        "--create",
        "--sort=name",
        "--exclude=__pycache__",
        "--xattrs",
        "--format=pax",
        "--directory=/",
    ]
    command += [
        "--pax-option=delete=atime,delete=ctime",
        "--file=-",
        *(str(place).lstrip("/") for place in places),
    ]
    return TestLayer(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout, "plain")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images: all share a base, ``gone`` and ``stays`` a layer, and every layer has files of others."""
    python = Path(sysconfig.get_path("stdlib"))
    directory = tmp_path_factory.mktemp("images") / "layout"
    base = real_layer("/etc/pam.d", "/etc/alternatives", "/usr/bin/perl", python / "json")
    shared = real_layer(python / "email", python / "json")
    gone = real_layer(python / "asyncio", "/usr/bin/tar", python / "email")
    stays = real_layer("/usr/bin/gpgv", python / "http")
    write_layout(directory, [base, shared, stays], tag="stays")
    write_layout(directory, [base, shared, gone], tag="gone")
    write_layout(directory, [base, real_layer(python / "asyncio" / "events.py")], tag="small")
    return directory


def convert_all(site: Site, layout: Path, *tags: str) -> None:
    with Intake(site.open(), LAYOUT, Watcher()) as intake:
        for tag in tags:
            source = LayoutImage(layout, tag)
            intake.add(source, load_image(source, None))
        intake.publish()


def paths_of(layout: Path, tag: str) -> set[bytes]:
    image = load_image(LayoutImage(layout, tag), None)
    return {LAYOUT.directory(layer.descriptor.digest) for layer in distinct_layers(image)}


def remove_and_collect(site: Site, paths: set[bytes]) -> None:
    """Remove layers, outlive the revisions that had them, and collect."""
    for gone in (sorted(paths), []):
        with Transaction(site.open()) as transaction:
            for path in gone:
                transaction.remove(path)
            prune_records(transaction)
            transaction.publish()
    index = site.place / f"{type(site).__name__}-index"
    collect_garbage(site.open(), index, since=site.clock + 1)


def essence(files: dict[str, bytes], scratch: Path) -> tuple[dict[str, bytes], list[object]]:
    """The objects, and apart from them what upper catalogs say without their histories.

    Of a catalog above the layers that is all but its revision, its predecessor, and the digests of catalogs
    below that differ in nothing else. Manifest, history and reflog are nothing but history.
    """
    objects, catalogs = {}, []
    for name, data in files.items():
        if not name.startswith("data/") or name[-1] == "H":
            continue
        if name[-1] == "C":
            (scratch / "catalog").write_bytes(decompress(data, Compression.ZLIB))
            with closing(sqlite3.connect(scratch / "catalog")) as sql:
                properties = dict(sql.execute("SELECT key, value FROM properties"))
                if properties.get("root_prefix") in (None, "/layers", "/.chains"):
                    rows = sorted(map(repr, sql.execute("SELECT * FROM catalog")))
                    nested = sorted(map(repr, sql.execute("SELECT path, size FROM nested_catalogs")))
                    counters = sorted(sql.execute("SELECT * FROM statistics"))
                    catalogs.append((sorted(properties), rows, len(nested), counters))
                    continue
        objects[name] = data
    return objects, sorted(catalogs, key=repr)


@dataclass
class Reader:
    """A client that mounts a tag with an empty cache and reads all of it, again and again."""

    url: str
    site: Site
    place: Path
    expected: str = ""
    rounds: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def once(self) -> str:
        """Everything that there is to read, as a digest."""
        shutil.rmtree(self.place, ignore_errors=True)
        (self.place / "etc").mkdir(parents=True)
        values = {
            "CVMFS_SERVER_URL": f"{self.url}/@fqrn@",
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_PUBLIC_KEY": str(self.site.keys / f"{FQRN}.pub"),
            "CVMFS_CACHE_BASE": str(self.place / "cache"),
            "CVMFS_REPOSITORY_TAG": "keep",
            "CVMFS_MAX_RETRIES": "0",
        }
        text = "".join(f"{name}='{value}'\n" for name, value in values.items())
        (self.place / "etc" / "default.local").write_text(text)
        hasher = hashlib.sha256()
        with closing(Client(load_settings(FQRN, self.place / "etc"))) as client:
            revision = client.mount()
            for node in walk(revision, revision.top):
                hasher.update(repr(node.entry).encode())
                if node.entry.is_regular:
                    hasher.update(read(revision, node))
        return hasher.hexdigest()

    def run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                assert self.once() == self.expected
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test must hear of it
                self.failures.append(error)
                return
            self.rounds += 1


def collect_while_reading(site: Site, url: str, layout: Path, place: Path) -> None:
    """Images come and go while somebody reads a retained tag."""
    set_tag(site.open(), "keep")
    reader = Reader(url, site, place)
    reader.expected = reader.once()
    ended = threading.Event()
    thread = threading.Thread(target=reader.run, args=(ended,))
    thread.start()
    try:
        remove_and_collect(site, paths_of(layout, "gone") - paths_of(layout, "small"))
        convert_all(site, layout, "gone")
    finally:
        ended.set()
        thread.join(60)
    assert reader.failures == []
    assert reader.rounds > 0
    assert not thread.is_alive()


def test_storage_after_images_went_on_disk_and_in_s3(tmp_path: Path, s3: Seaweed, layout: Path) -> None:
    disk = Site(tmp_path, OPTIONS)
    cloud = S3Site(disk, s3)
    shutil.copytree(disk.storage, tmp_path / "new")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for each in (disk, cloud):
        convert_all(each, layout, "stays", "gone", "small")
    assert cloud.files() == disk.files()
    assert any(name.endswith("P") for name in disk.files()), "no file is big enough to be cut"
    own = paths_of(layout, "gone") - paths_of(layout, "stays") - paths_of(layout, "small")
    assert len(own) == 1
    for each in (disk, cloud):
        remove_and_collect(each, own)
        assert each.findings() == []
    assert cloud.files() == disk.files()
    objects, catalogs = essence(disk.files(), scratch)

    shutil.rmtree(disk.storage)
    shutil.copytree(tmp_path / "new", disk.storage)
    (tmp_path / "Site-index").unlink()
    convert_all(disk, layout, "stays", "small")
    remove_and_collect(disk, set())
    others, other_catalogs = essence(disk.files(), scratch)
    assert objects == others
    assert catalogs == other_catalogs


def test_a_client_reads_a_retained_tag_while_garbage_is_collected(
    tmp_path: Path, s3: Seaweed, layout: Path
) -> None:
    disk = Site(tmp_path, OPTIONS)
    cloud = S3Site(disk, s3)
    with serve(tmp_path) as server:
        (tmp_path / FQRN).symlink_to(disk.storage)
        bucket = f"http://{s3.host}/{cloud.bucket.settings.bucket}"
        for site, url in ((disk, server.url), (cloud, bucket)):
            site.clock = time.time()
            site.open().resign()
            convert_all(site, layout, "small", "gone")
            collect_while_reading(site, url, layout, tmp_path / "reader")
            assert site.findings() == []
