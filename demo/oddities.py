"""What a layer can contain besides plain files: the demo's third layer, as a directory to be packed.

Owns: the list. Whiteouts and opaque directories have the names that the OCI image specification gives them
(section "Whiteouts" of layer.md). Must not know: how layers are packed.
"""

import hashlib
import os
import stat
import struct
from pathlib import Path

__all__ = ["make_oddities"]

_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # VFS_CAP_REVISION_2, CAP_NET_RAW, effective
_SECOND = 1_000_000_000


def make_oddities(root: Path) -> Path:
    """Create the tree below ``root``; only what lies on lower layers is named by its real path."""
    odd = root / "odd"
    for name in (
        "links",
        "other",
        "modes/setgid",
        "modes/sticky",
        "times",
        "deep/" + "/".join("abcdefghij" * 4),
    ):
        (odd / name).mkdir(parents=True)
    # Deletions and replacements of what the layers below have.
    for name in ("etc", "usr/share/base-files", "usr/share/doc", "usr/lib/python3/dist-packages"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/.wh.debian_version").touch()
    (root / "etc/motd").write_text("this file replaces another\n")
    (root / "usr/share/base-files/.wh..wh..opq").touch()
    (root / "usr/share/base-files/only").write_text("the directory is opaque\n")
    (root / "usr/share/.wh.bug").touch()
    (root / "usr/share/doc/.wh.python3-numpy").touch()
    (root / "etc/skel").mkdir()  # deleted and made anew in one layer
    (root / "etc/skel/.wh..wh..opq").touch()
    (root / "etc/skel/new").touch()
    (root / "usr/share/doc/bash").write_text("a file replaces a directory\n")
    (root / "etc/issue").mkdir()  # a directory replaces a file
    (root / "etc/issue/in it").touch()
    os.symlink("issue", root / "etc/issue.net")  # a symlink replaces a file
    # Hard links: in a directory, across directories, of a symlink, of a setuid file.
    (odd / "links/one").write_text("three names\n")
    os.link(odd / "links/one", odd / "links/two")
    os.link(odd / "links/one", odd / "other/three")
    os.symlink("one", odd / "links/symlink")
    os.link(odd / "links/symlink", odd / "links/symlink-too", follow_symlinks=False)
    # Modes, owners, capabilities, extended attributes.
    (odd / "modes/setuid").write_bytes(b"\x7fELF nothing")
    os.chown(odd / "modes/setuid", 0, 12)
    (odd / "modes/setuid").chmod(0o6711)
    os.link(odd / "modes/setuid", odd / "other/setuid-too")
    (odd / "modes/setgid").chmod(0o2775)
    (odd / "modes/sticky").chmod(0o1777)
    (odd / "modes/nothing").write_text("nobody may read this\n")
    (odd / "modes/nothing").chmod(0)
    os.chown(odd / "modes/nothing", 65534, 4_000_000_000)
    (odd / "modes/capable").write_bytes(b"\x7fELF nothing either")
    os.setxattr(odd / "modes/capable", "security.capability", _CAPABILITY)
    for target in (odd / "modes/capable", odd / "other"):
        os.setxattr(target, "user.comment", b"an attribute\nof two lines")
        os.setxattr(target, "user.empty", b"")
    # Special files.
    os.mknod(odd / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(odd / "disk", stat.S_IFBLK | 0o640, os.makedev(259, 70_000))
    os.mkfifo(odd / "fifo", 0o600)
    # Names.
    for odd_name in (
        b"with space",
        b"new\nline",
        b"\xff\xfe not UTF-8",
        "ünïcödé ☃".encode(),
        b"x" * 255,
        b"-dash",
        b"#",
    ):
        with open(os.fsencode(odd) + b"/" + odd_name, "wb") as file:
            file.write(b"named " + odd_name)
    os.symlink(b"to \xff nowhere", os.fsencode(odd) + b"/dangling")
    os.symlink("/etc/passwd", odd / "absolute")
    # Holes, sizes, times.
    with (odd / "sparse").open("wb") as file:
        file.truncate(24 << 20)
        file.seek(10 << 20)
        file.write(b"an island in zeros")
    (odd / "empty").touch()
    blocks = (hashlib.sha256(b"%d" % number).digest() for number in range(600_000))
    (odd / "big").write_bytes(b"".join(blocks))
    for name, time in (
        ("now", 1_700_000_000 * _SECOND + 123_456_789),
        ("old", 1),
        ("future", 4_000_000_000 * _SECOND),
    ):
        (odd / "times" / name).touch()
        os.utime(odd / "times" / name, ns=(time, time))
    return root
