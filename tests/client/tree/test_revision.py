"""A mounted revision against what the reference client saw of the same repository."""

import hashlib
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.tree.revision import Node, Revision
from tests.support.fixtures import Server, UnpackedRepository, serve, unpack

FIXTURES = [
    *("chunked-default", "empty", "external", "gc", "hardlinks-aufs", "hardlinks-overlayfs", "ingest"),
    *("kitchen-sha1", "lite-rmd160-zlib", "lite-sha1-none", "lite-sha1-zlib", "lite-shake128-none"),
    *("nochunk", "noxattr", "virtualdir", "volatile-altpath"),
]
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}
_MAGIC = {
    "dir": ["user.catalog_counters", "user.hash"],
    "symlink": ["user.rawlink", "xfsroot.rawlink"],
    "file": [
        *("user.hash", "user.lhash", "user.chunks", "user.chunk_list", "user.compression"),
        *("user.direct_io", "user.external_file", "user.external_url", "user.catalog_counters"),
    ],
}


def describe(revision: Revision, node: Node) -> dict[str, Any]:
    """A node in the form of ``expected.json``, without magic attributes."""
    entry = node.entry
    seen: dict[str, Any] = {}
    _put(seen, "path", node.path)
    seen["type"] = TYPES[stat.S_IFMT(entry.mode)]
    seen["mode"] = f"{entry.mode:06o}"
    # The kernel shows the number that means "nobody" as its overflow user.
    seen["uid"] = 65534 if entry.uid == 0xFFFFFFFF else entry.uid
    seen["gid"] = 65534 if entry.gid == 0xFFFFFFFF else entry.gid
    seen |= {"mtime": entry.mtime, "mtime_ns": entry.mtime_ns or 0}
    seen["nlink"] = entry.linkcount
    seen["size"] = entry.size
    if entry.is_symlink:
        target = revision.readlink(node)
        seen["size"] = len(target)
        _put(seen, "target", target)
    seen["blocks"] = 1 + seen["size"] // 512
    if seen["type"] in {"char", "block"}:
        major = (entry.rdev >> 8) & 0xFFF
        minor = (entry.rdev & 0xFF) | ((entry.rdev >> 12) & 0xFFF00)
        seen["rdev"] = [major, minor]
    seen["xattrs"] = {
        name.decode(): (revision.magic_xattr(node, name) or value).hex()
        for name, value in revision.xattrs(node).items()
    }
    if entry.is_regular:
        content = read(revision, node)
        seen["sha256"] = hashlib.sha256(content).hexdigest()
        seen["bytes_read"] = len(content)
    if names := _MAGIC.get(seen["type"] if node.path else ""):
        seen["magic"] = magic(revision, node, names)
    return seen


def magic(revision: Revision, node: Node, names: Iterable[str]) -> dict[str, Any]:
    """Magic attributes in the form of ``expected.json``."""
    found: dict[str, Any] = {}
    for name in names:
        value = revision.magic_xattr(node, name.encode())
        if value is None or (node.entry.is_symlink and name.startswith("user.")):
            # The kernel itself has no "user." attributes for symbolic links.
            found[name] = {"errno": "ENODATA"}
            continue
        try:
            found[name] = {"text": value.decode()}
        except UnicodeDecodeError:
            found[name] = {"hex": value.hex()}
    return found


def read(revision: Revision, node: Node, piece: int = 1 << 20) -> bytes:
    """Content of a file, read in pieces."""
    file = revision.open(node)
    try:
        pieces = []
        offset = 0
        while data := file.pread(piece, offset):
            pieces.append(data)
            offset += len(data)
        return b"".join(pieces)
    finally:
        file.close()


def walk(revision: Revision, node: Node) -> Iterator[Node]:
    """All nodes below and including ``node``, in the order of ``expected.json``."""
    yield node
    for child in sorted(revision.children(node), key=lambda child: child.path):
        yield from walk(revision, child)


def _put(seen: dict[str, Any], key: str, value: bytes) -> None:
    try:
        seen[key] = value.decode()
    except UnicodeDecodeError:
        seen[key] = None
        seen[f"{key}_hex"] = value.hex()


def _compare(revision: Revision, root: Node, expected: list[dict[str, Any]], url: str) -> None:
    groups: dict[int, int] = {}
    seen = []
    for node in walk(revision, root):
        description = describe(revision, node)
        if node.entry.linkcount > 1 and not node.entry.is_directory:
            description["hardlink_group"] = groups.setdefault(node.inode, len(groups) + 1)
        if node.entry.is_directory:
            description["entries"] = len(list(revision.children(node)))
        seen.append(description)
    wanted = []
    for entry in expected:
        entry.pop("blksize")
        if not entry["path"] and "path_hex" not in entry:
            entry["xattrs"] = {}
        if "text" in entry.get("magic", {}).get("user.external_url", {}):
            path = urlparse(entry["magic"]["user.external_url"]["text"]).path
            entry["magic"]["user.external_url"]["text"] = url + path
        wanted.append(entry)
    assert [entry["path"] for entry in seen] == [entry["path"] for entry in wanted]
    for ours, theirs in zip(seen, wanted, strict=True):
        assert ours == theirs


@contextmanager
def mounted(name: str, directory: Path, **overrides: str) -> Iterator[tuple[Client, Revision, Server]]:
    """A fixture, unpacked, served and mounted."""
    repository = unpack(name, directory / "repository")
    with (
        serve(repository.directory) as server,
        closing(Client(repository.settings(server.url, directory, **overrides))) as client,
    ):
        yield client, client.mount(), server


@pytest.mark.parametrize(
    ("fixture", "tag"),
    [
        *((name, "") for name in FIXTURES),
        ("gc", "keep"),
        ("kitchen-sha1", "base"),
        ("kitchen-sha1", "v1"),
        ("kitchen-sha1", "v2"),
    ],
)
def test_tree_is_what_the_reference_client_saw(fixture: str, tag: str, tmp_path: Path) -> None:
    expected = UnpackedRepository.expected_of(fixture, tag)
    with mounted(fixture, tmp_path, CVMFS_REPOSITORY_TAG=tag) as (_, revision, server):
        _compare(revision, revision.node(1), expected["entries"], server.url)
        for path, found in expected["lookups"].items():
            assert (revision.lookup(b"/" + path.encode()) is not None) == (found == "exists")
        wanted = expected["root_magic_xattrs"]
        wanted.pop("user.version")
        assert magic(revision, revision.top, wanted) == wanted
        names = [name.decode() for name in revision.magic_names(revision.top)]
        assert names == expected["root_listxattr"]
        for name in names:
            assert revision.magic_xattr(revision.top, name.encode()) is not None
        if "hidden_entries" in expected:
            hidden = revision.lookup(b"/.cvmfs")
            assert hidden is not None
            _compare(revision, hidden, expected["hidden_entries"], server.url)


def test_external_servers_that_are_not_configured(tmp_path: Path) -> None:
    with mounted("empty", tmp_path, CVMFS_TIMEOUT_DIRECT="5") as (_, revision, _):
        assert revision.magic_xattr(revision.top, b"user.external_host") == b""
        assert revision.magic_xattr(revision.top, b"user.external_timeout") == b"5"
    place = tmp_path / "other"
    overrides = {"CVMFS_EXTERNAL_URL": "http://external.invalid/@fqrn@", "CVMFS_TIMEOUT_DIRECT": "7"}
    with mounted("empty", place, **overrides) as (_, revision, _):
        host = revision.magic_xattr(revision.top, b"user.external_host")
        assert host is not None
        assert host.startswith(b"http://external.invalid/")
        assert revision.magic_xattr(revision.top, b"user.external_timeout") == b"7"
