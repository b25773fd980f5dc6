"""Conversions that are killed, whose registry or store goes away, whose disk fills: readers see old or new.

KILLS is how many times a conversion is killed: 50 and more for a long night.
"""

import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.convert import convert
from cvmfs_graphdriver.conversion.layout import DirectoryLayout
from cvmfs_graphdriver.oci.errors import RegistryUnreachableError
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.reference import ImageReference
from cvmfs_graphdriver.oci.image.source import ImageSource, load_image
from cvmfs_graphdriver.oci.registry.credentials import DockerConfig
from cvmfs_graphdriver.oci.registry.registry import Registry, RegistryImage
from cvmfs_graphdriver.oci.registry.transport import Transport, TransportSettings
from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings
from cvmfs_graphdriver.publisher.storage.upstream import storage_at
from demo.disks import BLOCK, loop_disk
from demo.seaweed import Seaweed
from tests.publisher.storage.test_s3 import S3Site
from tests.support.images import TestLayer, push, write_layout
from tests.support.project import PROJECT
from tests.support.registry import run_registry
from tests.support.storage_site import FQRN, Site
from tests.support.tars import tar_of
from tests.support.watcher import Watcher

KILLS = int(os.environ.get("KILLS", "5"))
LAYOUT = DirectoryLayout(b"/layers")

# For each line that it reads: converts an image in a process of its own, kills that if a time is given, and
# says how it ended.
CONVERTER = """
import os, signal, sys, time
from pathlib import Path
from cvmfs_graphdriver.conversion.convert import convert
from cvmfs_graphdriver.conversion.layout import DirectoryLayout
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.upstream import storage_at
from tests.support.watcher import Watcher
from tests.support.storage_site import FQRN
for line in sys.stdin:
    tag, seconds = line.split()
    child = os.fork()
    if child == 0:
        source = LayoutImage(Path(sys.argv[1]), tag)
        repository = Repository.open(FQRN, storage_at(Path(sys.argv[2]), FQRN), Path(sys.argv[3]))
        convert(source, load_image(source, None), repository, DirectoryLayout(b"/layers"), Watcher())
        os._exit(0)
    if float(seconds):
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Converter:
    """Converts images of a layout; killed or not, as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def convert(self, tag: str, *, kill_after: float = 0) -> None:
        """Convert, or begin to; a time is in seconds."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{tag} {kill_after}\n")
        stdin.flush()
        assert int(stdout.readline()) == 0 or kill_after


@contextmanager
def converter(layout: Path, place: Path, keys: Path, scratch: Path) -> Iterator[Converter]:
    command = [sys.executable, "-c", CONVERTER, *map(str, (layout, place, keys))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as process:  # fmt: skip
        yield Converter(process)
        process.communicate()


def image(layout: Path, tag: str, *, megabytes: int = 1) -> list[TestLayer]:
    """Add an image of three layers to a layout."""
    dice = random.Random(tag)
    size = megabytes << 20
    layers = [
        TestLayer(tar_of({f"{n}/{m}": dice.randbytes(size // 8) for m in range(8)}), "plain")
        for n in range(3)
    ]
    write_layout(layout, layers, tag=tag)
    return layers


@pytest.mark.parametrize("kind", ["disk", "S3"])
def test_conversions_that_are_killed_anywhere(tmp_path: Path, kind: str, s3: Seaweed) -> None:
    site = Site(tmp_path / "site")
    place = site.storage
    if kind == "S3":
        site = S3Site(site, s3)
        place = site.configuration
    site.clock = time.time()
    site.open().resign()
    layout, scratch = tmp_path / "layout", tmp_path / "scratch"
    layout.mkdir()
    scratch.mkdir()
    dice = random.Random(1)
    image(layout, "first", megabytes=2)
    with converter(layout, place, site.keys, scratch) as run:
        start = time.monotonic()
        run.convert("first")
        length = time.monotonic() - start
        number, manifest, tree = 0, site.open().manifest(), site.tree()
        layers = image(layout, "0", megabytes=2)
        for _ in range(KILLS):
            run.convert(str(number), kill_after=dice.uniform(0, length))
            assert site.findings() == []
            if site.open().manifest() == manifest:
                assert site.tree() == tree
                continue
            assert all(f"/layers/{layer.digest[7:]}".encode() in site.names() for layer in layers)
            number, manifest, tree = number + 1, site.open().manifest(), site.tree()
            layers = image(layout, str(number), megabytes=2)
        run.convert(str(number))
    assert site.open().manifest().revision == manifest.revision + 1
    assert site.findings() == []
    known = {name: content for name, (_, content) in site.tree(b"/layers").items()}
    assert all(len([path for path in known if layer.digest[7:].encode() in path]) == 10 for layer in layers)
    if kind == "disk":
        assert [name for name in os.listdir(site.storage / "data/txn") if name != ".lock"] == []


class CuttingProxy:
    """Passes connections to a server on until ``left`` bytes have gone either way, then none."""

    def __init__(self, server: str) -> None:
        host, _, port = server.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.left = 0
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                threads.append(threading.Thread(target=self._pass_on, args=(client,), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while (left := self.left) > 0 and (data := source.recv(min(left, 1 << 16))):
                self.left -= len(data)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def test_a_registry_that_goes_away_anywhere(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.publish({b"/layers/old": []})
    layout = tmp_path / "layout"
    layout.mkdir()
    image(layout, "latest")
    before, tree = site.files(), site.tree()
    dice = random.Random(2)
    with run_registry(tmp_path / "registry") as server:
        push(layout, f"{server.host}/cut:1")
        proxy = CuttingProxy(server.host)
        transport = Transport(TransportSettings(attempts=2, first_pause=0.01))
        try:
            registry = Registry(proxy.host, transport, DockerConfig(tmp_path / "none"))
            source = RegistryImage(registry, ImageReference.parse(f"{proxy.host}/cut:1"))
            for _ in range(10):
                proxy.left = int(dice.uniform(0, 3 << 20))
                with pytest.raises(RegistryUnreachableError):
                    convert(source, load_image(source, None), site.open(), LAYOUT, Watcher())
                assert site.files() == before
            assert site.tree() == tree
            proxy.left = 1 << 30
            conversion = convert(source, load_image(source, None), site.open(), LAYOUT, Watcher())
        finally:
            transport.close()
            proxy.close()
    assert len(conversion.new) == 3
    assert site.findings() == []


def test_a_store_that_goes_away_anywhere(tmp_path: Path, s3: Seaweed) -> None:
    site = S3Site(Site(tmp_path / "site"), s3)
    site.clock = time.time()
    site.open().resign()
    site.publish({b"/layers/old": []})
    layout = tmp_path / "layout"
    layout.mkdir()
    manifest, tree = site.files()[".cvmfspublished"], site.tree()
    dice = random.Random(3)
    proxy = CuttingProxy(s3.host)
    try:
        bucket = S3Settings.load(site.configuration).bucket
        port = proxy.host.partition(":")[2]
        through = s3.configuration(bucket, PORT=port, MAX_RETRIES="0", TIMEOUT="5")
        proxy.left = 1 << 30
        repository = Repository.open(FQRN, storage_at(through, FQRN), site.keys)
        for number in range(10):
            image(layout, str(number))  # another one each time: what was stored of the last one may stay
            source = LayoutImage(layout, str(number))
            proxy.left = int(dice.uniform(0, 3 << 20))
            with pytest.raises(StorageError, match="127.0.0.1"):
                convert(source, load_image(source, None), repository, LAYOUT, Watcher())
            assert site.files()[".cvmfspublished"] == manifest
            assert site.tree() == tree
            assert site.findings() == []
        proxy.left = 1 << 30
        conversion = convert(source, load_image(source, None), repository, LAYOUT, Watcher())
    finally:
        proxy.close()
    assert len(conversion.new) == 3
    assert site.findings() == []


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """An ext4 of 24 MiB."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, loop_disk(Path(name, "disk"), 24 << 20) as disk:
        yield disk


@pytest.mark.root
def test_a_disk_that_fills_anywhere(small_disk: Path, tmp_path: Path) -> None:
    site = Site(small_disk)
    site.publish({b"/layers/old": []})
    before = site.files()
    layout = tmp_path / "layout"
    layout.mkdir()
    image(layout, "latest")
    source: ImageSource = LayoutImage(layout, "latest")
    ballast = small_disk / "ballast"
    for step in range(10):
        free = os.statvfs(small_disk)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * BLOCK - 200_000 - step * 270_000)
        with pytest.raises(StorageError, match="disk is full"):
            convert(source, load_image(source, None), site.open(), LAYOUT, Watcher())
        ballast.unlink()
        files = site.files()
        files[".cvmfsreflog"] = before[".cvmfsreflog"]  # which may name what was never published
        assert files == before
        assert site.findings() == []
    assert len(convert(source, load_image(source, None), site.open(), LAYOUT, Watcher()).new) == 3
    assert site.findings() == []
