"""A small file system in memory, and a way to mount any file system for a test."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.kernel.fuse.device import mount_device, open_device
from cvmfs_graphdriver.kernel.fuse.filesystem import Filesystem, RefusalError
from cvmfs_graphdriver.kernel.fuse.inflight import InFlight
from cvmfs_graphdriver.kernel.fuse.server import Server
from cvmfs_graphdriver.kernel.fuse.wire import Attributes, StatFs
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at


@dataclass
class File:
    """Anything; ``content`` is a file's bytes or a link's target."""

    attributes: Attributes
    content: bytes = b""
    children: dict[bytes, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    parent: int = wire.ROOT_NODE


class MemoryFilesystem:
    """A tree of ``File``. Counts the calls of every operation."""

    def __init__(self, ttl: int = wire.FOREVER) -> None:
        self.ttl = ttl
        self.files = {wire.ROOT_NODE: File(Attributes(wire.ROOT_NODE, stat.S_IFDIR | 0o755, links=2))}
        self.calls: list[str] = []
        self.errors: list[Exception] = []
        self.before: Callable[[str, int], None] = lambda _operation, _node: None

    def add(self, name: bytes, mode: int, content: bytes = b"", *, parent: int = 1, **attributes: int) -> int:
        node = len(self.files) + 1
        details = Attributes(node, mode, size=len(content), **attributes)
        self.files[node] = File(details, content, parent=parent)
        self.files[parent].children[name] = node
        return node

    def lookup(self, parent: int, name: bytes) -> bytes:
        self._called("lookup", parent)
        if name == b".":
            node: int | None = parent
        elif name == b"..":
            node = self.files[parent].parent
        else:
            node = self.files[parent].children.get(name)
        if node is None:
            return wire.no_entry(self.ttl)
        return wire.entry(
            node, self.files[node].attributes.pack(), entry_ttl=self.ttl, attribute_ttl=self.ttl
        )

    def getattr(self, node: int) -> bytes:
        self._called("getattr", node)
        return wire.attributes_reply(self._file(node).attributes.pack(), attribute_ttl=self.ttl)

    def readlink(self, node: int) -> bytes:
        self._called("readlink", node)
        return self._file(node).content

    def read(self, node: int, offset: int, buffer: memoryview) -> int:
        self._called("read", node)
        data = self._file(node).content[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def readdir(self, node: int, offset: int, size: int) -> bytes:
        self._called("readdir", node)
        return self._listing(node, offset, size, plus=False)

    def readdirplus(self, node: int, offset: int, size: int) -> bytes:
        self._called("readdirplus", node)
        return self._listing(node, offset, size, plus=True)

    def getxattr(self, node: int, name: bytes, gid: int) -> bytes:
        del gid
        self._called("getxattr", node)
        try:
            return self._file(node).xattrs[name]
        except KeyError:
            raise RefusalError(errno.ENODATA) from None

    def listxattr(self, node: int) -> Iterable[bytes]:
        self._called("listxattr", node)
        return self._file(node).xattrs

    def statfs(self) -> StatFs:
        self._called("statfs", 0)
        return StatFs(blocks=1000, free=400, files=50, files_free=7)

    def failed(self, node: int, error: Exception) -> None:
        del node
        self.errors.append(error)

    def change(self, node: int, content: bytes) -> None:
        file = self.files[node]
        self.files[node] = replace(
            file, content=content, attributes=file.attributes._replace(size=len(content))
        )

    def _file(self, node: int) -> File:
        return self.files[node]

    def _called(self, operation: str, node: int) -> None:
        self.calls.append(operation)
        self.before(operation, node)

    def _listing(self, node: int, offset: int, size: int, *, plus: bool) -> bytes:
        out = b""
        names = list(self.files[node].children.items())
        for position, (name, child) in enumerate(names[offset:], offset + 1):
            attributes = self.files[child].attributes
            if plus:
                looked_up = wire.entry(child, attributes.pack(), entry_ttl=self.ttl, attribute_ttl=self.ttl)
                item = wire.directory_entry_plus(name, child, attributes.mode, position, looked_up)
            else:
                item = wire.directory_entry(name, child, attributes.mode, position)
            if len(out) + len(item) > size:
                break
            out += item
        return out


@contextmanager
def serving(filesystem: Filesystem, target: Path, threads: int = 4) -> Iterator[Server]:
    """Mount, serve in threads of this process, and clean up.

    The test must not block the interpreter: file operations release its lock, and that is enough.
    """
    device = open_device()
    server = Server(device, filesystem, InFlight(threads))
    mount_device(device, target, source="memory", subtype="test")
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        while mount_at(target):
            umount(target, UmountFlag.DETACH)
        thread.join(10)
        os.close(device)
        assert not thread.is_alive(), "the server did not end with its mount"
