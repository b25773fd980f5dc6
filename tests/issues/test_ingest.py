"""Known bugs of stock tools around layers, none of which may be ours.

Each test names the report: cvmfs#N is an issue of the CernVM-FS project. Layers go the whole way: from a tar
stream through the converter into a catalog.
"""

import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry
from cvmfs_graphdriver.repository.catalog.xattr import parse_xattrs
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix

Member = tuple[tarfile.TarInfo, bytes]
Convert = Callable[..., dict[bytes, DirectoryEntry]]


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **values: object) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Store one layer; gives all entries of its catalog by path."""
    storage = LocalStorage.create(tmp_path / "storage")
    repository = create_repository("issues.example.org", storage, tmp_path / "keys")

    def run(*members: Member) -> dict[bytes, DirectoryEntry]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, content in members:
                tar.addfile(info, io.BytesIO(content))
        stream = LayerStream("the layer", io.BytesIO(out.getvalue()))
        with Transaction(repository) as transaction:
            transaction.ingest(b"/layer", tree_entries(stream, []))
            manifest = transaction.publish()
        root = Catalog.open(
            repository.unpack(ObjectName(manifest.root, Suffix.CATALOG), tmp_path), mountpoint=b""
        )
        reference = root.nested_for(b"/layer")
        root.close()
        assert reference is not None
        name = ObjectName(reference.digest, Suffix.CATALOG)
        catalog = Catalog.open(repository.unpack(name, tmp_path), mountpoint=b"/layer")
        found: dict[bytes, DirectoryEntry] = {}
        pending = [b"/layer"]
        while pending:
            path = pending.pop()
            for entry in catalog.listing(path):
                found[path[len(b"/layer") :] + b"/" + entry.name] = entry
                if entry.is_directory:
                    pending.append(path + b"/" + entry.name)
        catalog.close()
        return found

    return run


def test_cvmfs_3047_attributes_in_pax_headers_are_kept(convert: Convert) -> None:
    found = convert(member("file", pax_headers={"SCHILY.xattr.user.comment": "kept"}))
    assert parse_xattrs(found[b"/file"].xattr) == {b"user.comment": b"kept"}


def test_cvmfs_3756_whiteouts_keep_their_names(convert: Convert) -> None:
    found = convert(member(".wh.gone"), member("d", tarfile.DIRTYPE), member("d/.wh..wh..opq"))
    assert found.keys() == {b"/.wh.gone", b"/d", b"/d/.wh..wh..opq"}
    assert found[b"/.wh.gone"].is_regular


def test_cvmfs_4286_hard_links_are_one_file(convert: Convert) -> None:
    found = convert(
        member("a", content=b"x"),
        member("b", tarfile.LNKTYPE, linkname="a"),
        member("d/c", tarfile.LNKTYPE, linkname="./a"),
    )
    groups = {found[path].hardlink_group for path in (b"/a", b"/b", b"/d/c")}
    assert len(groups) == 1
    assert groups != {0}
    assert {found[path].linkcount for path in (b"/a", b"/b", b"/d/c")} == {3}


def test_cvmfs_4286_a_link_to_nowhere_is_refused_and_leaves_nothing(convert: Convert) -> None:
    with pytest.raises(PublisherError, match="hard link to b?'/absent'"):
        convert(member("a", content=b"x"), member("b", tarfile.LNKTYPE, linkname="absent"))
    assert convert(member("a")).keys() == {b"/a"}


def test_cvmfs_4439_owners_are_kept(convert: Convert) -> None:
    found = convert(member("file", uid=1234, gid=4_000_000_000))
    assert (found[b"/file"].uid, found[b"/file"].gid) == (1234, 4_000_000_000)


def test_ducc_loses_setuid_setgid_and_sticky_bits(convert: Convert) -> None:
    found = convert(member("suid", mode=0o6755), member("tmp", tarfile.DIRTYPE, mode=0o1777))
    assert stat.S_IMODE(found[b"/suid"].mode) == 0o6755
    assert stat.S_IMODE(found[b"/tmp"].mode) == 0o1777


def test_ducc_skips_devices_and_fifos(convert: Convert) -> None:
    found = convert(
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("disk", tarfile.BLKTYPE, devmajor=259, devminor=70_000),
        member("fifo", tarfile.FIFOTYPE),
    )
    assert stat.S_ISCHR(found[b"/null"].mode)
    assert found[b"/null"].rdev == 0x103
    assert stat.S_ISBLK(found[b"/disk"].mode)
    assert stat.S_ISFIFO(found[b"/fifo"].mode)
